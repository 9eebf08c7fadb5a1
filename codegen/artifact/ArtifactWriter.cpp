#include "codegen/artifact/ArtifactWriter.h"

#include "codegen/artifact/ManifestBuilder.h"
#include "codegen/artifact/OutputFile.h"
#include "runtime/schema/file_header.h"

#include <array>
#include <cstring>
#include <future>

using namespace quern;

namespace {
/// Appends segments to the file and keeps their records.
class SegmentWriter {
public:
  explicit SegmentWriter(OutputFile &file) : file(file) {}

  llvm::Error add(schema::SegmentKind kind, std::string name,
                  std::span<const uint8_t> bytes) {
    return add(kind, std::move(name),
               [&](ByteSink sink) { return sink(bytes); });
  }

  /// Adds the segment whose bytes `produce` hands to its sink.
  llvm::Error add(schema::SegmentKind kind, std::string name,
                  llvm::function_ref<llvm::Error(ByteSink)> produce) {
    if (llvm::Error error = file.align(kSegmentAlignment))
      return error;
    SegmentRecord record{kind, std::move(name), file.size(), 0, {}};
    Hasher hasher;
    auto sink = [&](std::span<const uint8_t> bytes) {
      hasher.update(bytes);
      return file.append(bytes);
    };
    if (llvm::Error error = produce(sink))
      return error;
    record.size = file.size() - record.offset;
    record.hash = hasher.finish();
    records.push_back(std::move(record));
    return llvm::Error::success();
  }

  std::vector<SegmentRecord> records;

private:
  OutputFile &file;
};
} // namespace

/// Code, program, tokenizer and weights, in this order.
static llvm::Error writeSegments(const ArtifactInputs &inputs,
                                 const WeightPlan &plan,
                                 const PackProgress &progress,
                                 SegmentWriter &writer) {
  for (const host::CodeImage &image : inputs.images)
    if (llvm::Error error = writer.add(schema::SegmentKind::HostCode,
                                       "code." + image.target, image.bytes))
      return error;
  for (const nvptx::PtxImage &image : inputs.ptxImages) {
    const auto *text = reinterpret_cast<const uint8_t *>(image.text.data());
    if (llvm::Error error =
            writer.add(schema::SegmentKind::Ptx, "ptx." + image.target,
                       std::span<const uint8_t>(text, image.text.size())))
      return error;
  }
  if (!inputs.program.empty()) {
    const auto *text = reinterpret_cast<const uint8_t *>(inputs.program.data());
    if (llvm::Error error =
            writer.add(schema::SegmentKind::Program, "program",
                       std::span<const uint8_t>(text, inputs.program.size())))
      return error;
  }
  if (inputs.tokenizer)
    if (llvm::Error error = writer.add(schema::SegmentKind::Tokenizer,
                                       "tokenizer", *inputs.tokenizer))
      return error;
  if (!inputs.findWeight)
    return writer.add(schema::SegmentKind::Weights, "weights",
                      inputs.packedWeights);
  return writer.add(
      schema::SegmentKind::Weights, "weights", [&](ByteSink sink) {
        uint64_t done = 0;
        return streamWeights(plan, [&](std::span<const uint8_t> bytes) {
          done += bytes.size();
          if (progress)
            progress(done, plan.size);
          return sink(bytes);
        });
      });
}

/// Appends the manifest, puts its place and digest in the header and returns
/// that.
static llvm::Expected<FileHeader>
writeManifest(OutputFile &file, std::span<const uint8_t> manifest) {
  if (manifest.size() > kMaxManifestBytes)
    return compileError(ExitCode::Unsupported,
                        "the manifest has " + llvm::Twine(manifest.size()) +
                            " bytes; at most " +
                            llvm::Twine(kMaxManifestBytes) +
                            " fit; compile for fewer targets");
  if (llvm::Error error = file.align(kSegmentAlignment))
    return std::move(error);
  FileHeader header{};
  std::memcpy(header.magic, kFileMagic, sizeof(header.magic));
  header.version = kFileVersion;
  header.manifest_offset = file.size();
  header.manifest_size = manifest.size();
  const Digest digest = hashBytes(manifest);
  std::memcpy(header.manifest_hash, digest.data(), digest.size());
  if (llvm::Error error = file.append(manifest))
    return std::move(error);
  const auto *bytes = reinterpret_cast<const uint8_t *>(&header);
  if (llvm::Error error = file.overwrite(0, {bytes, sizeof(header)}))
    return std::move(error);
  return header;
}

llvm::Expected<ArtifactSummary>
quern::writeArtifact(const std::string &path, const ArtifactInputs &inputs,
                     const PackProgress &progress) {
  llvm::Expected<rt::ProgramOp> program = findProgram(inputs.module);
  if (!program)
    return program.takeError();
  llvm::Expected<ProgramBodies> bodies = programBodies(*program);
  if (!bodies)
    return bodies.takeError();
  llvm::Expected<WeightLayout> weights =
      layOutWeights(*program, *bodies, inputs.findWeight);
  if (!weights)
    return weights.takeError();
  if (!inputs.findWeight && inputs.packedWeights.size() != weights->plan.size)
    return compileError(ExitCode::Malformed,
                        "the program has " + llvm::Twine(weights->plan.size) +
                            " bytes of weights and the artifact " +
                            llvm::Twine(inputs.packedWeights.size()) +
                            "; compile it anew from the model file");

  llvm::Expected<OutputFile> file = OutputFile::create(path);
  if (!file)
    return file.takeError();
  if (llvm::Error error = file->reserve(weights->plan.size))
    return std::move(error);
  const std::array<uint8_t, sizeof(FileHeader)> header{};
  if (llvm::Error error = file->append(header))
    return std::move(error);

  std::future<std::optional<Digest>> sourceHash =
      std::async(std::launch::async, [&] {
        return inputs.findWeight ? hashBytes(inputs.source) : inputs.sourceHash;
      });
  SegmentWriter segments(*file);
  if (llvm::Error error =
          writeSegments(inputs, weights->plan, progress, segments))
    return std::move(error);
  llvm::Expected<std::vector<uint8_t>> manifest =
      buildManifest({inputs.module, *program, *bodies, *weights, inputs.images,
                     inputs.ptxImages, segments.records, inputs.producer,
                     inputs.tuning, sourceHash.get()});
  if (!manifest)
    return manifest.takeError();
  llvm::Expected<FileHeader> written = writeManifest(*file, *manifest);
  if (!written)
    return written.takeError();
  if (inputs.signingKey)
    if (llvm::Error error =
            appendSignature(*file, *written, *inputs.signingKey))
      return std::move(error);
  ArtifactSummary summary;
  summary.fileBytes = file->size();
  if (llvm::Error error = file->commit())
    return std::move(error);
  std::memcpy(summary.hash.data(), written->manifest_hash, kHashBytes);
  summary.weightBytes = weights->plan.size;
  summary.sourceWeightBytes = weights->sourceBytes;
  summary.parameters = weights->parameters;
  summary.quantizedFrom = weights->quantizedFrom;
  summary.quantizedTo = weights->quantizedTo;
  return summary;
}

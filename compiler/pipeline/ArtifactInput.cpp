#include "compiler/pipeline/ArtifactInput.h"

#include "compiler/pipeline/RuntimeHandles.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/JSON.h"

using namespace quern;
namespace json = llvm::json;

bool quern::isArtifactPath(llvm::StringRef path) {
  return path.ends_with(".quern");
}

/// The bytes of the first segment of `kind`; empty when there is none.
static std::span<const uint8_t> segment(const json::Object &model,
                                        llvm::StringRef kind,
                                        std::span<const uint8_t> file) {
  if (const json::Array *segments = model.getArray("segments"))
    for (const json::Value &value : *segments) {
      const json::Object *each = value.getAsObject();
      if (!each || each->getString("kind") != kind)
        continue;
      const auto offset =
          static_cast<uint64_t>(each->getInteger("offset").value_or(0));
      const auto size =
          static_cast<uint64_t>(each->getInteger("size").value_or(0));
      // The file may have changed since the runtime checked it.
      if (offset <= file.size() && size <= file.size() - offset)
        return file.subspan(offset, size);
    }
  return {};
}

static std::optional<Digest> digest(std::optional<llvm::StringRef> text) {
  std::string bytes;
  Digest found;
  if (!text || !llvm::tryGetFromHex(*text, bytes) ||
      bytes.size() != found.size())
    return std::nullopt;
  std::copy(bytes.begin(), bytes.end(), found.begin());
  return found;
}

llvm::Expected<ArtifactFile> ArtifactFile::open(const std::string &path) {
  quern_error error = {};
  quern_model *loaded = nullptr;
  if (llvm::Error failed = checkRuntime(
          quern_model_load(path.c_str(), nullptr, &loaded, &error), error))
    return std::move(failed);
  const Handle<quern_model> model(loaded);
  importer::ImportResult<importer::MappedFile> mapping =
      importer::MappedFile::open(path);
  if (!mapping.ok())
    return compileError(static_cast<ExitCode>(mapping.error().code),
                        mapping.error().str());
  llvm::Expected<json::Value> value = json::parse(quern_model_json(loaded));
  if (!value)
    return value.takeError();
  ArtifactFile artifact(std::move(*mapping));
  if (const json::Object *facts = value->getAsObject()) {
    const std::span<const uint8_t> file = artifact.mapping.bytes();
    artifact.programBytes = segment(*facts, "Program", file);
    artifact.weightBytes = segment(*facts, "Weights", file);
    artifact.tokenizerBytes = segment(*facts, "Tokenizer", file);
    if (const json::Object *about = facts->getObject("model"))
      artifact.modelHash = digest(about->getString("source_hash"));
  }
  if (artifact.programBytes.empty())
    return compileError(
        ExitCode::Unsupported,
        path +
            " holds no program to generate code from: it is older, or was "
            "compiled from a module behind the kernels phase; give the model "
            "file that it was made from");
  return std::move(artifact);
}

std::optional<std::vector<uint8_t>> ArtifactFile::tokenizerSegment() const {
  if (tokenizerBytes.empty())
    return std::nullopt;
  return std::vector(tokenizerBytes.begin(), tokenizerBytes.end());
}

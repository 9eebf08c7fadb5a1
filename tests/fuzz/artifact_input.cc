#include "tests/fuzz/artifact_input.h"

#include <algorithm>

#include "runtime/api/describe.h"
#include "runtime/executor/host_executor.h"
#include "runtime/llm/chat.h"
#include "runtime/llm/model.h"
#include "runtime/llm/session.h"
#include "runtime/loader/artifact.h"
#include "runtime/loader/hash.h"
#include "runtime/schema/file_header.h"
#include "tests/fuzz/fuzz.h"

namespace quern::fuzz {
namespace {

/// Enough for the programs of seeds; a larger one is left alone.
constexpr uint64_t kMostBytes = uint64_t{64} << 20;

void Idle(void* const*, const int64_t*, const int64_t*) {}

/// The program of `artifact` with kernels that do nothing: addresses are computed, none is used.
Result<OpenedExecutor> OpenIdleExecutor(const Artifact& artifact, const ExecutorOptions& options) {
  KernelTable table;
  table.kernels.resize(artifact.manifest().kernels()->size());
  for (KernelTable::Kernel& kernel : table.kernels) kernel.entries = {Idle, Idle};
  Program program = Program::Build(artifact.manifest());
  if (HostExecutor::BytesNeeded(program, 0, options) > kMostBytes)
    return OutOfMemory("more than the fuzzer runs");
  QUERN_ASSIGN_OR_RETURN(
      std::unique_ptr<Executor> executor,
      HostExecutor::Create(std::move(program), std::move(table), artifact.weights(), options));
  return OpenedExecutor{std::move(executor), "idle", "cpu"};
}

/// A prompt, a token, a fork, and back.
void RunSteps(const std::shared_ptr<const Model>& model) {
  if (model->vocab() * sizeof(float) > kMostBytes) return;
  SessionOptions options;
  options.threads = 1;
  options.context = std::min<int64_t>(model->context(), 64);
  options.max_rows = 8;
  const auto session = Session::CreateWith(model, options, OpenIdleExecutor);
  if (!session.ok()) return RequireOneLine(session.status().message());
  const auto sequence = (*session)->NewSequence();
  const std::vector<int32_t> prompt(std::min<int64_t>(options.context, 11), 0);
  Require(sequence->Feed(prompt, schema::Role::Prefill).ok(), "an accepted program takes a prompt");
  const auto fork = sequence->Fork();
  if (sequence->length() < options.context) {
    Sequence* const one = sequence.get();
    const int32_t token = 0;
    (void)(*session)->Decode({&one, 1}, {&token, 1});
  }
  Require(sequence->Truncate(1).ok(), "a sequence can be cut");
}

void UseText(const Model& model) {
  const Tokenizer* tokenizer = model.tokenizer();
  if (!tokenizer) return;
  const auto tokens = tokenizer->Encode("Text <|end|> 123 \xE4\xB8\xAD", {.parse_special = true});
  if (tokens.ok()) Require(tokenizer->Decode(*tokens).ok(), "tokens of a text can be decoded");
  const auto chat = EncodeChat(*tokenizer, R"([{"role": "user", "content": "Hi"}])", true);
  if (!chat.ok()) RequireRefusal(chat.status());
}

}  // namespace

void FitHashes(std::span<uint8_t> file) {
  FileHeader header;
  if (file.size() < sizeof(header)) return;
  std::memcpy(&header, file.data(), sizeof(header));
  if (header.manifest_offset > file.size() ||
      header.manifest_size > file.size() - header.manifest_offset ||
      header.manifest_offset % kSegmentAlignment != 0)
    return;
  const auto manifest = file.subspan(header.manifest_offset, header.manifest_size);
  flatbuffers::Verifier verifier(manifest.data(), manifest.size());
  if (schema::VerifyManifestBuffer(verifier)) {
    for (const schema::Segment* segment : *schema::GetManifest(manifest.data())->segments()) {
      if (segment->offset() > file.size() || segment->size() > file.size() - segment->offset())
        continue;
      const Digest digest = HashBytes(file.subspan(segment->offset(), segment->size()));
      std::memcpy(const_cast<uint8_t*>(segment->hash()->bytes()->data()), digest.data(),
                  digest.size());
    }
  }
  const Digest digest = HashBytes(manifest);
  std::memcpy(file.data() + offsetof(FileHeader, manifest_hash), digest.data(), digest.size());
}

void LoadAndUse(std::span<const uint8_t> bytes) {
  Result<FileBytes> file = FileBytes::FromBytes(bytes);
  Require(file.ok(), "there is memory for the input");
  Result<std::unique_ptr<const Artifact>> artifact =
      Artifact::FromBytes(std::move(file).value(), {.check_weights = true});
  if (!artifact.ok()) return RequireRefusal(artifact.status());
  const auto model = Model::FromArtifact(std::move(artifact).value());
  if (!model.ok()) return RequireRefusal(model.status());
  Require(!api::DescribeModel(**model).empty(), "an accepted artifact can be described");
  UseText(**model);
  RunSteps(*model);
}

}  // namespace quern::fuzz

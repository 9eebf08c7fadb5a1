// A GGUF file on its whole way in: directory, model, tensors, tokenizer, the tokenizer's segment.
#include <optional>
#include <variant>
#include <vector>

#include "codegen/artifact/TokenizerWriter.h"
#include "compiler/import/Gguf.h"
#include "compiler/import/GgufTokenizer.h"
#include "compiler/import/ModelFamilies.h"
#include "runtime/llm/tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace quern {
namespace {

using fuzz::Require;
using namespace importer;  // NOLINT: this file is about importing

void CheckError(const ImportError& error, size_t file_size) {
  Require(error.code == ImportErrorCode::Malformed || error.code == ImportErrorCode::Unsupported,
          "a refused file is malformed or unsupported");
  fuzz::RequireOneLine(error.str());
  Require(!error.offset || *error.offset <= file_size, "an error's offset lies in the file");
}

/// Everything that a view of the file gives lies in the file.
void CheckViews(const GgufFile& file, std::span<const uint8_t> bytes) {
  const auto inside = [&](const void* data, size_t size) {
    const auto* begin = static_cast<const uint8_t*>(data);
    return size == 0 || (begin >= bytes.data() && begin + size <= bytes.data() + bytes.size());
  };
  for (const GgufEntry& entry : file.metadata()) {
    Require(inside(entry.key.data(), entry.key.size()), "a key lies in the file");
    Require(file.find(entry.key) == &entry.value, "a key is found by its name");
    entry.value.asUnsigned(), entry.value.asSigned(), entry.value.asFloat(), entry.value.asBool();
    (void)entry.value.asIntegers();
    if (auto text = entry.value.asString())
      Require(inside(text->data(), text->size()), "a string lies in the file");
    if (auto texts = entry.value.asStrings())
      for (const std::string_view text : *texts)
        Require(inside(text.data(), text.size()), "an array's string lies in the file");
  }
  for (const GgufTensor& tensor : file.tensors()) {
    Require(inside(tensor.data.data(), tensor.data.size()), "a tensor lies in the file");
    Require(tensor.data.size() == static_cast<uint64_t>(tensor.rows() * tensor.rowBytes()),
            "a tensor has the bytes of its rows");
  }
}

/// What the compiler writes, the runtime accepts.
void CheckTokenizer(const TokenizerSpec& spec) {
  const auto built = buildTokenizerSegment(spec);
  if (const auto* error = std::get_if<TokenizerError>(&built))
    return fuzz::RequireOneLine(error->message);
  const auto& segment = std::get<std::vector<uint8_t>>(built);
  const Result<Tokenizer> tokenizer = Tokenizer::Create(segment);
  Require(tokenizer.ok(), "the runtime reads the segment that the compiler wrote");
  (void)tokenizer->Encode("A text, 12 \xE4\xB8\xAD\n", {.parse_special = true});
}

void Import(std::span<const uint8_t> bytes) {
  const ImportResult<GgufFile> file = parseGguf(bytes);
  if (!file.ok()) return CheckError(file.error(), bytes.size());
  CheckViews(*file, bytes);
  const ImportResult<ModelConfig> config = readModelConfig(*file);
  if (!config.ok()) return CheckError(config.error(), bytes.size());
  const ImportResult<ModelTensors> tensors = bindTensors(*file, *config);
  if (!tensors.ok()) CheckError(tensors.error(), bytes.size());
  const auto tokenizer = readTokenizer(*file, config->vocab);
  if (!tokenizer.ok()) return CheckError(tokenizer.error(), bytes.size());
  if (*tokenizer) CheckTokenizer(**tokenizer);
}

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const quern::fuzz::ExactCopy file({data, size});
  quern::Import(file.bytes());
  // Again with weights of zeros behind it: an input need not carry them.
  std::vector<uint8_t> padded(data, data + size);
  padded.resize(size + (size_t{64} << 10));
  quern::Import(padded);
  return 0;
}

#include "compiler/import/ImportTokenizer.h"

#include <limits>

using namespace quern;
using namespace quern::importer;

namespace {
/// Reads keys one after another and keeps the first error.
class KeyReader {
public:
  explicit KeyReader(const GgufFile &file) : file(file) {}

  std::string text(std::string_view key) {
    std::string result;
    if (const GgufValue *value = file.find(key)) {
      if (auto seen = value->asString())
        result = *seen;
      else
        fail(key, "a string", *value);
    }
    return result;
  }

  std::vector<std::string> texts(std::string_view key) {
    std::vector<std::string> result;
    if (const GgufValue *value = file.find(key)) {
      if (auto seen = value->asStrings())
        result.assign(seen->begin(), seen->end());
      else
        fail(key, "an array of strings", *value);
    }
    return result;
  }

  std::vector<int32_t> integers(std::string_view key) {
    std::vector<int32_t> result;
    if (const GgufValue *value = file.find(key)) {
      auto seen = value->asIntegers();
      if (!seen)
        fail(key, "an array of integers", *value);
      else
        for (int64_t element : *seen)
          result.push_back(narrow(key, element, *value));
    }
    return result;
  }

  /// A token id, -1 when the key is absent.
  int32_t id(std::string_view key) {
    const GgufValue *value = file.find(key);
    if (!value)
      return -1;
    if (auto seen = value->asSigned())
      return narrow(key, *seen, *value);
    fail(key, "an integer", *value);
    return -1;
  }

  bool flag(std::string_view key) {
    const GgufValue *value = file.find(key);
    if (!value)
      return false;
    if (auto seen = value->asBool())
      return *seen;
    fail(key, "a bool", *value);
    return false;
  }

  std::optional<ImportError> error;

private:
  int32_t narrow(std::string_view key, int64_t seen, const GgufValue &value) {
    if (seen < -1 || seen > std::numeric_limits<int32_t>::max()) {
      fail(key, "values that fit in 31 bits", value);
      return -1;
    }
    return static_cast<int32_t>(seen);
  }

  void fail(std::string_view key, std::string_view wanted,
            const GgufValue &value) {
    if (error)
      return;
    error = malformed(std::string(key) + " is of type " +
                          std::string(ggufTypeName(value.type())) + "; " +
                          std::string(wanted) + " is wanted",
                      value.offset());
  }

  const GgufFile &file;
};
} // namespace

ImportResult<std::optional<TokenizerSpec>>
quern::importer::importTokenizer(const GgufFile &file) {
  KeyReader keys(file);
  const std::string model = keys.text("tokenizer.ggml.model");
  if (!keys.error && (model.empty() || model == "no_vocab" || model == "none"))
    return std::optional<TokenizerSpec>();

  TokenizerSpec spec;
  spec.tokens = keys.texts("tokenizer.ggml.tokens");
  spec.types = keys.integers("tokenizer.ggml.token_type");
  spec.merges = keys.texts("tokenizer.ggml.merges");
  spec.preTokenizer = keys.text("tokenizer.ggml.pre");
  spec.bos = keys.id("tokenizer.ggml.bos_token_id");
  spec.eos = keys.id("tokenizer.ggml.eos_token_id");
  spec.eot = keys.id("tokenizer.ggml.eot_token_id");
  spec.pad = keys.id("tokenizer.ggml.padding_token_id");
  spec.unknown = keys.id("tokenizer.ggml.unknown_token_id");
  spec.addBos = keys.flag("tokenizer.ggml.add_bos_token");
  spec.addEos = keys.flag("tokenizer.ggml.add_eos_token");
  spec.chatTemplate = keys.text("tokenizer.chat_template");
  if (keys.error)
    return *keys.error;
  if (model != "gpt2")
    return unsupported("tokenizer.ggml.model is \"" + model +
                       "\"; only byte-level BPE (\"gpt2\") is supported");
  return std::optional<TokenizerSpec>(std::move(spec));
}

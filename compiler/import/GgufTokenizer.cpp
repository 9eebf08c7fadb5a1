#include "compiler/import/GgufTokenizer.h"
#include "compiler/import/GgufText.h"
#include "compiler/import/GuardMemory.h"

#include <algorithm>

namespace quern::importer {
namespace {

/// Reads keys of the tokenizer. The first error stays.
class TokenizerReader {
public:
  TokenizerReader(const GgufFile &file, int64_t vocab)
      : file(file), vocab(vocab) {}

  ImportCheck error;

  void fail(ImportError reason) {
    if (!error)
      error = std::move(reason);
  }

  void failType(std::string_view key, const GgufValue &value,
                std::string_view wanted) {
    std::string seen(ggufTypeName(value.type()));
    if (value.type() == GgufType::Array)
      seen += " of " + std::string(ggufTypeName(value.elementType()));
    fail(malformed("metadata key " + quoted(key) + " is of type " + seen +
                       ", " + std::string(wanted) + " was wanted",
                   value.offset()));
  }

  void failMissing(std::string_view key) {
    fail(malformed("metadata key " + quoted(key) +
                   " is missing; convert the model again with its tokenizer"));
  }

  /// A string of valid UTF-8; empty when the key is missing.
  std::string text(std::string_view key) {
    const GgufValue *value = file.find(key);
    if (!value)
      return "";
    std::optional<std::string_view> string = value->asString();
    if (!string) {
      failType(key, *value, "string");
      return "";
    }
    if (!isValidUtf8(*string))
      fail(malformed("metadata key " + quoted(key) + " is not UTF-8",
                     value->offset()));
    return std::string(*string);
  }

  /// An array of `least` to `most` strings of valid UTF-8.
  std::vector<std::string> texts(std::string_view key, uint64_t least,
                                 uint64_t most) {
    const GgufValue *value = file.find(key);
    if (!value) {
      failMissing(key);
      return {};
    }
    if (value->type() != GgufType::Array ||
        value->elementType() != GgufType::String) {
      failType(key, *value, "array of strings");
      return {};
    }
    if (!checkCount(key, *value, least, most))
      return {};
    std::optional<std::vector<std::string_view>> views = value->asStrings();
    for (size_t i = 0; i < views->size(); ++i)
      if (!isValidUtf8((*views)[i])) {
        fail(malformed("element " + std::to_string(i) + " of metadata key " +
                           quoted(key) + ", " + quoted((*views)[i]) +
                           ", is not UTF-8",
                       value->offset()));
        break;
      }
    return {views->begin(), views->end()};
  }

  bool flag(std::string_view key) {
    const GgufValue *value = file.find(key);
    if (!value)
      return false;
    if (!value->asBool())
      failType(key, *value, "bool");
    return value->asBool().value_or(false);
  }

  /// A token id; -1 when the key is missing.
  int32_t tokenId(std::string_view key) {
    const GgufValue *value = file.find(key);
    if (!value)
      return -1;
    std::optional<int64_t> id = value->asSigned();
    if (!id) {
      failType(key, *value, "uint32");
      return -1;
    }
    return checkId(key, *value, *id);
  }

  /// An array of token ids; empty when the key is missing.
  std::vector<int32_t> tokenIds(std::string_view key) {
    const GgufValue *value = file.find(key);
    if (!value || !checkCount(key, *value, 0, vocab))
      return {};
    std::optional<std::vector<int64_t>> ids = value->asIntegers();
    if (!ids) {
      failType(key, *value, "array of integers");
      return {};
    }
    std::vector<int32_t> checked;
    for (int64_t id : *ids)
      checked.push_back(checkId(key, *value, id));
    return checked;
  }

  /// Token types; empty when the key is missing.
  std::vector<int32_t> tokenTypes(std::string_view key) {
    const GgufValue *value = file.find(key);
    if (!value || !checkCount(key, *value, vocab, vocab))
      return {};
    std::optional<std::vector<int64_t>> types = value->asIntegers();
    if (!types) {
      failType(key, *value, "array of integers");
      return {};
    }
    // GGUF: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    for (size_t i = 0; i < types->size(); ++i)
      if ((*types)[i] < 1 || (*types)[i] > 6) {
        fail(malformed("token " + std::to_string(i) + " has type " +
                           std::to_string((*types)[i]) + ", 1 to 6 were wanted",
                       value->offset()));
        break;
      }
    return {types->begin(), types->end()};
  }

  /// Refuses an array of other than `least` to `most` elements, before memory
  /// is spent on it. The vocabulary is one with the rows of the embedding,
  /// which the file really holds.
  bool checkCount(std::string_view key, const GgufValue &value, uint64_t least,
                  uint64_t most) {
    if (value.count() >= least && value.count() <= most)
      return true;
    const std::string wanted =
        least == most
            ? "one for each of the " + std::to_string(vocab) +
                  " rows of the embedding was wanted"
            : std::to_string(least) + " to " + std::to_string(most) +
                  " were wanted for a vocabulary of " + std::to_string(vocab);
    fail(malformed("metadata key " + quoted(key) + " has " +
                       std::to_string(value.count()) + " elements, " + wanted,
                   value.offset()));
    return false;
  }

private:
  int32_t checkId(std::string_view key, const GgufValue &value, int64_t id) {
    if (id >= 0 && id < vocab)
      return static_cast<int32_t>(id);
    fail(malformed("metadata key " + quoted(key) + " is token " +
                       std::to_string(id) + ", the vocabulary has 0 to " +
                       std::to_string(vocab - 1),
                   value.offset()));
    return -1;
  }

  const GgufFile &file;
  int64_t vocab;
};

} // namespace

static ImportResult<std::optional<TokenizerSpec>> readSpec(const GgufFile &file,
                                                           int64_t vocab) {
  constexpr std::string_view kModelKey = "tokenizer.ggml.model";
  const GgufValue *value = file.find(kModelKey);
  if (!value)
    return std::optional<TokenizerSpec>();
  TokenizerReader reader(file, vocab);
  std::string model = reader.text(kModelKey);
  if (reader.error)
    return *reader.error;
  // Byte-level BPE is what GGUF calls "gpt2".
  if (model != "gpt2")
    return unsupported("the tokenizer is " + quoted(model) +
                           "; \"gpt2\" (byte-level BPE) is supported",
                       value->offset());
  TokenizerSpec spec;
  const auto tokens = static_cast<uint64_t>(vocab);
  spec.tokens = reader.texts("tokenizer.ggml.tokens", tokens, tokens);
  spec.types = reader.tokenTypes("tokenizer.ggml.token_type");
  if (const GgufValue *scores = file.find("tokenizer.ggml.scores"))
    reader.checkCount("tokenizer.ggml.scores", *scores, tokens, tokens);
  // Every way to cut a token in two may be a merge: some files list 2.2 a
  // token.
  spec.merges = reader.texts("tokenizer.ggml.merges", 0, 16 * tokens);
  spec.preTokenizer = reader.text("tokenizer.ggml.pre");
  if (spec.preTokenizer.empty())
    spec.preTokenizer = "default";
  spec.bos = reader.tokenId("tokenizer.ggml.bos_token_id");
  spec.eos = reader.tokenId("tokenizer.ggml.eos_token_id");
  spec.eot = reader.tokenId("tokenizer.ggml.eot_token_id");
  spec.pad = reader.tokenId("tokenizer.ggml.padding_token_id");
  spec.unknown = reader.tokenId("tokenizer.ggml.unknown_token_id");
  spec.addBos = reader.flag("tokenizer.ggml.add_bos_token");
  spec.addEos = reader.flag("tokenizer.ggml.add_eos_token");
  spec.endOfGeneration = reader.tokenIds("tokenizer.ggml.eog_token_ids");
  spec.chatTemplate = reader.text("tokenizer.chat_template");
  if (reader.error)
    return *reader.error;
  return std::optional(std::move(spec));
}

ImportResult<std::optional<TokenizerSpec>> readTokenizer(const GgufFile &file,
                                                         int64_t vocab) {
  return guardMemory([&] { return readSpec(file, vocab); });
}

} // namespace quern::importer

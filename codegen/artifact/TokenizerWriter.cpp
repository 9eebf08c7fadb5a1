//===- TokenizerWriter.cpp - The tokenizer segment of an artifact ---------===//

#include "codegen/artifact/TokenizerWriter.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "runtime/schema/plain_text.h"
#include "runtime/schema/pretokenizers.h"
#include "runtime/schema/tokenizer_generated.h"

namespace quern {
namespace {

using Kind = TokenizerError::Kind;

/// Control tokens that end an answer in the published chat formats.
constexpr std::string_view kEndNames[] = {
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eot|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "</s>",
    "<|return|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|call|>",
    "<EOT>",
    "<|end\xE2\x96\x81of\xE2\x96\x81sentence|>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

/// Control tokens that end a turn, to be `eot` where the file does not say.
constexpr std::string_view kTurnEndNames[] = {"<|im_end|>", "<|eot_id|>",
                                              "<|end|>", "<end_of_turn>"};

constexpr size_t kMaxTokenBytes = 1024;

/// The byte each letter of byte-level BPE stands for: printable Latin-1 stands
/// for itself, the other 68 bytes in order for U+0100 on (GPT-2's encoder).
constexpr std::array<int16_t, 0x144> byteOfLetter() {
  std::array<int16_t, 0x144> map{};
  for (int16_t &byte : map)
    byte = -1;
  int shifted = 0;
  for (int byte = 0; byte < 256; ++byte) {
    bool printable = (byte >= 0x21 && byte <= 0x7E) ||
                     (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    map[printable ? byte : 0x100 + shifted++] = static_cast<int16_t>(byte);
  }
  return map;
}
constexpr std::array<int16_t, 0x144> kByteOfLetter = byteOfLetter();

/// The bytes that `text` stands for, or nullopt when it has a character that is
/// no letter of byte-level BPE. All letters take one or two bytes of UTF-8.
std::optional<std::string> bytesOfLetters(std::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned letter = static_cast<unsigned char>(text[i]);
    if (letter >= 0x80) {
      if (letter < 0xC2 || letter > 0xDF || i + 1 == text.size())
        return std::nullopt;
      unsigned next = static_cast<unsigned char>(text[++i]);
      if ((next & 0xC0) != 0x80)
        return std::nullopt;
      letter = (letter & 0x1F) << 6 | (next & 0x3F);
    }
    if (letter >= kByteOfLetter.size() || kByteOfLetter[letter] < 0)
      return std::nullopt;
    bytes.push_back(static_cast<char>(kByteOfLetter[letter]));
  }
  return bytes;
}

/// The byte that a token of type Byte names, `<0x0A>`; -1 for another text.
int namedByte(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>')
    return -1;
  int byte = 0;
  for (char digit : text.substr(3, 2)) {
    const bool decimal = digit >= '0' && digit <= '9';
    if (!decimal && !(digit >= 'A' && digit <= 'F'))
      return -1;
    byte = 16 * byte + (decimal ? digit - '0' : digit - 'A' + 10);
  }
  return byte;
}

TokenizerError malformed(std::string message) {
  return {Kind::Malformed, std::move(message)};
}

std::string quoted(std::string_view text) {
  return "'" + PlainText(text.substr(0, 64)) + "'";
}

/// Checks a spec and builds its segment, step by step; each step returns what
/// is wrong, if anything.
class Writer {
public:
  explicit Writer(const TokenizerSpec &spec) : spec(spec) {}

  std::variant<std::vector<uint8_t>, TokenizerError> run() {
    using Step = std::optional<TokenizerError> (Writer::*)();
    constexpr Step steps[] = {&Writer::checkRoles, &Writer::addTokens,
                              &Writer::addMerges, &Writer::findPreTokenizer,
                              &Writer::findEnds};
    for (Step step : steps)
      if (std::optional<TokenizerError> error = (this->*step)())
        return std::move(*error);
    return finish();
  }

private:
  std::optional<TokenizerError> checkRoles();
  std::optional<TokenizerError> addTokens();
  std::optional<TokenizerError> addMerges();
  std::optional<TokenizerError> findPreTokenizer();
  std::optional<TokenizerError> findEnds();
  std::vector<uint8_t> finish();

  schema::TokenType typeOf(size_t id) const {
    return spec.types.empty() ? schema::TokenType::Normal
                              : static_cast<schema::TokenType>(spec.types[id]);
  }

  std::string_view bytesOf(uint32_t id) const {
    return {reinterpret_cast<const char *>(tokenBytes.data()) +
                tokenOffsets[id],
            tokenOffsets[id + 1] - tokenOffsets[id]};
  }

  const TokenizerSpec &spec;
  const schema::PreTokenizer *preTokenizer = nullptr;
  /// Token texts as the file spells them, to ids; the first of a name wins.
  std::unordered_map<std::string_view, uint32_t> ids;
  std::vector<uint8_t> tokenBytes;
  std::vector<uint32_t> tokenOffsets;
  std::vector<uint8_t> tokenTypes;
  std::vector<schema::Merge> merges;
  std::vector<int32_t> ends;
  int32_t eot = -1;
};

std::optional<TokenizerError> Writer::checkRoles() {
  size_t vocab = spec.tokens.size();
  if (vocab == 0)
    return malformed("the vocabulary has no tokens");
  if (vocab > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
    return malformed("the vocabulary has " + std::to_string(vocab) +
                     " tokens, more than 32-bit ids can name");
  if (!spec.types.empty() && spec.types.size() != vocab)
    return malformed(
        "tokenizer.ggml.token_type has " + std::to_string(spec.types.size()) +
        " entries, but there are " + std::to_string(vocab) + " tokens");
  struct Role {
    std::string_view name;
    int32_t id;
  };
  std::vector<Role> roles = {{"bos", spec.bos},
                             {"eos", spec.eos},
                             {"eot", spec.eot},
                             {"padding", spec.pad},
                             {"unknown", spec.unknown}};
  for (int32_t id : spec.endOfGeneration)
    roles.push_back({"end-of-generation", id});
  for (const Role &role : roles)
    if (role.id < -1 || (role.id >= 0 && static_cast<size_t>(role.id) >= vocab))
      return malformed("the " + std::string(role.name) + " token id is " +
                       std::to_string(role.id) + ", but there are " +
                       std::to_string(vocab) + " tokens");
  if (spec.addBos && spec.bos < 0)
    return malformed("add_bos_token is set, but there is no bos token id");
  if (spec.addEos && spec.eos < 0)
    return malformed("add_eos_token is set, but there is no eos token id");
  return std::nullopt;
}

std::optional<TokenizerError> Writer::addTokens() {
  ids.reserve(spec.tokens.size());
  tokenOffsets.push_back(0);
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const std::string &text = spec.tokens[id];
    if (!spec.types.empty() && (spec.types[id] < 1 || spec.types[id] > 6))
      return malformed("token " + std::to_string(id) + " has type " +
                       std::to_string(spec.types[id]) + ", expected 1 to 6");
    if (text.size() > 2 * kMaxTokenBytes)
      return malformed("token " + std::to_string(id) + " has " +
                       std::to_string(text.size()) + " bytes, more than " +
                       std::to_string(2 * kMaxTokenBytes));
    ids.emplace(text, static_cast<uint32_t>(id));
    std::string bytes = text;
    if (typeOf(id) == schema::TokenType::Normal)
      if (std::optional<std::string> decoded = bytesOfLetters(text))
        bytes = std::move(*decoded);
    if (typeOf(id) == schema::TokenType::Byte) {
      const int byte = namedByte(text);
      if (byte < 0)
        return malformed("token " + std::to_string(id) + ", " + quoted(text) +
                         ", is of type byte, but its text is not one of <0x00> "
                         "to <0xFF>");
      bytes = static_cast<char>(byte);
    }
    if (bytes.size() > kMaxTokenBytes)
      return malformed("token " + std::to_string(id) + " stands for " +
                       std::to_string(bytes.size()) + " bytes, more than " +
                       std::to_string(kMaxTokenBytes));
    tokenBytes.insert(tokenBytes.end(), bytes.begin(), bytes.end());
    if (tokenBytes.size() > (size_t{1} << 30))
      return malformed("the vocabulary's text is more than 1 GiB");
    tokenOffsets.push_back(static_cast<uint32_t>(tokenBytes.size()));
    tokenTypes.push_back(static_cast<uint8_t>(typeOf(id)));
  }
  return std::nullopt;
}

std::optional<TokenizerError> Writer::addMerges() {
  merges.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    std::string_view merge = spec.merges[rank];
    // Letters of byte-level BPE are never spaces, so the one space divides.
    size_t space = merge.find(' ');
    std::string where = "merge " + std::to_string(rank) + ", " + quoted(merge);
    if (space == std::string_view::npos || space == 0 ||
        space + 1 == merge.size() ||
        merge.find(' ', space + 1) != std::string_view::npos)
      return malformed(where + ", is not two tokens with a space between");
    std::string_view left = merge.substr(0, space);
    std::string_view right = merge.substr(space + 1);
    std::string joined = std::string(left) + std::string(right);
    uint32_t found[3];
    std::string_view names[3] = {left, right, joined};
    for (int i = 0; i < 3; ++i) {
      auto it = ids.find(names[i]);
      if (it == ids.end())
        return malformed(where + ", names " + quoted(names[i]) +
                         ", which is not in the vocabulary");
      if (typeOf(it->second) != schema::TokenType::Normal)
        return malformed(where + ", names " + quoted(names[i]) +
                         ", which is not a normal token");
      found[i] = it->second;
    }
    if (bytesOf(found[2]) !=
        std::string(bytesOf(found[0])) + std::string(bytesOf(found[1])))
      return malformed(where + ", joins a token whose text is not in the "
                               "letters of byte-level BPE");
    merges.emplace_back(found[0], found[1], found[2]);
  }
  return std::nullopt;
}

std::optional<TokenizerError> Writer::findPreTokenizer() {
  preTokenizer = schema::FindPreTokenizer(spec.preTokenizer);
  if (preTokenizer)
    return std::nullopt;
  std::string known;
  for (const schema::PreTokenizer &row : schema::PreTokenizers())
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  return TokenizerError{Kind::Unsupported,
                        "pre-tokenizer " + quoted(spec.preTokenizer) +
                            " is not known; known are " + known +
                            ": convert the model again with one that cuts "
                            "text alike as tokenizer.ggml.pre, or add its row "
                            "(docs/adding-a-model.md)"};
}

std::optional<TokenizerError> Writer::findEnds() {
  auto controlNamed = [&](std::string_view name) {
    auto it = ids.find(name);
    bool found =
        it != ids.end() && typeOf(it->second) == schema::TokenType::Control;
    return found ? static_cast<int32_t>(it->second) : -1;
  };
  eot = spec.eot;
  for (std::string_view name : kTurnEndNames)
    if (eot < 0)
      eot = controlNamed(name);
  ends = spec.endOfGeneration;
  ends.insert(ends.end(), {spec.eos, eot});
  for (std::string_view name : kEndNames)
    ends.push_back(controlNamed(name));
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  ends.erase(ends.begin(), std::lower_bound(ends.begin(), ends.end(), 0));
  return std::nullopt;
}

std::vector<uint8_t> Writer::finish() {
  flatbuffers::FlatBufferBuilder builder(
      tokenBytes.size() + 16 * merges.size() + 8 * tokenTypes.size() + 4096);
  auto bytes = builder.CreateVector(tokenBytes);
  auto offsets = builder.CreateVector(tokenOffsets);
  auto types = builder.CreateVector(tokenTypes);
  auto mergeVector = builder.CreateVectorOfStructs(merges);
  auto name = builder.CreateString(spec.preTokenizer);
  std::vector<flatbuffers::Offset<flatbuffers::String>> patternOffsets;
  for (std::string_view pattern : preTokenizer->patterns)
    patternOffsets.push_back(
        builder.CreateString(pattern.data(), pattern.size()));
  auto patterns = builder.CreateVector(patternOffsets);
  auto endIds = builder.CreateVector(ends);
  flatbuffers::Offset<flatbuffers::String> chatTemplate;
  if (!spec.chatTemplate.empty())
    chatTemplate = builder.CreateString(spec.chatTemplate);

  schema::TokenizerBuilder table(builder);
  table.add_kind(schema::TokenizerKind::ByteLevelBpe);
  table.add_token_bytes(bytes);
  table.add_token_offsets(offsets);
  table.add_token_types(types);
  table.add_merges(mergeVector);
  table.add_normalizer(preTokenizer->nfc ? schema::TextNormalizer::Nfc
                                         : schema::TextNormalizer::None);
  table.add_pre_tokenizer_name(name);
  table.add_pre_tokenizer_patterns(patterns);
  table.add_ignore_merges(preTokenizer->ignore_merges);
  table.add_bos_id(spec.bos);
  table.add_eos_id(spec.eos);
  table.add_eot_id(eot);
  table.add_pad_id(spec.pad);
  table.add_unknown_id(spec.unknown);
  table.add_add_bos(spec.addBos);
  table.add_add_eos(spec.addEos);
  table.add_end_of_generation_ids(endIds);
  if (!chatTemplate.IsNull())
    table.add_chat_template(chatTemplate);
  schema::FinishTokenizerBuffer(builder, table.Finish());
  const uint8_t *data = builder.GetBufferPointer();
  return {data, data + builder.GetSize()};
}

} // namespace

std::variant<std::vector<uint8_t>, TokenizerError>
buildTokenizerSegment(const TokenizerSpec &spec) {
  return Writer(spec).run();
}

} // namespace quern

// Text through tokenizer and text stream: the first byte chooses the pre-tokenizer, the second how
// the stream is cut, the rest is text.
#include <string>
#include <variant>
#include <vector>

#include "codegen/artifact/TokenizerWriter.h"
#include "runtime/llm/text_stream.h"
#include "runtime/llm/tokenizer.h"
#include "runtime/llm/utf8.h"
#include "runtime/schema/pretokenizers.h"
#include "tests/fuzz/fuzz.h"

namespace quern {
namespace {

using fuzz::Require;

/// All bytes in the letters of byte-level BPE, some merges and two special tokens.
TokenizerSpec Spec(const schema::PreTokenizer& row) {
  TokenizerSpec spec;
  char32_t shifted = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    spec.tokens.emplace_back();
    utf8::Append(spec.tokens.back(), printable ? static_cast<char32_t>(byte) : shifted++);
  }
  spec.merges = {"h e",      "l l",           "he ll", "hell o",
                 "\u0120 h", "\u0120 \u0120", "1 2",   "\u00c3 \u00a9"};
  for (const std::string& merge : spec.merges) {
    const size_t space = merge.find(' ');
    spec.tokens.push_back(merge.substr(0, space) + merge.substr(space + 1));
  }
  spec.types.assign(spec.tokens.size(), 1);
  for (const auto& [text, type] : {std::pair("<|im_end|>", 3), std::pair("<user>", 4)}) {
    spec.tokens.emplace_back(text);
    spec.types.push_back(type);
  }
  spec.preTokenizer = row.name;
  return spec;
}

struct Segment {
  std::vector<uint8_t> bytes;
  Result<Tokenizer> tokenizer;
};

Segment Build(const schema::PreTokenizer& row) {
  auto built = buildTokenizerSegment(Spec(row));
  Require(built.index() == 0, "the specification is sound");
  auto bytes = std::get<std::vector<uint8_t>>(std::move(built));
  auto tokenizer = Tokenizer::Create(bytes);
  Require(tokenizer.ok(), "the specification is sound");
  return {std::move(bytes), std::move(tokenizer)};
}

/// One tokenizer for every row of the table of pre-tokenizers.
const std::vector<Segment>& Segments() {
  static const std::vector<Segment> kSegments = [] {
    std::vector<Segment> segments;
    for (const schema::PreTokenizer& row : schema::PreTokenizers()) segments.push_back(Build(row));
    return segments;
  }();
  return kSegments;
}

/// What comes out of a stream into which `bytes` go in pieces of up to `piece` bytes.
std::string Stream(std::string_view bytes, size_t piece) {
  Result<TextStream> stream = TextStream::Create({"</stop>", "<user>!"});
  Require(stream.ok(), "the stop strings are sound");
  std::string text;
  for (size_t at = 0; at < bytes.size() && !stream->stopped(); at += piece) {
    const std::string part = stream->Push(bytes.substr(at, piece));
    Require(utf8::IsValid(part), "a stream gives whole characters");
    text += part;
  }
  return text + stream->Finish();
}

}  // namespace
}  // namespace quern

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern;  // NOLINT
  if (size < 2) return 0;
  const size_t row = data[0] % Segments().size();
  const Tokenizer& tokenizer = *Segments()[row].tokenizer;
  const size_t piece = 1 + data[1] % 8;
  const fuzz::ExactCopy copy({data + 2, size - 2});
  const std::string_view text = fuzz::Text(copy.bytes());
  for (const bool special : {false, true}) {
    const Result<std::vector<int32_t>> tokens = tokenizer.Encode(text, {.parse_special = special});
    Require(tokens.ok(), "every text can be encoded");
    const Result<std::string> decoded = tokenizer.Decode(*tokens);
    Require(decoded.ok(), "tokens of a text can be decoded");
    if (!schema::PreTokenizers()[row].nfc)
      Require(*decoded == utf8::Sanitize(text), "decoding is the inverse of encoding");
  }
  const std::string all = Stream(text, text.size() + 1);
  Require(Stream(text, piece) == all, "a stream's text does not depend on how it is cut");
  Require(utf8::Sanitize(text).starts_with(all), "a stream gives the text up to a stop string");
  return 0;
}

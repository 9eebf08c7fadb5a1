// The tokenizer on a small vocabulary made by the compiler's writer.
#include "runtime/llm/tokenizer.h"

#include <gtest/gtest.h>

#include <ctime>

#include "codegen/artifact/TokenizerWriter.h"
#include "runtime/schema/pretokenizers.h"
#include "runtime/schema/tokenizer_generated.h"

namespace quern {
namespace {

std::string Utf8(char32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
}

/// The letter of byte-level BPE for a byte.
std::string Letter(int byte) {
  int shifted = 0;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    if (b == byte) return Utf8(printable ? static_cast<char32_t>(b) : 0x100 + shifted);
    shifted += !printable;
  }
  return {};
}

/// Tokens 0 to 255 are the bytes; then "he" 256, "ll" 257, "hell" 258, "hello" 259, "\u0120h" 260,
/// a control token 261, a user-defined one 262, an unused one 263, and a longer control token 264.
TokenizerSpec SmallSpec() {
  TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) spec.tokens.push_back(Letter(byte));
  for (const char* token :
       {"he", "ll", "hell", "hello", "\u0120h", "<end>", "<user>", "<gone>", "<end>>"})
    spec.tokens.push_back(token);
  spec.types.assign(spec.tokens.size(), 1);
  spec.types[261] = spec.types[264] = 3;
  spec.types[262] = 4;
  spec.types[263] = 5;
  spec.merges = {"h e", "l l", "he ll", "hell o", "\u0120 h"};
  spec.preTokenizer = "gpt-2";
  spec.eos = 261;
  spec.chatTemplate = "{{ messages }}";
  return spec;
}

std::vector<uint8_t> Segment(const TokenizerSpec& spec) {
  auto built = buildTokenizerSegment(spec);
  if (auto* error = std::get_if<TokenizerError>(&built)) {
    ADD_FAILURE() << error->message;
    return {};
  }
  return std::get<std::vector<uint8_t>>(std::move(built));
}

std::string WriterError(const TokenizerSpec& spec, TokenizerError::Kind kind) {
  auto built = buildTokenizerSegment(spec);
  auto* error = std::get_if<TokenizerError>(&built);
  if (!error) return "no error";
  EXPECT_EQ(error->kind, kind);
  return error->message;
}

using Ids = std::vector<int32_t>;

class TokenizerTest : public testing::Test {
 protected:
  TokenizerTest() : segment_(Segment(SmallSpec())), tokenizer_(Tokenizer::Create(segment_)) {}

  Ids Encode(std::string_view text, bool special = false) {
    EXPECT_TRUE(tokenizer_.ok()) << tokenizer_.status().message();
    Result<Ids> ids = tokenizer_->Encode(text, {.parse_special = special});
    EXPECT_TRUE(ids.ok()) << ids.status().message();
    return ids.ok() ? *ids : Ids();
  }

  std::vector<uint8_t> segment_;
  Result<Tokenizer> tokenizer_;
};

TEST_F(TokenizerTest, MergesByRank) {
  EXPECT_EQ(Encode("hello"), Ids({259}));
  EXPECT_EQ(Encode("hell"), Ids({258}));
  EXPECT_EQ(Encode("hehe"), Ids({256, 256}));
  EXPECT_EQ(Encode("lll"), Ids({257, 'l'}));  // leftmost first
  // "h e" comes before " h": "\u0120" stays alone.
  EXPECT_EQ(Encode(" hello"), Ids({' ', 259}));
  EXPECT_EQ(Encode(" ha"), Ids({260, 'a'}));
  EXPECT_EQ(Encode(""), Ids());
}

TEST_F(TokenizerTest, PiecesAreNotMergedAcross) {
  EXPECT_EQ(Encode("he llo"), Ids({256, ' ', 257, 'o'}));
  EXPECT_EQ(Encode("hel1lo"), Ids({256, 'l', '1', 'l', 'o'}));
}

TEST_F(TokenizerTest, DecodeGivesTheTextBack) {
  for (const std::string text : {"hello world", "  \t\n\r\n x", "日本語 é 😀", "<gone>"}) {
    const Result<std::string> back = tokenizer_->Decode(Encode(text));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(*back, text);
  }
  const std::string with_nul("a\0b", 3);
  EXPECT_EQ(Encode(with_nul), Ids({'a', 0, 'b'}));
  EXPECT_EQ(tokenizer_->Decode(Ids{265}).status().code(), StatusCode::kUsage);
  EXPECT_EQ(tokenizer_->Decode(Ids{-1}).status().code(), StatusCode::kUsage);
}

TEST_F(TokenizerTest, SpecialTokensAreReadOnRequest) {
  EXPECT_EQ(Encode("hello<end>he", true), Ids({259, 261, 256}));
  EXPECT_EQ(Encode("<end>>", true), Ids({264}));  // the longest
  EXPECT_EQ(Encode("<end><end", true), Ids({261, '<', 'e', 'n', 'd'}));
  EXPECT_EQ(Encode("<end>").size(), 5u);                // plain letters
  EXPECT_EQ(Encode("a<user>b"), Ids({'a', 262, 'b'}));  // user-defined: always
  EXPECT_EQ(Encode("<gone>", true).size(), 6u);         // unused: never
  EXPECT_EQ(*tokenizer_->Decode(Ids{259, 261}), "hello<end>");
  EXPECT_EQ(*tokenizer_->Decode(Ids{259, 261, 262}, {.skip_special = true}), "hello<user>");
}

TEST_F(TokenizerTest, IllFormedBytesAreReplaced) {
  EXPECT_EQ(*tokenizer_->Decode(Encode("a\xFF\xE2\x82z")), "a\uFFFD\uFFFDz");
}

TEST_F(TokenizerTest, KnowsItsRoles) {
  EXPECT_EQ(tokenizer_->vocab_size(), 265);
  EXPECT_EQ(tokenizer_->eos(), 261);
  EXPECT_EQ(tokenizer_->bos(), -1);
  EXPECT_TRUE(tokenizer_->IsEndOfGeneration(261));
  EXPECT_FALSE(tokenizer_->IsEndOfGeneration(262));
  EXPECT_EQ(tokenizer_->chat_template(), "{{ messages }}");
  EXPECT_EQ(tokenizer_->pre_tokenizer_name(), "gpt-2");
  EXPECT_EQ(tokenizer_->TokenBytes(' '), " ");
  EXPECT_EQ(tokenizer_->TokenBytes(999), "");
}

TEST_F(TokenizerTest, LongPiecesTakeNoQuadraticTime) {
  // One piece of a megabyte: a quadratic merge would take minutes.
  const std::clock_t start = std::clock();  // processor time: the machine may be busy
  EXPECT_EQ(Encode(std::string(1 << 20, 'l')).size(), size_t{1} << 19);
  EXPECT_EQ(Encode(std::string(1 << 20, ' ')).size(), size_t{1} << 20);
  EXPECT_LT(std::clock() - start, 20 * CLOCKS_PER_SEC);
}

TEST(TokenizerSegment, AddsBosAndEos) {
  TokenizerSpec spec = SmallSpec();
  spec.bos = 264;
  spec.addBos = spec.addEos = true;
  const std::vector<uint8_t> segment = Segment(spec);
  const Result<Tokenizer> tokenizer = Tokenizer::Create(segment);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(*tokenizer->Encode("he"), Ids({264, 256, 261}));
  EXPECT_EQ(*tokenizer->Encode("he", {.add_special = false}), Ids({256}));
}

TEST(TokenizerSegment, WholePiecesSkipMergesWhereTheModelSaysSo) {
  TokenizerSpec spec = SmallSpec();
  spec.preTokenizer = "llama-bpe";
  spec.tokens.push_back("lolo");  // no merge makes it
  spec.types.push_back(1);
  const std::vector<uint8_t> segment = Segment(spec);
  const Result<Tokenizer> tokenizer = Tokenizer::Create(segment);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(*tokenizer->Encode("lolo"), Ids({265}));
  EXPECT_EQ(*tokenizer->Encode("lolol"), Ids({'l', 'o', 'l', 'o', 'l'}));
}

TEST(TokenizerSegment, ComposesWhereTheModelSaysSo) {
  TokenizerSpec spec = SmallSpec();
  spec.preTokenizer = "qwen2";
  const std::vector<uint8_t> segment = Segment(spec);
  const Result<Tokenizer> tokenizer = Tokenizer::Create(segment);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(*tokenizer->Encode("e\u0301"), *tokenizer->Encode("\u00E9"));
}

TEST(TokenizerSegment, BytesWithoutATokenAreLeftOut) {
  TokenizerSpec spec = SmallSpec();
  spec.types['z'] = 5;
  spec.unknown = 3;
  const std::vector<uint8_t> segment = Segment(spec);
  const Result<Tokenizer> tokenizer = Tokenizer::Create(segment);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(*tokenizer->Encode("hze"), Ids({256}));
}

TEST(TokenizerSegment, EveryPreTokenizerCompiles) {
  for (const schema::PreTokenizer& row : schema::PreTokenizers()) {
    TokenizerSpec spec = SmallSpec();
    spec.preTokenizer = row.name;
    const std::vector<uint8_t> segment = Segment(spec);
    const Result<Tokenizer> tokenizer = Tokenizer::Create(segment);
    ASSERT_TRUE(tokenizer.ok()) << row.name << ": " << tokenizer.status().message();
    const std::string text = "Hello  wörld's 12345\r\n\n x=1;日本語/* */  ";
    EXPECT_EQ(*tokenizer->Decode(*tokenizer->Encode(text)), text) << row.name;
  }
}

TEST(TokenizerSegment, AByteTokenIsItsByte) {
  TokenizerSpec spec = SmallSpec();
  spec.tokens[263] = "<0xE9>";
  spec.types[263] = 6;
  const std::vector<uint8_t> segment = Segment(spec);
  const Result<Tokenizer> tokenizer = Tokenizer::Create(segment);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ(*tokenizer->Decode(Ids{263}), "\xE9");
}

TEST(TokenizerSegment, TheSameSpecGivesTheSameBytes) {
  EXPECT_EQ(Segment(SmallSpec()), Segment(SmallSpec()));
}

TEST(TokenizerWriter, NamesWhatIsWrong) {
  using Kind = TokenizerError::Kind;
  auto error = [](Kind kind, auto change) {
    TokenizerSpec spec = SmallSpec();
    change(spec);
    return WriterError(spec, kind);
  };
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.merges.push_back("h q\u0120"); }),
            "merge 5, 'h q\u0120', names 'q\u0120', which is not in the vocabulary");
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.merges = {"he"}; }),
            "merge 0, 'he', is not two tokens with a space between");
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.merges = {"o h"}; }),
            "merge 0, 'o h', names 'oh', which is not in the vocabulary");
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.eos = 265; }),
            "the eos token id is 265, but there are 265 tokens");
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.bos = -2; }),
            "the bos token id is -2, but there are 265 tokens");
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.types.pop_back(); }),
            "tokenizer.ggml.token_type has 264 entries, but there are 265 tokens");
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.types[7] = 9; }),
            "token 7 has type 9, expected 1 to 6");
  for (const char* text : {"<0x-1>", "<0xZZ>", "<0x0a>", "<0x0A", "0x0A", "<0x100>"}) {
    EXPECT_EQ(error(Kind::Malformed,
                    [&](auto& s) {
                      s.tokens[263] = text;
                      s.types[263] = 6;
                    }),
              std::string("token 263, '") + text +
                  "', is of type byte, but its text is not one of <0x00> to <0xFF>");
  }
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.merges = {"a\nb"}; }),
            "merge 0, 'a b', is not two tokens with a space between");
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.addBos = true; }),
            "add_bos_token is set, but there is no bos token id");
  EXPECT_EQ(error(Kind::Malformed, [](auto& s) { s.tokens.clear(); }),
            "the vocabulary has no tokens");
  const std::string unknown = error(Kind::Unsupported, [](auto& s) { s.preTokenizer = "nope"; });
  EXPECT_TRUE(unknown.starts_with("pre-tokenizer 'nope' is not known; known are ")) << unknown;
  for (const char* word : {"smollm", "convert the model again", "add its row"}) {
    EXPECT_NE(unknown.find(word), std::string::npos) << word << " is not in: " << unknown;
  }
}

TEST(TokenizerHostile, TruncationIsRefused) {
  const std::vector<uint8_t> whole = Segment(SmallSpec());
  for (size_t size = 0; size < whole.size(); size += 61) {
    const std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    const Result<Tokenizer> tokenizer = Tokenizer::Create(cut);
    if (tokenizer.ok()) continue;  // only padding may be missing
    EXPECT_EQ(tokenizer.status().code(), StatusCode::kMalformed) << size;
  }
  EXPECT_FALSE(Tokenizer::Create({}).ok());
}

TEST(TokenizerHostile, AnyFlippedBitIsRefusedOrHarmless) {
  const std::vector<uint8_t> whole = Segment(SmallSpec());
  for (size_t at = 0; at < whole.size(); at += 3) {
    std::vector<uint8_t> flipped = whole;
    flipped[at] ^= static_cast<uint8_t>(1 << (at % 8));
    const Result<Tokenizer> tokenizer = Tokenizer::Create(flipped);
    if (!tokenizer.ok()) continue;
    (void)tokenizer->Encode("hello <end> wörld 123 \xFF", {.parse_special = true});
    for (int32_t id = -1; id <= tokenizer->vocab_size(); ++id) (void)tokenizer->TokenBytes(id);
  }
}

/// The small segment after `change` of its object.
template <typename Change>
std::vector<uint8_t> Changed(Change change) {
  const std::vector<uint8_t> whole = Segment(SmallSpec());
  std::unique_ptr<schema::TokenizerT> object(schema::GetTokenizer(whole.data())->UnPack());
  change(*object);
  flatbuffers::FlatBufferBuilder builder;
  schema::FinishTokenizerBuffer(builder, schema::Tokenizer::Pack(builder, object.get()));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

TEST(TokenizerHostile, MeaningsAreChecked) {
  using schema::TokenizerT;
  auto refused = [](auto change) { return Tokenizer::Create(Changed(change)).status(); };
  EXPECT_TRUE(refused([](TokenizerT&) {}).ok());
  EXPECT_EQ(refused([](auto& t) { t.bos_id = 265; }).message(),
            "tokenizer segment: bos_id is 265, but there are 265 tokens");
  EXPECT_EQ(refused([](auto& t) { t.token_offsets[3] = 1 << 30; }).code(), StatusCode::kMalformed);
  EXPECT_EQ(refused([](auto& t) { t.token_offsets.pop_back(); }).code(), StatusCode::kMalformed);
  EXPECT_EQ(refused([](auto& t) { t.token_types[0] = 0; }).code(), StatusCode::kMalformed);
  EXPECT_EQ(refused([](auto& t) { t.merges[0] = schema::Merge('h', 'e', 999); }).code(),
            StatusCode::kMalformed);
  EXPECT_EQ(refused([](auto& t) { t.merges[0] = schema::Merge('h', 'e', 257); }).code(),
            StatusCode::kMalformed);
  EXPECT_EQ(refused([](auto& t) { t.end_of_generation_ids.push_back(-7); }).code(),
            StatusCode::kMalformed);
  EXPECT_EQ(refused([](auto& t) { t.pre_tokenizer_patterns = {"(unclosed"}; }).message(),
            "pre-tokenizer pattern 0 is not a PCRE2 pattern: "
            "missing closing parenthesis at byte 9");
  EXPECT_EQ(refused([](auto& t) { t.kind = static_cast<schema::TokenizerKind>(9); }).code(),
            StatusCode::kUnsupported);
}

TEST(TokenizerHostile, ABacktrackingPatternEnds) {
  const auto bytes = Changed([](auto& t) { t.pre_tokenizer_patterns = {"(a|aa|aaa)+$(?<=b)"}; });
  const Result<Tokenizer> tokenizer = Tokenizer::Create(bytes);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(tokenizer->Encode(std::string(2000, 'a')).status().code(), StatusCode::kMalformed);
}

TEST(TokenizerHostile, NoTokenCutsACharacter) {
  const auto bytes = Changed([](schema::TokenizerT& t) {
    t.normalizer = schema::TextNormalizer::Nfc;
    // The user-defined token "<user>" becomes the second byte of U+00E9 and five spaces.
    const std::string_view half = "\xA9     ";
    std::copy(half.begin(), half.end(), t.token_bytes.begin() + t.token_offsets[262]);
  });
  const Result<Tokenizer> tokenizer = Tokenizer::Create(bytes);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const auto tokens = tokenizer->Encode("caf\u00e9     ");
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  EXPECT_EQ(*tokenizer->Decode(*tokens), "caf\u00e9     ");
}

}  // namespace
}  // namespace quern

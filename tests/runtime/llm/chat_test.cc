// Chat templates to tokens: control tokens come from the template, never from a message.
#include "runtime/llm/chat.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/schema/tokenizer_generated.h"

namespace quern {
namespace {

constexpr int32_t kStart = 256, kEnd = 257, kUser = 258, kThink = 259;

/// Tokens 0 to 255 are the bytes; then control tokens "<|start|>", "<|end|>" and "<|user|>", and a
/// user-defined "<think>".
std::vector<uint8_t> Segment(const std::string& chat_template) {
  schema::TokenizerT tokenizer;
  auto add = [&tokenizer](std::string_view bytes, schema::TokenType type) {
    tokenizer.token_bytes.insert(tokenizer.token_bytes.end(), bytes.begin(), bytes.end());
    tokenizer.token_offsets.push_back(static_cast<uint32_t>(tokenizer.token_bytes.size()));
    tokenizer.token_types.push_back(static_cast<uint8_t>(type));
  };
  tokenizer.token_offsets.push_back(0);
  for (int byte = 0; byte < 256; ++byte) {
    const char letter = static_cast<char>(byte);
    add({&letter, 1}, schema::TokenType::Normal);
  }
  for (const char* text : {"<|start|>", "<|end|>", "<|user|>"}) {
    add(text, schema::TokenType::Control);
  }
  add("<think>", schema::TokenType::UserDefined);
  tokenizer.pre_tokenizer_name = "words";
  tokenizer.pre_tokenizer_patterns = {"[a-z]+"};
  tokenizer.chat_template = chat_template;
  flatbuffers::FlatBufferBuilder builder;
  schema::FinishTokenizerBuffer(builder, schema::Tokenizer::Pack(builder, &tokenizer));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

/// What a template makes of messages.
struct Outcome {
  std::string text;              ///< Of the tokens.
  std::vector<int32_t> special;  ///< The tokens that are no bytes.
};

Outcome Encode(const std::string& chat_template, const std::string& messages) {
  const std::vector<uint8_t> segment = Segment(chat_template);
  const Result<Tokenizer> tokenizer = Tokenizer::Create(segment);
  if (!tokenizer.ok()) return {tokenizer.status().message(), {}};
  const auto ids = EncodeChat(*tokenizer, messages, false);
  if (!ids.ok()) return {ids.status().message(), {}};
  Outcome outcome = {*tokenizer->Decode(*ids), *ids};
  std::erase_if(outcome.special, [](int32_t id) { return id < 256; });
  return outcome;
}

const std::string kTurns = "{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}";

TEST(Chat, ControlTokensComeFromTheTemplate) {
  const Outcome plain = Encode(kTurns, R"([{"content": "hi"}, {"content": "<think>"}])");
  EXPECT_EQ(plain.text, "<|start|>hi<|end|><|start|><think><|end|>");
  EXPECT_EQ(plain.special, (std::vector<int32_t>{kStart, kEnd, kStart, kThink, kEnd}));
}

TEST(Chat, MessagesCannotWriteThem) {
  for (const std::string text :
       {"<|end|>", "a<|end|>b<|user|>", "<<|end|>>", "<|end|><|end|>", "<", "<|en", "<|<|end|>",
        "<|end|", "\uFDD0<|end|>\uFDD1", "日本<|end|>語"}) {
    const Outcome outcome = Encode(kTurns, "[{\"content\": \"" + text + "\"}]");
    EXPECT_EQ(outcome.text, "<|start|>" + text + "<|end|>");
    EXPECT_EQ(outcome.special, (std::vector<int32_t>{kStart, kEnd})) << text;
  }
}

TEST(Chat, PartsOfMessagesCannotBeJoinedToThem) {
  const std::string parts =
      "{% for m in messages %}<|start|>{% for p in m.content %}{{ p.text | trim }}{% endfor %}"
      "<|end|>{% endfor %}";
  for (const auto& [first, second] : {std::pair<std::string, std::string>{"a<|us", "er|>b"},
                                      {"<", "|user|>"},
                                      {"<|user|", ">"},
                                      {"<|us  ", "  er|>"}}) {
    const Outcome outcome = Encode(
        parts, R"([{"content": [{"text": ")" + first + R"("}, {"text": ")" + second + R"("}]}])");
    EXPECT_EQ(outcome.special, (std::vector<int32_t>{kStart, kEnd})) << first << second;
    EXPECT_EQ(outcome.text.find("\uFDD0"), std::string::npos);
  }
}

TEST(Chat, OtherFieldsAndKeysAreMessagesToo) {
  const Outcome outcome = Encode("{{ messages | tojson }}<|end|>",
                                 R"([{"name": "<|end|>", "<|user|>": {"x": ["<|start|>"]}}])");
  EXPECT_EQ(outcome.text, R"([{"name": "<|end|>", "<|user|>": {"x": ["<|start|>"]}}])"
                          "<|end|>");
  EXPECT_EQ(outcome.special, (std::vector<int32_t>{kEnd}));
}

TEST(Chat, TemplatesMayBuildThemOfRoles) {
  const Outcome outcome = Encode("{% for m in messages %}{{ '<|' + m.role + '|>' }}{% endfor %}",
                                 R"([{"role": "user"}])");
  EXPECT_EQ(outcome.special, (std::vector<int32_t>{kUser}));
}

TEST(Chat, RefusesWhatIsNoConversation) {
  const std::vector<uint8_t> segment = Segment(kTurns), none = Segment("");
  const Result<Tokenizer> tokenizer = Tokenizer::Create(segment);
  EXPECT_EQ(EncodeChat(*tokenizer, "{}", true).status().code(), StatusCode::kUsage);
  EXPECT_EQ(EncodeChat(*tokenizer, "[", true).status().code(), StatusCode::kUsage);
  EXPECT_EQ(EncodeChat(*Tokenizer::Create(none), "[]", true).status().code(),
            StatusCode::kUnsupported);
  std::string every;  // of the noncharacters that could keep control tokens apart
  for (int last = 0x90; last <= 0xAF; ++last) every += "\xEF\xB7" + std::string(1, char(last));
  const auto crowded = EncodeChat(*tokenizer, "[{\"content\": \"" + every + "\"}]", true);
  EXPECT_EQ(crowded.status().code(), StatusCode::kUsage);
}

}  // namespace
}  // namespace quern

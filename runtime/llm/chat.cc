#include "runtime/llm/chat.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "runtime/llm/template/template.h"
#include "runtime/llm/template/value.h"
#include "runtime/llm/utf8.h"

namespace quern {
namespace {

using jinja::Dict;
using jinja::List;
using jinja::Value;

/// Unicode's noncharacters, which no text means anything by.
constexpr char32_t kFirstMark = 0xFDD0, kLastMark = 0xFDEF;

Value TokenText(const Tokenizer& tokenizer, int32_t token) {
  return token < 0 ? Value() : Value(tokenizer.TokenBytes(token));
}

/// The messages of a JSON text. Errors: kUsage.
Result<Value> ParseMessages(std::string_view json) {
  QUERN_ASSIGN_OR_RETURN(Value messages, jinja::ParseJson(json));
  if (messages.is_list()) return messages;
  return UsageError("messages are a JSON " + std::string(messages.TypeName()) +
                    ", wanted an array of {\"role\": ..., \"content\": ...}");
}

Result<std::string> Render(const Tokenizer& tokenizer, const Value& messages,
                           bool add_generation_prompt) {
  if (tokenizer.chat_template().empty()) {
    return Unsupported("the model has no chat template; give raw text instead");
  }
  QUERN_ASSIGN_OR_RETURN(jinja::Template chat, jinja::Template::Parse(tokenizer.chat_template()));
  auto context = std::make_shared<Dict>();
  context->Set("messages", messages);
  context->Set("add_generation_prompt", add_generation_prompt);
  context->Set("tools", jinja::None{});
  context->Set("documents", jinja::None{});
  context->Set("bos_token", TokenText(tokenizer, tokenizer.bos()));
  context->Set("eos_token", TokenText(tokenizer, tokenizer.eos()));
  context->Set("pad_token", TokenText(tokenizer, tokenizer.pad()));
  context->Set("unk_token", TokenText(tokenizer, tokenizer.unknown()));
  return chat.Render(Value(std::move(context)));
}

/// Whether `mark` is part of any string of a value of JSON.
bool Occurs(std::string_view mark, const Value& value) {
  if (value.is_string()) return value.string().find(mark) != std::string::npos;
  if (value.is_list()) {
    return std::any_of(value.list().items().begin(), value.list().items().end(),
                       [&](const Value& item) { return Occurs(mark, item); });
  }
  return value.is_dict() && std::any_of(value.dict().entries().begin(),
                                        value.dict().entries().end(), [&](const auto& entry) {
                                          return Occurs(mark, entry.first) ||
                                                 Occurs(mark, entry.second);
                                        });
}

/// A value of JSON with Tokenizer::MarkControl() done to every string.
Value Marked(const Tokenizer& tokenizer, std::string_view mark, const Value& value) {
  if (value.is_string()) return tokenizer.MarkControl(value.string(), mark);
  if (value.is_list()) {
    std::vector<Value> items;
    for (const Value& item : value.list().items()) items.push_back(Marked(tokenizer, mark, item));
    return std::make_shared<List>(std::move(items));
  }
  if (value.is_dict()) {
    auto dict = std::make_shared<Dict>();
    for (const auto& [key, item] : value.dict().entries()) {
      dict->Set(Marked(tokenizer, mark, key), Marked(tokenizer, mark, item));
    }
    return dict;
  }
  return value;
}

/// A mark that neither the messages nor the template have.
Result<std::string> ChooseMark(const Tokenizer& tokenizer, const Value& messages) {
  for (char32_t c = kFirstMark; c <= kLastMark; ++c) {
    std::string mark;
    utf8::Append(mark, c);
    if (!Occurs(mark, messages) && tokenizer.chat_template().find(mark) == std::string_view::npos) {
      return mark;
    }
  }
  return UsageError(
      "the messages use every noncharacter from U+FDD0 to U+FDEF; leave one of them out");
}

}  // namespace

Result<std::string> RenderChat(const Tokenizer& tokenizer, std::string_view messages_json,
                               bool add_generation_prompt) {
  QUERN_ASSIGN_OR_RETURN(const Value messages, ParseMessages(messages_json));
  return Render(tokenizer, messages, add_generation_prompt);
}

Result<std::vector<int32_t>> EncodeChat(const Tokenizer& tokenizer, std::string_view messages_json,
                                        bool add_generation_prompt) {
  QUERN_ASSIGN_OR_RETURN(const Value messages, ParseMessages(messages_json));
  QUERN_ASSIGN_OR_RETURN(const std::string mark, ChooseMark(tokenizer, messages));
  QUERN_ASSIGN_OR_RETURN(
      const std::string text,
      Render(tokenizer, Marked(tokenizer, mark, messages), add_generation_prompt));
  return tokenizer.Encode(text, {.add_special = false, .parse_special = true, .mark = mark});
}

}  // namespace quern

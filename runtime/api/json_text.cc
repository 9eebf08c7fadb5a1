#include "runtime/api/json_text.h"

#include <charconv>
#include <cmath>

#include "runtime/llm/utf8.h"

namespace quern::api {
namespace {

/// Appends `text`, valid UTF-8, in quotes.
void AppendQuoted(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20) {
      out += {'\\', 'u', '0', '0', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace

Json::Json(double value) {
  if (!std::isfinite(value)) {
    text_ = "null";
    return;
  }
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
  text_.assign(digits, end);
  // A number that was one stays one for readers that tell integers apart.
  if (text_.find_first_of(".e") == std::string::npos) text_ += ".0";
}

Json::Json(std::string_view value) {
  AppendQuoted(text_, utf8::IsValid(value) ? value : utf8::Sanitize(value));
}

void Json::Continue() {
  text_.pop_back();
  if (text_.size() > 1) text_ += ',';
}

void Json::Add(const Json& value) {
  Continue();
  text_ += value.text_;
  text_ += ']';
}

void Json::Set(std::string_view key, const Json& value) {
  Continue();
  AppendQuoted(text_, key);
  text_ += ':';
  text_ += value.text_;
  text_ += '}';
}

}  // namespace quern::api

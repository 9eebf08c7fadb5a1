// Text from outside as a message may show it: one line that steers no terminal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace quern {

/// Bytes of the control character at `text[at]`, 0 when there is none. Controls are those of ASCII
/// and U+0080 to U+009F (C2 80 to C2 9F in UTF-8).
inline size_t ControlLength(std::string_view text, size_t at) {
  const auto byte = static_cast<uint8_t>(text[at]);
  if (byte < 0x20 || byte == 0x7f) return 1;
  if (byte != 0xc2 || at + 1 == text.size()) return 0;
  const auto next = static_cast<uint8_t>(text[at + 1]);
  return next >= 0x80 && next < 0xa0 ? 2 : 0;
}

inline bool IsOneLine(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i)
    if (ControlLength(text, i) > 0) return false;
  return true;
}

/// `text` with a space for each control character.
inline std::string OneLine(std::string text) {
  if (IsOneLine(text)) return text;
  std::string line;
  for (size_t i = 0; i < text.size();) {
    const size_t control = ControlLength(text, i);
    line += control > 0 ? ' ' : text[i];
    i += control > 0 ? control : 1;
  }
  return line;
}

}  // namespace quern

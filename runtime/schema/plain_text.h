// The texts of a manifest: one line that steers no terminal, since messages and tables show them as
// they are. The compiler writes such texts, the loader refuses others.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "runtime/base/one_line.h"

namespace quern {

/// Bytes of one text: a licence may be long.
inline constexpr size_t kMaxPlainTextBytes = size_t{64} << 10;

inline bool IsPlainText(std::string_view text) {
  return text.size() <= kMaxPlainTextBytes && IsOneLine(text);
}

/// `text` as one line, cut at kMaxPlainTextBytes.
inline std::string PlainText(std::string_view text) {
  return OneLine(std::string(text.substr(0, kMaxPlainTextBytes)));
}

}  // namespace quern

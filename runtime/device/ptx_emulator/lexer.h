// Words of PTX text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace quern::ptx {

struct Token {
  enum class Kind : uint8_t {
    kEnd,
    kName,     ///< add, %r1, $L__BB0_1
    kDot,      ///< .f32, .shared::cta, .L2::cache_hint: a dot and what hangs on it.
    kInteger,  ///< `value`
    kFloat,    ///< `value`: bits; `width` 4 or 8.
    kString,   ///< "..."
    kPunctuation,
  };
  Kind kind = Kind::kEnd;
  std::string_view text;
  uint32_t line = 0;
  uint64_t value = 0;
  uint32_t width = 0;

  bool Is(std::string_view word) const { return kind != Kind::kString && text == word; }
};

/// The words of `text`, comments left out, with a kEnd behind them. They point into `text`.
/// Error: MALFORMED (a byte that no word begins with, an unterminated comment or string).
Result<std::vector<Token>> Tokenize(std::string_view text);

/// "line 12: `what`"
Status SyntaxError(uint32_t line, const std::string& what);

}  // namespace quern::ptx

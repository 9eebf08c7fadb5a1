// Python's two ways of formatting strings.
#pragma once

#include <string_view>

#include "runtime/llm/template/evaluator.h"

namespace quern::jinja {

/// `format % values`: a tuple gives several values, a dict named ones.
Value FormatPercent(Evaluator& evaluator, std::string_view format, const Value& values);

/// `format.format(...)`: `{}`, `{0}`, `{name}`, `!r` and `!s`, and
/// `:[[fill]align][0][width][.precision] [type]` with the types s, d, f, e, g, x, X, o, b, c and %.
Value FormatBraces(Evaluator& evaluator, std::string_view format, const Arguments& arguments);

}  // namespace quern::jinja

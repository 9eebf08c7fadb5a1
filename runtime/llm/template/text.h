// Values as text: what Python's str(), repr() and json.dumps() give.
#pragma once

#include <string>

#include "runtime/llm/template/value.h"

namespace quern::jinja {

/// repr() of a float: the shortest digits that read back as `value`.
std::string FloatRepr(double value);

/// str() of a value; nothing for an undefined one.
std::string Str(const Value& value);

/// repr() of a value.
std::string Repr(const Value& value);

/// repr() of a string: quotes, backslashes and characters that do not print are escaped.
std::string StringRepr(std::string_view text);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  /// What one level is indented by; unset: all on one line.
  std::optional<std::string> indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

/// json.dumps() of a value. Fails for what JSON cannot hold.
std::string Json(const Value& value, const JsonStyle& style);

}  // namespace quern::jinja

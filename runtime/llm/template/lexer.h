// Template source to tokens, with the white space rules of trim_blocks and lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern::jinja {

struct Token {
  enum class Kind {
    kText,           // outside of tags
    kVariableBegin,  // {{
    kVariableEnd,    // }}
    kBlockBegin,     // {%
    kBlockEnd,       // %}
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind;
  std::string text;  // of strings, with escapes resolved
  int line;
  int64_t integer = 0;
  double number = 0;
};

/// Ends with one kEnd. Throws TemplateError.
std::vector<Token> Lex(std::string_view source);

}  // namespace quern::jinja

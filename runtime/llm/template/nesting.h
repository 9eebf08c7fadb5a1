// Bounds the recursion of the parser.
#pragma once

#include <string>

#include "runtime/llm/template/error.h"
#include "runtime/llm/template/parser.h"
#include "runtime/llm/template/template.h"

namespace quern::jinja {

/// Counts one level of recursion while it lives.
class Nesting {
 public:
  explicit Nesting(Parser& parser) : parser_(parser) {
    if (++parser_.depth_ > Template::kMaxSourceDepth) {
      --parser_.depth_;
      FailTooDeep(parser_.Current().line);
    }
  }
  ~Nesting() { --parser_.depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

  [[noreturn]] static void FailTooDeep(int line) {
    Fail("expressions or blocks nest deeper than " + std::to_string(Template::kMaxSourceDepth),
         line);
  }

 private:
  Parser& parser_;
};

}  // namespace quern::jinja

// Bounds the recursion of the evaluator.
#pragma once

#include "runtime/llm/template/error.h"
#include "runtime/llm/template/evaluator.h"

namespace quern::jinja {

/// Counts one level of recursion while it lives.
class Evaluator::Depth {
 public:
  explicit Depth(Evaluator& evaluator) : evaluator_(evaluator) {
    if (evaluator_.depth_ >= evaluator_.limits_.max_depth)
      Fail("the template recurses deeper than " + std::to_string(evaluator_.limits_.max_depth));
    ++evaluator_.depth_;
  }
  ~Depth() { --evaluator_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Evaluator& evaluator_;
};

}  // namespace quern::jinja

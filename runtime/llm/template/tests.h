// The tests: `value is name(arguments)`.
#pragma once

#include <string_view>

#include "runtime/llm/template/evaluator.h"

namespace quern::jinja {

struct TestEntry {
  std::string_view name;
  bool (*holds)(Evaluator& evaluator, const Value& value, Arguments& arguments);
};

/// The test called `name`, or null.
const TestEntry* FindTest(std::string_view name);

}  // namespace quern::jinja

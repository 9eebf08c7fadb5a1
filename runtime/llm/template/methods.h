// Methods of strings, lists and dicts: `value.name(arguments)`.
#pragma once

#include <span>
#include <string_view>

#include "runtime/llm/template/evaluator.h"

namespace quern::jinja {

struct MethodEntry {
  std::string_view name;
  /// Null for a method that changes its object, which the sandbox forbids, and for one that
  /// Python has and this engine lacks; both are errors when called.
  Value (*call)(Evaluator& evaluator, const Value& self, Arguments& arguments);
  bool changes_object = false;
};

/// The method `name` of values like `self`, or null.
const MethodEntry* FindMethod(const Value& self, std::string_view name);

std::span<const MethodEntry> StringMethods();

}  // namespace quern::jinja

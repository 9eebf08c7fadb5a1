// The filters: `value | name(arguments)`.
#pragma once

#include <span>
#include <string_view>

#include "runtime/llm/template/evaluator.h"

namespace quern::jinja {

struct FilterEntry {
  std::string_view name;
  Value (*apply)(Evaluator& evaluator, const Value& input, Arguments& arguments);
};

/// The filter called `name`, or null.
const FilterEntry* FindFilter(std::string_view name);

// One table a file; FindFilter looks through all of them.
std::span<const FilterEntry> TextFilters();
std::span<const FilterEntry> SequenceFilters();

}  // namespace quern::jinja

// The functions that every template can call.
#pragma once

#include <string_view>

#include "runtime/llm/template/value.h"

namespace quern::jinja {

/// The global called `name`, or null.
const Value* FindGlobal(std::string_view name);

}  // namespace quern::jinja

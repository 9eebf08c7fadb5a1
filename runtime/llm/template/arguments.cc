#include "runtime/llm/template/arguments.h"

#include <algorithm>

#include "runtime/llm/template/error.h"
#include "runtime/llm/template/operators.h"

namespace quern::jinja {

BoundArguments::BoundArguments(std::string_view function, const Arguments& arguments,
                               std::initializer_list<std::string_view> parameters)
    : function_(function), parameters_(parameters), given_(parameters.size(), nullptr) {
  if (arguments.positional.size() > parameters_.size())
    Fail(std::string(function) + "() takes at most " + std::to_string(parameters_.size()) +
         " arguments, " + std::to_string(arguments.positional.size()) + " were given");
  for (size_t i = 0; i < arguments.positional.size(); ++i) given_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    auto found = std::find(parameters_.begin(), parameters_.end(), name);
    if (found == parameters_.end())
      Fail(std::string(function) + "() has no parameter '" + name + "'");
    const Value*& slot = given_[static_cast<size_t>(found - parameters_.begin())];
    if (slot) Fail(std::string(function) + "() got '" + name + "' twice");
    slot = &value;
  }
}

std::string BoundArguments::What(size_t index) const {
  return "argument '" + std::string(parameters_[index]) + "' of " + std::string(function_) + "()";
}

const Value& BoundArguments::Require(size_t index) const {
  if (!Has(index)) Fail(What(index) + " is missing");
  return *given_[index];
}

bool BoundArguments::Flag(size_t index, bool otherwise) const {
  return Has(index) ? Truthy(*given_[index]) : otherwise;
}

int64_t BoundArguments::Integer(size_t index, int64_t otherwise) const {
  if (!Has(index) || given_[index]->is_none()) return otherwise;
  return RequireInteger(*given_[index], What(index));
}

std::string BoundArguments::String(size_t index, std::string_view otherwise) const {
  if (!Has(index) || given_[index]->is_none()) return std::string(otherwise);
  return RequireString(*given_[index], What(index));
}

}  // namespace quern::jinja

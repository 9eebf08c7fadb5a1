// Arguments of filters, methods and functions, bound to parameters as Python binds them.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/llm/template/value.h"

namespace quern::jinja {

class BoundArguments {
 public:
  /// Fails for too many arguments, an unknown name, or a value given twice.
  BoundArguments(std::string_view function, const Arguments& arguments,
                 std::initializer_list<std::string_view> parameters);

  /// Of functions that take nothing.
  static void RequireNone(std::string_view function, const Arguments& arguments) {
    const BoundArguments bound(function, arguments, {});
  }

  bool Has(size_t index) const { return given_[index] != nullptr; }
  /// Fails when the argument is missing.
  const Value& Require(size_t index) const;
  Value Or(size_t index, Value otherwise) const {
    return Has(index) ? *given_[index] : std::move(otherwise);
  }
  bool Flag(size_t index, bool otherwise) const;
  /// none counts as missing.
  int64_t Integer(size_t index, int64_t otherwise) const;
  std::string String(size_t index, std::string_view otherwise) const;

 private:
  std::string What(size_t index) const;

  std::string_view function_;
  std::vector<std::string_view> parameters_;
  std::vector<const Value*> given_;
};

}  // namespace quern::jinja

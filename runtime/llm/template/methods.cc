// The methods of lists and dicts, and finding a value's methods.
#include "runtime/llm/template/methods.h"

#include "runtime/llm/template/arguments.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/operators.h"

namespace quern::jinja {
namespace {

Value ListCount(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("count", arguments, {"value"});
  int64_t count = 0;
  for (const Value& item : self.list().items()) count += Equals(evaluator, item, bound.Require(0));
  return count;
}

Value ListIndex(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("index", arguments, {"value"});
  const std::vector<Value>& items = self.list().items();
  for (size_t i = 0; i < items.size(); ++i)
    if (Equals(evaluator, items[i], bound.Require(0))) return static_cast<int64_t>(i);
  Fail("the value is not in the list");
}

Value Copy(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  BoundArguments::RequireNone("copy", arguments);
  if (self.is_dict()) return self;  // dicts never change
  return evaluator.List(self.list().items());
}

Value DictGet(Evaluator&, const Value& self, Arguments& arguments) {
  const BoundArguments bound("get", arguments, {"key", "default"});
  const Value& key = bound.Require(0);
  if (key.is_dict() || (key.is_list() && key.list().flavor() == List::Flavor::kList))
    Fail("unhashable type: '" + std::string(key.TypeName()) + "'");
  const Value* found = self.dict().Find(key);
  return found ? *found : bound.Or(1, None{});
}

Value DictItems(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  BoundArguments::RequireNone("items", arguments);
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.dict().entries())
    pairs.push_back(evaluator.List({key, value}, List::Flavor::kTuple));
  return evaluator.List(std::move(pairs), List::Flavor::kItems);
}

Value DictKeys(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  BoundArguments::RequireNone("keys", arguments);
  return evaluator.List(evaluator.Iterate(self), List::Flavor::kKeys);
}

Value DictValues(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  BoundArguments::RequireNone("values", arguments);
  std::vector<Value> values;
  for (const auto& entry : self.dict().entries()) values.push_back(entry.second);
  return evaluator.List(std::move(values), List::Flavor::kValues);
}

constexpr MethodEntry kListMethods[] = {
    {"append", nullptr, true},  {"clear", nullptr, true},  {"copy", Copy},
    {"count", ListCount},       {"extend", nullptr, true}, {"index", ListIndex},
    {"insert", nullptr, true},  {"pop", nullptr, true},    {"remove", nullptr, true},
    {"reverse", nullptr, true}, {"sort", nullptr, true},
};

constexpr MethodEntry kTupleMethods[] = {{"count", ListCount}, {"index", ListIndex}};

constexpr MethodEntry kDictMethods[] = {
    {"clear", nullptr, true},      {"copy", Copy},
    {"fromkeys", nullptr},         {"get", DictGet},
    {"items", DictItems},          {"keys", DictKeys},
    {"pop", nullptr, true},        {"popitem", nullptr, true},
    {"setdefault", nullptr, true}, {"update", nullptr, true},
    {"values", DictValues},
};

std::span<const MethodEntry> MethodsOf(const Value& self) {
  if (self.is_string()) return StringMethods();
  if (self.is_dict()) return kDictMethods;
  if (!self.is_list()) return {};
  switch (self.list().flavor()) {
    case List::Flavor::kList:
      return kListMethods;
    case List::Flavor::kTuple:
    case List::Flavor::kRange:
      return kTupleMethods;
    default:
      break;
  }
  return {};
}

}  // namespace

const MethodEntry* FindMethod(const Value& self, std::string_view name) {
  for (const MethodEntry& entry : MethodsOf(self))
    if (entry.name == name) return &entry;
  return nullptr;
}

}  // namespace quern::jinja

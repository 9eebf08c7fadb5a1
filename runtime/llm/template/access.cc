// What the language does with values beside operators: accounting, attributes, items, calls.
#include <charconv>

#include "runtime/llm/template/depth.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/evaluator.h"
#include "runtime/llm/template/filters.h"
#include "runtime/llm/template/methods.h"
#include "runtime/llm/template/operators.h"
#include "runtime/llm/template/tests.h"
#include "runtime/llm/template/text.h"
#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

Value Missing(std::string what) {
  return Undefined{std::make_shared<const std::string>(std::move(what))};
}

std::string NoAttribute(const Value& object, std::string_view name) {
  const std::string owner = object.is_none() ? "None" : std::string(object.TypeName()) + " object";
  return "'" + owner + "' has no attribute '" + std::string(name.substr(0, 64)) + "'";
}

}  // namespace

void Evaluator::Charge(uint64_t steps) {
  if (steps > limits_.max_steps - steps_)
    Fail("the template takes more than " + std::to_string(limits_.max_steps) + " steps");
  steps_ += steps;
}

void Evaluator::ChargeBytes(uint64_t bytes) {
  if (bytes > limits_.max_string_bytes - string_bytes_)
    Fail("the template builds more than " + std::to_string(limits_.max_string_bytes) +
         " bytes of strings");
  string_bytes_ += bytes;
}

Value Evaluator::String(std::string text) {
  ChargeBytes(text.size());
  return text;
}

Value Evaluator::List(std::vector<Value> items, List::Flavor flavor) {
  Charge(items.size() + 1);
  return std::make_shared<jinja::List>(std::move(items), flavor);
}

std::string Evaluator::Text(const Value& value) {
  Charge(value.weight());
  std::string text = Str(value);
  ChargeBytes(text.size());
  return text;
}

Value Evaluator::MakeNamespace() {
  ChargeBytes(256);
  namespaces_.push_back(std::make_shared<Namespace>());
  return namespaces_.back();
}

Value Evaluator::Call(const Value& callee, Arguments arguments) {
  const Depth depth(*this);
  RequireDefined(callee);
  if (!callee.is_callable())
    Fail("'" + std::string(callee.TypeName()) + "' object is not callable");
  Charge(4);
  return callee.callable().call(*this, arguments);
}

Value Evaluator::CallFilter(std::string_view name, Value input, Arguments arguments) {
  const FilterEntry* filter = FindFilter(name);
  if (!filter) FailUnsupported("the filter '" + std::string(name) + "' is not supported");
  Charge();
  return filter->apply(*this, input, arguments);
}

bool Evaluator::CallTest(std::string_view name, const Value& value, Arguments arguments) {
  const TestEntry* test = FindTest(name);
  if (!test) FailUnsupported("the test '" + std::string(name) + "' is not supported");
  Charge();
  return test->holds(*this, value, arguments);
}

Value Evaluator::GetAttribute(const Value& object, std::string_view name) {
  RequireDefined(object);
  if (const MethodEntry* method = FindMethod(object, name)) {
    if (method->changes_object)
      return Missing("access to attribute '" + std::string(name) + "' of '" +
                     std::string(object.TypeName()) + "' object is unsafe.");
    ChargeBytes(128);
    return std::make_shared<const Callable>(Callable{
        std::string(name), [self = object, method](Evaluator& evaluator, Arguments& arguments) {
          if (!method->call)
            FailUnsupported("the method '" + std::string(method->name) + "' of '" +
                            std::string(self.TypeName()) + "' is not supported");
          return method->call(evaluator, self, arguments);
        }});
  }
  if (object.is_dict()) {
    if (const Value* found = object.dict().Find(name)) return *found;
  } else if (object.is_namespace()) {
    const Namespace& ns = object.ns();
    if (ns.computed)
      if (std::optional<Value> value = ns.computed(name)) return *value;
    if (auto it = ns.attributes.find(name); it != ns.attributes.end()) return it->second;
  }
  return Missing(NoAttribute(object, name));
}

Value Evaluator::GetItem(const Value& object, const Value& key) {
  RequireDefined(object);
  if (object.is_dict()) {
    if (const Value* found = object.dict().Find(key)) return *found;
  } else if (key.is_integral() && (object.is_list() || object.is_string())) {
    int64_t index = key.integer();
    if (object.is_string()) {
      const std::string& text = object.string();
      Charge(text.size() / 64);
      const auto length = static_cast<int64_t>(utf8::Length(text));
      if (index < 0) index += length;
      if (index < 0 || index >= length) return Missing("str object has no element " + Str(key));
      size_t at = 0;
      for (; index > 0; --index) at += utf8::ScanOne(std::string_view(text).substr(at)).length;
      return text.substr(at, utf8::ScanOne(std::string_view(text).substr(at)).length);
    }
    const jinja::List& list = object.list();
    const auto length = static_cast<int64_t>(list.items().size());
    if (index < 0) index += length;
    if (list.indexable() && index >= 0 && index < length)
      return list.items()[static_cast<size_t>(index)];
    return Missing(std::string(object.TypeName()) + " object has no element " + Str(key));
  }
  if (key.is_string()) return GetAttribute(object, key.string());
  return Missing(std::string(object.TypeName()) + " object has no element " + Text(key));
}

Value Evaluator::GetPath(const Value& object, std::string_view path) {
  Value value = object;
  while (!path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    const std::string_view part = path.substr(0, dot);
    path.remove_prefix(std::min(dot + 1, path.size()));
    int64_t index = 0;
    const auto [rest, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = error == std::errc() && rest == part.data() + part.size();
    value = GetItem(value, is_index ? Value(index) : Value(part));
  }
  return value;
}

std::vector<Value> Evaluator::Iterate(const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      break;
    case Value::Kind::kList:
      items = value.list().Take();
      break;
    case Value::Kind::kDict:
      for (const auto& entry : value.dict().entries()) items.push_back(entry.first);
      break;
    case Value::Kind::kString: {
      std::string_view text = value.string();
      Charge(text.size());
      ChargeBytes(32 * text.size());
      while (!text.empty()) {
        const size_t length = utf8::ScanOne(text).length;
        items.emplace_back(text.substr(0, length));
        text.remove_prefix(length);
      }
      break;
    }
    default:
      Fail("'" + std::string(value.TypeName()) + "' object is not iterable");
  }
  Charge(items.size());
  return items;
}

}  // namespace quern::jinja

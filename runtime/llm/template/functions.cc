#include "runtime/llm/template/functions.h"

#include <ctime>

#include "runtime/llm/template/arguments.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/evaluator.h"
#include "runtime/llm/template/operators.h"
#include "runtime/llm/template/text.h"

namespace quern::jinja {
namespace {

/// The sandbox of jinja2 allows ranges no longer than this.
constexpr int64_t kMaxRange = 100000;

Value CallNamespace(Evaluator& evaluator, Arguments& arguments) {
  Value result = evaluator.MakeNamespace();
  auto& attributes = result.ns().attributes;
  if (arguments.positional.size() > 1) Fail("namespace() takes at most one mapping");
  if (!arguments.positional.empty()) {
    if (!arguments.positional[0].is_dict()) Fail("namespace() takes a mapping and names");
    for (const auto& [key, value] : arguments.positional[0].dict().entries())
      attributes[Str(key)] = value;
  }
  for (auto& [name, value] : arguments.named) attributes[name] = value;
  return result;
}

Value CallRange(Evaluator& evaluator, Arguments& arguments) {
  const BoundArguments bound("range", arguments, {"start", "stop", "step"});
  int64_t start = RequireInteger(bound.Require(0), "the end of range()");
  int64_t stop = start;
  if (bound.Has(1))
    stop = RequireInteger(bound.Require(1), "the end of range()");
  else
    start = 0;
  const int64_t step = bound.Integer(2, 1);
  if (step == 0) Fail("the step of range() is zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (items.size() == size_t{kMaxRange})
      Fail("range() is longer than " + std::to_string(kMaxRange));
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return evaluator.List(std::move(items), List::Flavor::kRange);
}

Value CallDict(Evaluator& evaluator, Arguments& arguments) {
  auto dict = std::make_shared<Dict>();
  if (arguments.positional.size() > 1) Fail("dict() takes at most one positional argument");
  auto set = [&](const Value& key, const Value& value) {
    evaluator.Charge();
    if (!dict->Set(key, value)) Fail("unhashable type: '" + std::string(key.TypeName()) + "'");
  };
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.is_dict()) {
      for (const auto& [key, value] : from.dict().entries()) set(key, value);
    } else {
      for (const Value& pair : evaluator.Iterate(from)) {
        const std::vector<Value> parts = evaluator.Iterate(pair);
        if (parts.size() != 2) Fail("dict() takes a mapping or pairs");
        set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) set(Value(name), value);
  return dict;
}

Value CallRaiseException(Evaluator&, Arguments& arguments) {
  const BoundArguments bound("raise_exception", arguments, {"message"});
  throw TemplateError{StatusCode::kUsage, "the chat template refuses: " + Str(bound.Require(0))};
}

Value CallStrftimeNow(Evaluator& evaluator, Arguments& arguments) {
  const BoundArguments bound("strftime_now", arguments, {"format"});
  const std::string format = RequireString(bound.Require(0), "the format of strftime_now()");
  if (format.empty()) return "";
  if (format.size() > 1024) Fail("the format of strftime_now() is longer than 1024 bytes");
  const std::time_t now = evaluator.now();
  std::tm local{};
  if (!localtime_r(&now, &local)) Fail("the clock is out of range");
  char text[16384];
  const size_t length = std::strftime(text, sizeof(text), format.c_str(), &local);
  return evaluator.String(std::string(text, length));
}

/// joiner(sep): nothing when first called, then `sep`.
Value CallJoiner(Evaluator& evaluator, Arguments& arguments) {
  const BoundArguments bound("joiner", arguments, {"sep"});
  evaluator.ChargeBytes(64);
  auto used = std::make_shared<bool>(false);
  return std::make_shared<const Callable>(
      Callable{"joiner", [used, separator = bound.Or(0, ", ")](Evaluator&, Arguments&) {
                 return std::exchange(*used, true) ? separator : Value("");
               }});
}

Value Function(const char* name, Value (*call)(Evaluator&, Arguments&)) {
  return std::make_shared<const Callable>(Callable{name, call});
}

}  // namespace

const Value* FindGlobal(std::string_view name) {
  static const std::map<std::string, Value, std::less<>> kGlobals = {
      {"namespace", Function("namespace", CallNamespace)},
      {"range", Function("range", CallRange)},
      {"dict", Function("dict", CallDict)},
      {"raise_exception", Function("raise_exception", CallRaiseException)},
      {"strftime_now", Function("strftime_now", CallStrftimeNow)},
      {"joiner", Function("joiner", CallJoiner)},
  };
  auto it = kGlobals.find(name);
  return it == kGlobals.end() ? nullptr : &it->second;
}

}  // namespace quern::jinja

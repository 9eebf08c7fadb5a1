#include "runtime/llm/template/tests.h"

#include "runtime/llm/template/arguments.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/filters.h"
#include "runtime/llm/template/operators.h"
#include "runtime/llm/template/python_string.h"
#include "runtime/llm/template/text.h"

namespace quern::jinja {
namespace {

/// A test of the value alone.
template <bool (*kHolds)(const Value&)>
bool Plain(Evaluator&, const Value& value, Arguments& arguments) {
  BoundArguments::RequireNone("the test", arguments);
  return kHolds(value);
}

/// A test that compares the value with its argument.
template <CompareOp kOp>
bool Comparison(Evaluator& evaluator, const Value& value, Arguments& arguments) {
  const BoundArguments bound("the test", arguments, {"other"});
  return Compare(evaluator, kOp, value, bound.Require(0));
}

bool IsDefined(const Value& value) { return !value.is_undefined(); }
bool IsUndefined(const Value& value) { return value.is_undefined(); }
bool IsNone(const Value& value) { return value.is_none(); }
bool IsString(const Value& value) { return value.is_string(); }
bool IsNumber(const Value& value) { return value.is_number(); }
bool IsInteger(const Value& value) { return value.is_int(); }
bool IsFloat(const Value& value) { return value.is_double(); }
bool IsBoolean(const Value& value) { return value.is_bool(); }
bool IsTrue(const Value& value) { return value.is_bool() && value.boolean(); }
bool IsFalse(const Value& value) { return value.is_bool() && !value.boolean(); }
bool IsMapping(const Value& value) { return value.is_dict(); }
bool IsCallable(const Value& value) { return value.is_callable() || value.is_undefined(); }
bool IsIterable(const Value& value) {
  return value.is_list() || value.is_dict() || value.is_string() || value.is_undefined();
}
bool IsSequence(const Value& value) {
  if (!value.is_list()) return IsIterable(value);
  return value.list().indexable();
}
bool IsLowerText(const Value& value) { return IsLower(Str(value)); }
bool IsUpperText(const Value& value) { return IsUpper(Str(value)); }
bool IsEscaped(const Value&) { return false; }

int64_t Remainder(Evaluator& evaluator, const Value& value, int64_t divisor) {
  const Value remainder = Arithmetic(evaluator, BinaryOp::kModulo, value, Value(divisor));
  if (remainder.is_integral()) return remainder.integer();
  return remainder.number() == 0 ? 0 : remainder.number() == 1 ? 1 : -1;
}

bool IsEven(Evaluator& evaluator, const Value& value, Arguments&) {
  return Remainder(evaluator, value, 2) == 0;
}
bool IsOdd(Evaluator& evaluator, const Value& value, Arguments&) {
  return Remainder(evaluator, value, 2) == 1;
}
bool IsDivisibleBy(Evaluator& evaluator, const Value& value, Arguments& arguments) {
  const BoundArguments bound("divisibleby", arguments, {"num"});
  return Remainder(evaluator, value, RequireInteger(bound.Require(0), "the divisor")) == 0;
}
bool IsSameAs(Evaluator&, const Value& value, Arguments& arguments) {
  return value.SameAs(BoundArguments("sameas", arguments, {"other"}).Require(0));
}
bool IsFilter(Evaluator&, const Value& value, Arguments&) {
  return value.is_string() && FindFilter(value.string());
}
bool IsTest(Evaluator&, const Value& value, Arguments&) {
  return value.is_string() && FindTest(value.string());
}

constexpr TestEntry kTests[] = {
    {"!=", Comparison<CompareOp::kNotEqual>},
    {"<", Comparison<CompareOp::kLess>},
    {"<=", Comparison<CompareOp::kLessEqual>},
    {"==", Comparison<CompareOp::kEqual>},
    {">", Comparison<CompareOp::kGreater>},
    {">=", Comparison<CompareOp::kGreaterEqual>},
    {"boolean", Plain<IsBoolean>},
    {"callable", Plain<IsCallable>},
    {"defined", Plain<IsDefined>},
    {"divisibleby", IsDivisibleBy},
    {"eq", Comparison<CompareOp::kEqual>},
    {"equalto", Comparison<CompareOp::kEqual>},
    {"escaped", Plain<IsEscaped>},
    {"even", IsEven},
    {"false", Plain<IsFalse>},
    {"filter", IsFilter},
    {"float", Plain<IsFloat>},
    {"ge", Comparison<CompareOp::kGreaterEqual>},
    {"greaterthan", Comparison<CompareOp::kGreater>},
    {"gt", Comparison<CompareOp::kGreater>},
    {"in", Comparison<CompareOp::kIn>},
    {"integer", Plain<IsInteger>},
    {"iterable", Plain<IsIterable>},
    {"le", Comparison<CompareOp::kLessEqual>},
    {"lessthan", Comparison<CompareOp::kLess>},
    {"lower", Plain<IsLowerText>},
    {"lt", Comparison<CompareOp::kLess>},
    {"mapping", Plain<IsMapping>},
    {"ne", Comparison<CompareOp::kNotEqual>},
    {"none", Plain<IsNone>},
    {"number", Plain<IsNumber>},
    {"odd", IsOdd},
    {"sameas", IsSameAs},
    {"sequence", Plain<IsSequence>},
    {"string", Plain<IsString>},
    {"test", IsTest},
    {"true", Plain<IsTrue>},
    {"undefined", Plain<IsUndefined>},
    {"upper", Plain<IsUpperText>},
};

}  // namespace

const TestEntry* FindTest(std::string_view name) {
  for (const TestEntry& entry : kTests)
    if (entry.name == name) return &entry;
  return nullptr;
}

}  // namespace quern::jinja

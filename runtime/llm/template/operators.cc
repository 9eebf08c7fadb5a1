#include "runtime/llm/template/operators.h"

#include <algorithm>
#include <cmath>

#include "runtime/llm/template/error.h"
#include "runtime/llm/template/format.h"
#include "runtime/llm/template/text.h"
#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

[[noreturn]] void FailOverflow() { FailUnsupported("an integer grows beyond 64 bits"); }

[[noreturn]] void FailOperands(std::string_view op, const Value& a, const Value& b) {
  Fail("unsupported operand types for " + std::string(op) + ": '" + std::string(a.TypeName()) +
       "' and '" + std::string(b.TypeName()) + "'");
}

constexpr std::string_view kBinaryNames[] = {"+", "-", "*", "/", "//", "%", "**"};

int64_t IntegerPower(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) FailOverflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) FailOverflow();
  }
  return result;
}

int64_t FloorDivide(int64_t a, int64_t b) {
  if (b == 0) Fail("integer division or modulo by zero");
  if (b == -1) {
    int64_t negated = 0;
    if (__builtin_sub_overflow(int64_t{0}, a, &negated)) FailOverflow();
    return negated;
  }
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

Value IntegerArithmetic(BinaryOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case BinaryOp::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case BinaryOp::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case BinaryOp::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case BinaryOp::kDivide:
      if (b == 0) Fail("division by zero");
      return static_cast<double>(a) / static_cast<double>(b);
    case BinaryOp::kFloorDivide:
      return FloorDivide(a, b);
    case BinaryOp::kModulo:
      return b == -1 ? int64_t{0} : a - FloorDivide(a, b) * b;
    case BinaryOp::kPower:
      if (b < 0) {
        if (a == 0) Fail("0 cannot be raised to a negative power");
        return std::pow(static_cast<double>(a), static_cast<double>(b));
      }
      return IntegerPower(a, b);
  }
  if (overflow) FailOverflow();
  return result;
}

Value FloatArithmetic(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::kAdd:
      return a + b;
    case BinaryOp::kSubtract:
      return a - b;
    case BinaryOp::kMultiply:
      return a * b;
    case BinaryOp::kPower:
      return std::pow(a, b);
    case BinaryOp::kDivide:
    case BinaryOp::kFloorDivide:
    case BinaryOp::kModulo:
      break;
  }
  if (b == 0) Fail("float division or modulo by zero");
  if (op == BinaryOp::kDivide) return a / b;
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == BinaryOp::kModulo) return remainder;
  return std::floor((a - remainder) / b + 0.5);
}

Value Repeat(Evaluator& evaluator, const Value& sequence, int64_t times) {
  const auto count = static_cast<uint64_t>(std::max<int64_t>(times, 0));
  if (sequence.is_string()) {
    const std::string& text = sequence.string();
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(count, uint64_t{text.size()}, &bytes)) bytes = UINT64_MAX;
    evaluator.ChargeBytes(bytes);
    std::string result;
    result.reserve(bytes);
    for (uint64_t i = 0; i < count && !text.empty(); ++i) result += text;
    return result;
  }
  const std::vector<Value>& items = sequence.list().items();
  uint64_t total = 0;
  if (__builtin_mul_overflow(count, uint64_t{items.size()}, &total)) total = UINT64_MAX;
  evaluator.Charge(total);
  std::vector<Value> result;
  for (uint64_t i = 0; i < count && !items.empty(); ++i)
    result.insert(result.end(), items.begin(), items.end());
  return evaluator.List(std::move(result), sequence.list().flavor());
}

bool IsSequence(const Value& value) {
  return value.is_list() && value.list().flavor() <= List::Flavor::kTuple;
}

std::vector<int64_t> SliceIndices(int64_t length, const Value& start, const Value& stop,
                                  const Value& step) {
  const int64_t by = step.is_none() ? 1 : RequireInteger(step, "slice step");
  if (by == 0) Fail("slice step cannot be zero");
  const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? length : length - 1;
  auto place = [&](const Value& at, int64_t otherwise) {
    if (at.is_none()) return otherwise;
    int64_t index = RequireInteger(at, "slice index");
    if (index < 0) index = index < -length ? low : index + length;
    return std::clamp(index, low, high);
  };
  const int64_t begin = place(start, by > 0 ? low : high);
  const int64_t end = place(stop, by > 0 ? high : low);
  std::vector<int64_t> indices;
  if (by > 0)
    for (int64_t i = begin; i<end; i = by> end - i ? end : i + by) indices.push_back(i);
  else
    for (int64_t i = begin; i > end; i = by < end - i ? end : i + by) indices.push_back(i);
  return indices;
}

}  // namespace

void RequireDefined(const Value& value) {
  if (value.is_undefined()) Fail(*value.undefined().what);
}

int64_t RequireInteger(const Value& value, std::string_view what) {
  RequireDefined(value);
  if (!value.is_integral())
    Fail(std::string(what) + " is of type '" + std::string(value.TypeName()) +
         "', expected an integer");
  return value.integer();
}

const std::string& RequireString(const Value& value, std::string_view what) {
  RequireDefined(value);
  if (!value.is_string())
    Fail(std::string(what) + " is of type '" + std::string(value.TypeName()) +
         "', expected a string");
  return value.string();
}

bool Truthy(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return false;
    case Value::Kind::kBool:
      return value.boolean();
    case Value::Kind::kInt:
      return value.integer() != 0;
    case Value::Kind::kDouble:
      return value.number() != 0;
    case Value::Kind::kString:
      return !value.string().empty();
    case Value::Kind::kList:
      return value.list().flavor() == List::Flavor::kIterator || !value.list().items().empty();
    case Value::Kind::kDict:
      return value.dict().size() > 0;
    case Value::Kind::kNamespace:
    case Value::Kind::kCallable:
      return true;
  }
  return false;
}

bool Equals(Evaluator& evaluator, const Value& a, const Value& b) {
  evaluator.Charge();
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kUndefined:
      return true;
    case Value::Kind::kString:
      return a.string() == b.string();
    case Value::Kind::kList: {
      if (!IsSequence(a) || !IsSequence(b)) return a.SameAs(b);
      const auto& left = a.list().items();
      const auto& right = b.list().items();
      return a.list().flavor() == b.list().flavor() &&
             std::equal(left.begin(), left.end(), right.begin(), right.end(),
                        [&](const Value& x, const Value& y) { return Equals(evaluator, x, y); });
    }
    case Value::Kind::kDict: {
      if (a.dict().size() != b.dict().size()) return false;
      for (const auto& [key, value] : a.dict().entries()) {
        const Value* other = b.dict().Find(key);
        if (!other || !Equals(evaluator, value, *other)) return false;
      }
      return true;
    }
    default:
      return a.SameAs(b);
  }
}

int Order(Evaluator& evaluator, const Value& a, const Value& b) {
  evaluator.Charge();
  RequireDefined(a);
  RequireDefined(b);
  auto three_way = [](auto x, auto y) { return x < y ? -1 : x > y ? 1 : 0; };
  if (a.is_integral() && b.is_integral()) return three_way(a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return three_way(a.number(), b.number());
  if (a.is_string() && b.is_string()) return a.string().compare(b.string());
  if (IsSequence(a) && IsSequence(b) && a.list().flavor() == b.list().flavor()) {
    const auto& left = a.list().items();
    const auto& right = b.list().items();
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i)
      if (!Equals(evaluator, left[i], right[i])) return Order(evaluator, left[i], right[i]);
    return three_way(left.size(), right.size());
  }
  Fail("'" + std::string(a.TypeName()) + "' and '" + std::string(b.TypeName()) + "' have no order");
}

bool Compare(Evaluator& evaluator, CompareOp op, const Value& a, const Value& b) {
  const bool nan = a.is_number() && b.is_number() && std::isnan(a.number() + b.number()) &&
                   (std::isnan(a.number()) || std::isnan(b.number()));
  switch (op) {
    case CompareOp::kEqual:
      return Equals(evaluator, a, b);
    case CompareOp::kNotEqual:
      return !Equals(evaluator, a, b);
    case CompareOp::kLess:
      return !nan && Order(evaluator, a, b) < 0;
    case CompareOp::kLessEqual:
      return !nan && Order(evaluator, a, b) <= 0;
    case CompareOp::kGreater:
      return !nan && Order(evaluator, a, b) > 0;
    case CompareOp::kGreaterEqual:
      return !nan && Order(evaluator, a, b) >= 0;
    case CompareOp::kIn:
      return Contains(evaluator, b, a);
    case CompareOp::kNotIn:
      return !Contains(evaluator, b, a);
  }
  return false;
}

bool Contains(Evaluator& evaluator, const Value& container, const Value& item) {
  if (container.is_string()) {
    const std::string& text = container.string();
    evaluator.Charge(text.size() / 64);
    return text.find(RequireString(item, "what is looked for in a string")) != std::string::npos;
  }
  if (container.is_dict()) {
    if (item.is_dict() || IsSequence(item)) {
      if (item.is_dict() || item.list().flavor() == List::Flavor::kList)
        Fail("unhashable type: '" + std::string(item.TypeName()) + "'");
    }
    return container.dict().Find(item) != nullptr;
  }
  for (const Value& element : evaluator.Iterate(container))
    if (Equals(evaluator, element, item)) return true;
  return false;
}

Value Arithmetic(Evaluator& evaluator, BinaryOp op, const Value& a, const Value& b) {
  RequireDefined(a);
  if (op == BinaryOp::kModulo && a.is_string()) return FormatPercent(evaluator, a.string(), b);
  RequireDefined(b);
  if (a.is_integral() && b.is_integral()) return IntegerArithmetic(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return FloatArithmetic(op, a.number(), b.number());
  if (op == BinaryOp::kAdd) {
    if (a.is_string() && b.is_string()) {
      evaluator.ChargeBytes(a.string().size() + b.string().size());
      return a.string() + b.string();
    }
    if (IsSequence(a) && IsSequence(b) && a.list().flavor() == b.list().flavor()) {
      std::vector<Value> items = a.list().items();
      items.insert(items.end(), b.list().items().begin(), b.list().items().end());
      return evaluator.List(std::move(items), a.list().flavor());
    }
  }
  if (op == BinaryOp::kMultiply) {
    if ((a.is_string() || IsSequence(a)) && b.is_integral())
      return Repeat(evaluator, a, b.integer());
    if (a.is_integral() && (b.is_string() || IsSequence(b)))
      return Repeat(evaluator, b, a.integer());
  }
  FailOperands(kBinaryNames[static_cast<size_t>(op)], a, b);
}

Value Negate(const Value& value) {
  RequireDefined(value);
  if (value.is_integral()) return IntegerArithmetic(BinaryOp::kSubtract, 0, value.integer());
  if (value.is_double()) return -value.number();
  Fail("bad operand type for unary -: '" + std::string(value.TypeName()) + "'");
}

int64_t Length(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return 0;
    case Value::Kind::kString:
      return static_cast<int64_t>(utf8::Length(value.string()));
    case Value::Kind::kDict:
      return static_cast<int64_t>(value.dict().size());
    case Value::Kind::kList:
      if (value.list().flavor() != List::Flavor::kIterator)
        return static_cast<int64_t>(value.list().items().size());
      break;
    default:
      break;
  }
  Fail("object of type '" + std::string(value.TypeName()) + "' has no length");
}

Value Slice(Evaluator& evaluator, const Value& object, const Value& start, const Value& stop,
            const Value& step) {
  RequireDefined(object);
  if (object.is_string()) {
    evaluator.ChargeBytes(object.string().size());
    const std::u32string text = utf8::Decode(object.string());
    std::u32string result;
    for (const int64_t i : SliceIndices(static_cast<int64_t>(text.size()), start, stop, step))
      result += text[static_cast<size_t>(i)];
    return utf8::Encode(result);
  }
  if (object.is_list() && object.list().indexable()) {
    const std::vector<Value>& items = object.list().items();
    std::vector<Value> result;
    for (const int64_t i : SliceIndices(static_cast<int64_t>(items.size()), start, stop, step))
      result.push_back(items[static_cast<size_t>(i)]);
    return evaluator.List(std::move(result), object.list().flavor());
  }
  return Undefined{std::make_shared<const std::string>("'" + std::string(object.TypeName()) +
                                                       " object' cannot be sliced")};
}

}  // namespace quern::jinja

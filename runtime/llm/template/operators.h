// Python's operators on values.
#pragma once

#include "runtime/llm/template/ast.h"
#include "runtime/llm/template/evaluator.h"

namespace quern::jinja {

bool Truthy(const Value& value);
bool Equals(Evaluator& evaluator, const Value& a, const Value& b);
/// Negative, zero or positive. Fails for what has no order.
int Order(Evaluator& evaluator, const Value& a, const Value& b);
bool Compare(Evaluator& evaluator, CompareOp op, const Value& a, const Value& b);
bool Contains(Evaluator& evaluator, const Value& container, const Value& item);
Value Arithmetic(Evaluator& evaluator, BinaryOp op, const Value& a, const Value& b);
Value Negate(const Value& value);
/// len(). Fails for what has no length.
int64_t Length(const Value& value);
/// `object[start:stop:step]`; none for a part that is left out.
Value Slice(Evaluator& evaluator, const Value& object, const Value& start, const Value& stop,
            const Value& step);

/// Fails when `value` is undefined.
void RequireDefined(const Value& value);
/// An integer argument. Fails with `what` in the message.
int64_t RequireInteger(const Value& value, std::string_view what);
const std::string& RequireString(const Value& value, std::string_view what);

}  // namespace quern::jinja

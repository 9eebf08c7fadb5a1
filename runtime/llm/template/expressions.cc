#include "runtime/llm/template/depth.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/evaluator.h"
#include "runtime/llm/template/filters.h"
#include "runtime/llm/template/functions.h"
#include "runtime/llm/template/operators.h"
#include "runtime/llm/template/tests.h"
#include "runtime/llm/template/text.h"

namespace quern::jinja {

Value Evaluator::Evaluate(const Expr& expr) {
  const Depth depth(*this);
  try {
    Charge();
    return std::visit([this](const auto& node) { return Evaluate(node); }, expr.node);
  } catch (TemplateError& error) {
    if (error.line == 0) error.line = expr.line;
    throw;
  }
}

Value Evaluator::Evaluate(const NameExpr& node) {
  for (const Scope* scope = scope_.get(); scope; scope = scope->parent.get()) {
    auto it = scope->variables.find(node.name);
    if (it != scope->variables.end()) return it->second;
  }
  if (const Value* value = context_.Find(std::string_view(node.name))) return *value;
  if (const Value* value = FindGlobal(node.name)) return *value;
  return Undefined{std::make_shared<const std::string>("'" + node.name + "' is undefined")};
}

Value Evaluator::Evaluate(const ListExpr& node) {
  std::vector<Value> items;
  for (const ExprPtr& item : node.items) items.push_back(Evaluate(*item));
  return List(std::move(items), node.is_tuple ? List::Flavor::kTuple : List::Flavor::kList);
}

Value Evaluator::Evaluate(const DictExpr& node) {
  auto dict = std::make_shared<Dict>();
  for (const auto& [key_expr, value_expr] : node.entries) {
    const Value key = Evaluate(*key_expr);
    Charge(8);
    if (!dict->Set(key, Evaluate(*value_expr)))
      Fail("unhashable type: '" + std::string(key.TypeName()) + "'");
  }
  return dict;
}

Value Evaluator::Evaluate(const AttributeExpr& node) {
  return GetAttribute(Evaluate(*node.object), node.name);
}

Value Evaluator::Evaluate(const IndexExpr& node) {
  const Value object = Evaluate(*node.object);
  return GetItem(object, Evaluate(*node.index));
}

Value Evaluator::Evaluate(const SliceExpr& node) {
  const Value object = Evaluate(*node.object);
  auto part = [this](const ExprPtr& expr) { return expr ? Evaluate(*expr) : Value(None{}); };
  const Value start = part(node.start), stop = part(node.stop), step = part(node.step);
  return Slice(*this, object, start, stop, step);
}

Arguments Evaluator::EvaluateArguments(const CallArguments& arguments) {
  Arguments result;
  for (const ExprPtr& expr : arguments.positional) result.positional.push_back(Evaluate(*expr));
  for (const auto& [name, expr] : arguments.named) result.named.emplace_back(name, Evaluate(*expr));
  if (arguments.star)
    for (Value& item : Iterate(Evaluate(*arguments.star)))
      result.positional.push_back(std::move(item));
  if (arguments.double_star) {
    const Value named = Evaluate(*arguments.double_star);
    if (!named.is_dict()) Fail("** in a call needs a mapping");
    for (const auto& [key, value] : named.dict().entries())
      result.named.emplace_back(RequireString(key, "a name in **"), value);
  }
  Charge(result.positional.size() + result.named.size());
  return result;
}

Value Evaluator::Evaluate(const CallExpr& node) {
  const Value callee = Evaluate(*node.callee);
  return Call(callee, EvaluateArguments(node.arguments));
}

Value Evaluator::Evaluate(const FilterExpr& node) {
  const Value input = node.object ? Evaluate(*node.object) : Value(*block_text_);
  if (!node.filter) FailUnsupported("the filter '" + node.name + "' is not supported");
  Arguments arguments = EvaluateArguments(node.arguments);
  return node.filter->apply(*this, input, arguments);
}

Value Evaluator::Evaluate(const TestExpr& node) {
  const Value value = Evaluate(*node.object);
  if (!node.test) FailUnsupported("the test '" + node.name + "' is not supported");
  Arguments arguments = EvaluateArguments(node.arguments);
  return node.test->holds(*this, value, arguments);
}

Value Evaluator::Evaluate(const UnaryExpr& node) {
  const Value value = Evaluate(*node.operand);
  switch (node.op) {
    case UnaryOp::kNot:
      return !Truthy(value);
    case UnaryOp::kNegate:
      return Negate(value);
    case UnaryOp::kPlus:
      RequireDefined(value);
      if (!value.is_number())
        Fail("bad operand type for unary +: '" + std::string(value.TypeName()) + "'");
      return value.is_bool() ? Value(value.integer()) : value;
  }
  return value;
}

Value Evaluator::Evaluate(const BinaryExpr& node) {
  const Value left = Evaluate(*node.left);
  return Arithmetic(*this, node.op, left, Evaluate(*node.right));
}

Value Evaluator::Evaluate(const LogicalExpr& node) {
  Value left = Evaluate(*node.left);
  return Truthy(left) == node.is_or ? left : Evaluate(*node.right);
}

Value Evaluator::Evaluate(const CompareExpr& node) {
  Value left = Evaluate(*node.first);
  for (const auto& [op, expr] : node.rest) {
    Value right = Evaluate(*expr);
    if (!Compare(*this, op, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Evaluator::Evaluate(const ConcatExpr& node) {
  std::string text;
  for (const ExprPtr& part : node.parts) {
    const Value value = Evaluate(*part);
    if (value.is_string()) {
      ChargeBytes(value.string().size());
      text += value.string();
    } else {
      text += Text(value);
    }
  }
  return text;
}

Value Evaluator::Evaluate(const ConditionalExpr& node) {
  if (Truthy(Evaluate(*node.condition))) return Evaluate(*node.then);
  if (node.otherwise) return Evaluate(*node.otherwise);
  return Undefined{std::make_shared<const std::string>(
      "the inline if-expression evaluated to false and has no else")};
}

}  // namespace quern::jinja

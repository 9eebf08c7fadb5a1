// Runs the tree of a template.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/llm/template/ast.h"
#include "runtime/llm/template/template.h"
#include "runtime/llm/template/value.h"

namespace quern::jinja {

/// Variables of one block. Looking up goes outwards, assigning stays inside.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::unordered_map<std::string, Value> variables;
};

/// One rendering. Everything that costs time or memory is charged against the limits. All
/// functions throw TemplateError.
class Evaluator {
 public:
  Evaluator(const Dict& context, const Limits& limits, int64_t now)
      : context_(context), limits_(limits), now_(now) {}
  ~Evaluator();
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  std::string Run(const Ast& ast);

  // Accounting. Charge before doing.
  void Charge(uint64_t steps = 1);
  void ChargeBytes(uint64_t bytes);
  /// A string value, charged.
  Value String(std::string text);
  Value List(std::vector<Value> items, List::Flavor flavor = jinja::List::Flavor::kList);
  /// Str(), charged.
  std::string Text(const Value& value);

  // What filters, tests, methods and functions need of the language.
  Value Call(const Value& callee, Arguments arguments);
  Value CallFilter(std::string_view name, Value input, Arguments arguments);
  bool CallTest(std::string_view name, const Value& value, Arguments arguments);
  /// `object.name`
  Value GetAttribute(const Value& object, std::string_view name);
  /// `object[key]`
  Value GetItem(const Value& object, const Value& key);
  /// `a.b.0` as the `attribute=` of filters; missing ones are undefined.
  Value GetPath(const Value& object, std::string_view path);
  /// The items that a loop over `value` sees.
  std::vector<Value> Iterate(const Value& value);
  Value MakeNamespace();
  int64_t now() const { return now_; }

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  class Depth;

  // statements.cc
  Flow Execute(const Body& body);
  Flow Execute(const TextStatement& node);
  Flow Execute(const OutputStatement& node);
  Flow Execute(const IfStatement& node);
  Flow Execute(const ForStatement& node);
  Flow Execute(const SetStatement& node);
  Flow Execute(const SetBlockStatement& node);
  Flow Execute(const MacroStatement& node);
  Flow Execute(const CallStatement& node);
  Flow Execute(const FilterStatement& node);
  Flow Execute(const ScopeStatement& node);
  Flow Execute(const BreakStatement&) { return Flow::kBreak; }
  Flow Execute(const ContinueStatement&) { return Flow::kContinue; }
  std::vector<Value> FilteredItems(const ForStatement& node);
  Value MakeLoop(std::shared_ptr<const std::vector<Value>> items,
                 std::shared_ptr<const size_t> index);
  /// What `body` writes, in a scope of its own.
  std::string Capture(const Body& body);
  void Assign(const Target& target, const Value& value);
  Value MakeMacro(std::shared_ptr<const MacroDefinition> macro);
  Value RunMacro(const MacroDefinition& macro, const std::shared_ptr<Scope>& scope,
                 Arguments& arguments);
  void BindParameters(const MacroDefinition& macro, Arguments& arguments);
  void Write(std::string_view text);

  // expressions.cc
  Value Evaluate(const Expr& expr);
  Value Evaluate(const LiteralExpr& node) { return node.value; }
  Value Evaluate(const NameExpr& node);
  Value Evaluate(const ListExpr& node);
  Value Evaluate(const DictExpr& node);
  Value Evaluate(const AttributeExpr& node);
  Value Evaluate(const IndexExpr& node);
  Value Evaluate(const SliceExpr& node);
  Value Evaluate(const CallExpr& node);
  Value Evaluate(const FilterExpr& node);
  Value Evaluate(const TestExpr& node);
  Value Evaluate(const UnaryExpr& node);
  Value Evaluate(const BinaryExpr& node);
  Value Evaluate(const LogicalExpr& node);
  Value Evaluate(const CompareExpr& node);
  Value Evaluate(const ConcatExpr& node);
  Value Evaluate(const ConditionalExpr& node);
  Arguments EvaluateArguments(const CallArguments& arguments);

  const Dict& context_;
  const Limits& limits_;
  const int64_t now_;
  uint64_t steps_ = 0;
  uint64_t string_bytes_ = 0;
  int depth_ = 0;
  std::shared_ptr<Scope> scope_;
  std::string* out_ = nullptr;
  const std::string* block_text_ = nullptr;  // of the filter block that is running
  // Macros refer to the scopes that hold them, and namespaces may refer to each other: kept here
  // so that these circles can be cut at the end.
  std::vector<std::shared_ptr<Scope>> captured_scopes_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace quern::jinja

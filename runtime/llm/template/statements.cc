#include <algorithm>

#include "runtime/llm/template/depth.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/evaluator.h"
#include "runtime/llm/template/operators.h"
#include "runtime/llm/template/text.h"

namespace quern::jinja {
namespace {

/// Sets a variable of the evaluator for as long as it lives.
template <typename T>
class Restore {
 public:
  Restore(T& place, T value) : place_(place), old_(std::exchange(place, std::move(value))) {}
  ~Restore() { place_ = std::move(old_); }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T& place_;
  T old_;
};

std::shared_ptr<Scope> Inside(const std::shared_ptr<Scope>& parent) {
  return std::make_shared<Scope>(Scope{parent, {}});
}

}  // namespace

Evaluator::~Evaluator() {
  for (const auto& ns : namespaces_) ns->attributes.clear();
  for (const auto& scope : captured_scopes_) scope->variables.clear();
}

std::string Evaluator::Run(const Ast& ast) {
  std::string output;
  out_ = &output;
  scope_ = Inside(nullptr);
  Execute(ast.body);
  if (output.size() > limits_.max_output_bytes)
    Fail("the rendered text is longer than " + std::to_string(limits_.max_output_bytes) + " bytes");
  return output;
}

Evaluator::Flow Evaluator::Execute(const Body& body) {
  const Depth depth(*this);
  for (const Statement& statement : body) {
    try {
      Charge();
      const Flow flow =
          std::visit([this](const auto& node) { return Execute(node); }, statement.node);
      if (flow != Flow::kNormal) return flow;
    } catch (TemplateError& error) {
      if (error.line == 0) error.line = statement.line;
      throw;
    }
  }
  return Flow::kNormal;
}

void Evaluator::Write(std::string_view text) {
  if (out_->size() + text.size() > limits_.max_output_bytes)
    Fail("the rendered text is longer than " + std::to_string(limits_.max_output_bytes) + " bytes");
  out_->append(text);
}

Evaluator::Flow Evaluator::Execute(const TextStatement& node) {
  Write(node.text);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::Execute(const OutputStatement& node) {
  const Value value = Evaluate(*node.value);
  if (value.is_string())
    Write(value.string());
  else
    Write(Text(value));
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::Execute(const IfStatement& node) {
  for (const auto& [condition, body] : node.branches)
    if (Truthy(Evaluate(*condition))) return Execute(body);
  return Execute(node.otherwise);
}

/// The items a loop runs over: those of its iterable that pass its condition.
std::vector<Value> Evaluator::FilteredItems(const ForStatement& node) {
  std::vector<Value> items = Iterate(Evaluate(*node.iterable));
  if (!node.condition) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    const Restore scope(scope_, Inside(scope_));
    Assign(node.target, item);
    if (Truthy(Evaluate(*node.condition))) kept.push_back(std::move(item));
  }
  return kept;
}

Evaluator::Flow Evaluator::Execute(const ForStatement& node) {
  const auto items = std::make_shared<const std::vector<Value>>(FilteredItems(node));
  const auto index = std::make_shared<size_t>(0);
  // jinja2 takes `else` unless some turn came to the end of the body.
  bool completed = false;
  const Value loop = MakeLoop(items, index);
  // A loop that was kept beyond its end has no attributes; so it cannot keep itself alive.
  const std::shared_ptr<void> end(nullptr, [&loop](void*) {
    loop.ns().computed = [](std::string_view) { return std::nullopt; };
  });
  for (; *index < items->size(); ++*index) {
    const Restore scope(scope_, Inside(scope_));
    scope_->variables["loop"] = loop;
    Assign(node.target, (*items)[*index]);
    const Flow flow = Execute(node.body);
    if (flow == Flow::kBreak) break;
    completed |= flow == Flow::kNormal;
  }
  if (completed) return Flow::kNormal;
  const Restore scope(scope_, Inside(scope_));
  return Execute(node.otherwise);
}

Value Evaluator::MakeLoop(std::shared_ptr<const std::vector<Value>> items,
                          std::shared_ptr<const size_t> index) {
  Charge(8);
  Value loop = std::make_shared<Namespace>();
  auto changed = std::make_shared<std::optional<std::vector<Value>>>();
  loop.ns().computed = [items, index, changed](std::string_view name) -> std::optional<Value> {
    const size_t at = *index, length = items->size();
    if (name == "index") return Value(int64_t(at) + 1);
    if (name == "index0") return Value(int64_t(at));
    if (name == "revindex") return Value(int64_t(length - at));
    if (name == "revindex0") return Value(int64_t(length - at) - 1);
    if (name == "first") return Value(at == 0);
    if (name == "last") return Value(at + 1 == length);
    if (name == "length") return Value(int64_t(length));
    if (name == "depth") return Value(int64_t{1});
    if (name == "depth0") return Value(int64_t{0});
    if (name == "previtem" || name == "nextitem") {
      const size_t neighbour = name == "nextitem" ? at + 1 : at - 1;
      if (neighbour < length) return (*items)[neighbour];
      return Value(Undefined{std::make_shared<const std::string>(
          name == "nextitem" ? "there is no next item" : "there is no previous item")});
    }
    if (name == "cycle")
      return Value(std::make_shared<const Callable>(
          Callable{"cycle", [index](Evaluator&, Arguments& arguments) {
                     if (arguments.positional.empty()) Fail("no items for cycling given");
                     return arguments.positional[*index % arguments.positional.size()];
                   }}));
    if (name == "changed")
      return Value(std::make_shared<const Callable>(Callable{
          "changed", [changed](Evaluator& evaluator, Arguments& arguments) {
            const std::vector<Value>& now = arguments.positional;
            const bool same =
                changed->has_value() &&
                std::equal(now.begin(), now.end(), (*changed)->begin(), (*changed)->end(),
                           [&](const Value& a, const Value& b) { return Equals(evaluator, a, b); });
            *changed = now;
            return Value(!same);
          }}));
    return std::nullopt;
  };
  return loop;
}

Evaluator::Flow Evaluator::Execute(const SetStatement& node) {
  Assign(node.target, Evaluate(*node.value));
  return Flow::kNormal;
}

std::string Evaluator::Capture(const Body& body) {
  std::string text;
  {
    const Restore scope(scope_, Inside(scope_));
    const Restore out(out_, &text);
    Execute(body);
  }
  ChargeBytes(text.size());
  return text;
}

Evaluator::Flow Evaluator::Execute(const SetBlockStatement& node) {
  std::string text = Capture(node.body);
  if (!node.filter) {
    Assign(node.target, Value(std::move(text)));
  } else {
    const Restore<const std::string*> block(block_text_, &text);
    Assign(node.target, Evaluate(*node.filter));
  }
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::Execute(const FilterStatement& node) {
  const std::string text = Capture(node.body);
  const Restore<const std::string*> block(block_text_, &text);
  Write(Text(Evaluate(*node.filter)));
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::Execute(const ScopeStatement& node) {
  auto inside = Inside(scope_);
  std::vector<Value> values;
  for (const auto& assignment : node.assignments) values.push_back(Evaluate(*assignment.second));
  const Restore scope(scope_, std::move(inside));
  for (size_t i = 0; i < values.size(); ++i) Assign(node.assignments[i].first, values[i]);
  return Execute(node.body);
}

Evaluator::Flow Evaluator::Execute(const MacroStatement& node) {
  scope_->variables[node.macro->name] = MakeMacro(node.macro);
  return Flow::kNormal;
}

Evaluator::Flow Evaluator::Execute(const CallStatement& node) {
  const auto& call = std::get<CallExpr>(node.call->node);
  const Value callee = Evaluate(*call.callee);
  Arguments arguments = EvaluateArguments(call.arguments);
  arguments.named.emplace_back("caller", MakeMacro(node.caller));
  Write(Text(Call(callee, std::move(arguments))));
  return Flow::kNormal;
}

void Evaluator::Assign(const Target& target, const Value& value) {
  if (!target.parts.empty()) {
    const std::vector<Value> items = Iterate(value);
    if (items.size() != target.parts.size())
      Fail("cannot unpack " + std::to_string(items.size()) + " values into " +
           std::to_string(target.parts.size()) + " names");
    for (size_t i = 0; i < items.size(); ++i) Assign(target.parts[i], items[i]);
    return;
  }
  if (target.attribute.empty()) {
    scope_->variables[target.name] = value;
    return;
  }
  const Value object = Evaluate(NameExpr{target.name});
  RequireDefined(object);
  if (!object.is_namespace() || object.ns().computed)
    Fail("cannot assign attribute on non-namespace object '" + target.name + "'");
  object.ns().attributes[target.attribute] = value;
}

Value Evaluator::MakeMacro(std::shared_ptr<const MacroDefinition> macro) {
  if (captured_scopes_.empty() || captured_scopes_.back() != scope_)
    captured_scopes_.push_back(scope_);
  ChargeBytes(256);
  return std::make_shared<const Callable>(
      Callable{macro->name, [macro, scope = scope_](Evaluator& evaluator, Arguments& arguments) {
                 return evaluator.RunMacro(*macro, scope, arguments);
               }});
}

Value Evaluator::RunMacro(const MacroDefinition& macro, const std::shared_ptr<Scope>& scope,
                          Arguments& arguments) {
  std::string text;
  {
    const Restore inside(scope_, Inside(scope));
    const Restore out(out_, &text);
    BindParameters(macro, arguments);
    Execute(macro.body);
  }
  return String(std::move(text));
}

/// Binds as jinja2's Macro does: positional, then named, then defaults; what is left over goes to
/// varargs and kwargs where the body names them, and is an error where not.
void Evaluator::BindParameters(const MacroDefinition& macro, Arguments& arguments) {
  auto take_named = [&](std::string_view name) -> std::optional<Value> {
    auto it = std::find_if(arguments.named.begin(), arguments.named.end(),
                           [&](const auto& named) { return named.first == name; });
    if (it == arguments.named.end()) return std::nullopt;
    Value value = std::move(it->second);
    arguments.named.erase(it);
    return value;
  };
  auto& variables = scope_->variables;
  const size_t count = macro.parameters.size();
  for (size_t i = 0; i < count; ++i) {
    const MacroDefinition::Parameter& parameter = macro.parameters[i];
    std::optional<Value> value;
    if (i < arguments.positional.size())
      value = arguments.positional[i];
    else
      value = take_named(parameter.name);
    if (!value && parameter.default_value) value = Evaluate(*parameter.default_value);
    if (!value)
      value = Undefined{std::make_shared<const std::string>("parameter '" + parameter.name +
                                                            "' was not provided")};
    variables[parameter.name] = *value;
  }
  if (macro.uses_caller && !variables.contains("caller"))
    variables["caller"] = take_named("caller").value_or(
        Undefined{std::make_shared<const std::string>("No caller defined")});
  if (macro.uses_kwargs) {
    auto rest = std::make_shared<Dict>();
    for (const auto& [name, value] : arguments.named) rest->Set(Value(name), value);
    variables["kwargs"] = Value(std::move(rest));
  } else if (!arguments.named.empty()) {
    Fail("macro '" + macro.name + "' takes no keyword argument '" + arguments.named[0].first + "'");
  }
  std::vector<Value> extra;
  for (size_t i = count; i < arguments.positional.size(); ++i)
    extra.push_back(arguments.positional[i]);
  if (macro.uses_varargs)
    variables["varargs"] = List(std::move(extra), List::Flavor::kTuple);
  else if (!extra.empty())
    Fail("macro '" + macro.name + "' takes not more than " + std::to_string(count) +
         " argument(s)");
}

}  // namespace quern::jinja

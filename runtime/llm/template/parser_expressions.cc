#include <algorithm>

#include "runtime/llm/template/error.h"
#include "runtime/llm/template/filters.h"
#include "runtime/llm/template/nesting.h"
#include "runtime/llm/template/parser.h"
#include "runtime/llm/template/tests.h"

namespace quern::jinja {
namespace {

// The depth of a node's children, for Make.
int Depth(const ExprPtr& expr) { return expr ? expr->depth : 0; }
int Depth(const std::vector<ExprPtr>& exprs) {
  int depth = 0;
  for (const ExprPtr& expr : exprs) depth = std::max(depth, Depth(expr));
  return depth;
}
int Depth(const CallArguments& arguments) {
  int depth =
      std::max({Depth(arguments.positional), Depth(arguments.star), Depth(arguments.double_star)});
  for (const auto& named : arguments.named) depth = std::max(depth, Depth(named.second));
  return depth;
}
int Below(const LiteralExpr&) { return 0; }
int Below(const NameExpr&) { return 0; }
int Below(const ListExpr& node) { return Depth(node.items); }
int Below(const DictExpr& node) {
  int depth = 0;
  for (const auto& [key, value] : node.entries) depth = std::max({depth, Depth(key), Depth(value)});
  return depth;
}
int Below(const AttributeExpr& node) { return Depth(node.object); }
int Below(const IndexExpr& node) { return std::max(Depth(node.object), Depth(node.index)); }
int Below(const SliceExpr& node) {
  return std::max({Depth(node.object), Depth(node.start), Depth(node.stop), Depth(node.step)});
}
int Below(const CallExpr& node) { return std::max(Depth(node.callee), Depth(node.arguments)); }
int Below(const FilterExpr& node) { return std::max(Depth(node.object), Depth(node.arguments)); }
int Below(const TestExpr& node) { return std::max(Depth(node.object), Depth(node.arguments)); }
int Below(const UnaryExpr& node) { return Depth(node.operand); }
int Below(const BinaryExpr& node) { return std::max(Depth(node.left), Depth(node.right)); }
int Below(const LogicalExpr& node) { return std::max(Depth(node.left), Depth(node.right)); }
int Below(const CompareExpr& node) {
  int depth = Depth(node.first);
  for (const auto& operand : node.rest) depth = std::max(depth, Depth(operand.second));
  return depth;
}
int Below(const ConcatExpr& node) { return Depth(node.parts); }
int Below(const ConditionalExpr& node) {
  return std::max({Depth(node.condition), Depth(node.then), Depth(node.otherwise)});
}

template <typename Op>
struct Operator {
  std::string_view text;
  Op op;
};
constexpr Operator<CompareOp> kCompareOps[] = {
    {"==", CompareOp::kEqual},     {"!=", CompareOp::kNotEqual}, {"<", CompareOp::kLess},
    {"<=", CompareOp::kLessEqual}, {">", CompareOp::kGreater},   {">=", CompareOp::kGreaterEqual}};
constexpr Operator<BinaryOp> kSumOps[] = {{"+", BinaryOp::kAdd}, {"-", BinaryOp::kSubtract}};
constexpr Operator<BinaryOp> kProductOps[] = {{"*", BinaryOp::kMultiply},
                                              {"/", BinaryOp::kDivide},
                                              {"//", BinaryOp::kFloorDivide},
                                              {"%", BinaryOp::kModulo}};
constexpr Operator<BinaryOp> kPowerOps[] = {{"**", BinaryOp::kPower}};

template <typename Op, size_t N>
const Op* FindOperator(const Operator<Op> (&table)[N], const Token& token) {
  if (token.kind != Token::Kind::kOperator) return nullptr;
  for (const Operator<Op>& row : table)
    if (row.text == token.text) return &row.op;
  return nullptr;
}

}  // namespace

template <typename Node>
ExprPtr Parser::Make(int line, Node node) {
  const int depth = Below(node) + 1;
  if (depth > Template::kMaxSourceDepth) Nesting::FailTooDeep(line);
  return std::make_unique<Expr>(Expr{line, depth, std::move(node)});
}

ExprPtr Parser::ParseExpression() {
  const Nesting nesting(*this);
  const size_t unknown = unknown_.size();
  ExprPtr expr = ParseOr();
  while (AtName("if")) {
    const int line = Current().line;
    ++position_;
    ExprPtr condition = ParseOr();
    ExprPtr otherwise = SkipName("else") ? ParseExpression() : nullptr;
    expr = Make(line, ConditionalExpr{std::move(condition), std::move(expr), std::move(otherwise)});
    unknown_.resize(unknown);
  }
  return expr;
}

ExprPtr Parser::ParseTuple(bool in_parentheses) {
  const int line = Current().line;
  auto at_end = [this] {
    return AtOperator(")") || Current().kind == Token::Kind::kVariableEnd ||
           Current().kind == Token::Kind::kBlockEnd;
  };
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!at_end()) {
    items.push_back(ParseExpression());
    if (!Skip(",")) break;
    is_tuple = true;
  }
  if (items.size() == 1 && !is_tuple) return std::move(items[0]);
  if (items.empty() && !in_parentheses) Unexpected("an expression");
  return Make(line, ListExpr{std::move(items), /*is_tuple=*/true});
}

ExprPtr Parser::ParseOr() {
  ExprPtr left = ParseAnd();
  while (AtName("or")) {
    const int line = Current().line;
    ++position_;
    left = Make(line, LogicalExpr{/*is_or=*/true, std::move(left), ParseAnd()});
  }
  return left;
}

ExprPtr Parser::ParseAnd() {
  ExprPtr left = ParseNot();
  while (AtName("and")) {
    const int line = Current().line;
    ++position_;
    left = Make(line, LogicalExpr{/*is_or=*/false, std::move(left), ParseNot()});
  }
  return left;
}

ExprPtr Parser::ParseNot() {
  const int line = Current().line;
  if (!SkipName("not")) return ParseCompare();
  const Nesting nesting(*this);
  return Make(line, UnaryExpr{UnaryOp::kNot, ParseNot()});
}

ExprPtr Parser::ParseCompare() {
  const int line = Current().line;
  ExprPtr first = ParseSum();
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
  for (;;) {
    if (const CompareOp* op = FindOperator(kCompareOps, Current())) {
      ++position_;
      rest.emplace_back(*op, ParseSum());
    } else if (SkipName("in")) {
      rest.emplace_back(CompareOp::kIn, ParseSum());
    } else if (AtName("not") && Next().kind == Token::Kind::kName && Next().text == "in") {
      position_ += 2;
      rest.emplace_back(CompareOp::kNotIn, ParseSum());
    } else {
      break;
    }
  }
  if (rest.empty()) return first;
  return Make(line, CompareExpr{std::move(first), std::move(rest)});
}

ExprPtr Parser::ParseSum() {
  ExprPtr left = ParseConcat();
  while (const BinaryOp* op = FindOperator(kSumOps, Current())) {
    const int line = Current().line;
    ++position_;
    left = Make(line, BinaryExpr{*op, std::move(left), ParseConcat()});
  }
  return left;
}

ExprPtr Parser::ParseConcat() {
  const int line = Current().line;
  std::vector<ExprPtr> parts;
  do parts.push_back(ParseProduct());
  while (Skip("~"));
  if (parts.size() == 1) return std::move(parts[0]);
  return Make(line, ConcatExpr{std::move(parts)});
}

ExprPtr Parser::ParseProduct() {
  ExprPtr left = ParsePower();
  while (const BinaryOp* op = FindOperator(kProductOps, Current())) {
    const int line = Current().line;
    ++position_;
    left = Make(line, BinaryExpr{*op, std::move(left), ParsePower()});
  }
  return left;
}

ExprPtr Parser::ParsePower() {
  ExprPtr left = ParseUnary(/*with_filter=*/true);
  while (const BinaryOp* op = FindOperator(kPowerOps, Current())) {
    const int line = Current().line;
    ++position_;
    left = Make(line, BinaryExpr{*op, std::move(left), ParseUnary(/*with_filter=*/true)});
  }
  return left;
}

ExprPtr Parser::ParseUnary(bool with_filter) {
  const Nesting nesting(*this);
  const int line = Current().line;
  ExprPtr expr;
  if (Skip("-"))
    expr = Make(line, UnaryExpr{UnaryOp::kNegate, ParseUnary(/*with_filter=*/false)});
  else if (Skip("+"))
    expr = Make(line, UnaryExpr{UnaryOp::kPlus, ParseUnary(/*with_filter=*/false)});
  else
    expr = ParsePrimary();
  expr = ParsePostfix(std::move(expr));
  return with_filter ? ParseFiltersAndTests(std::move(expr)) : std::move(expr);
}

ExprPtr Parser::ParsePrimary() {
  const Token& token = Current();
  switch (token.kind) {
    case Token::Kind::kName:
      return ParseNamePrimary();
    case Token::Kind::kString: {
      std::string text;
      for (; Current().kind == Token::Kind::kString; ++position_) text += Current().text;
      return Make(token.line, LiteralExpr{Value(std::move(text))});
    }
    case Token::Kind::kInteger:
      ++position_;
      return Make(token.line, LiteralExpr{Value(token.integer)});
    case Token::Kind::kFloat:
      ++position_;
      return Make(token.line, LiteralExpr{Value(token.number)});
    default:
      break;
  }
  if (AtOperator("[")) return ParseList();
  if (AtOperator("{")) return ParseDict();
  if (!Skip("(")) Unexpected("an expression");
  ExprPtr inner = ParseTuple(/*in_parentheses=*/true);
  Expect(")");
  return inner;
}

ExprPtr Parser::ParseNamePrimary() {
  const Token& token = Current();
  const std::string& name = token.text;
  ++position_;
  if (name == "true" || name == "True") return Make(token.line, LiteralExpr{Value(true)});
  if (name == "false" || name == "False") return Make(token.line, LiteralExpr{Value(false)});
  if (name == "none" || name == "None") return Make(token.line, LiteralExpr{Value(None{})});
  if (macro_) {
    macro_->uses_varargs |= name == "varargs";
    macro_->uses_kwargs |= name == "kwargs";
    macro_->uses_caller |= name == "caller";
  }
  return Make(token.line, NameExpr{name});
}

ExprPtr Parser::ParseList() {
  const int line = Current().line;
  Expect("[");
  std::vector<ExprPtr> items;
  while (!AtOperator("]")) {
    if (!items.empty()) Expect(",");
    if (AtOperator("]")) break;
    items.push_back(ParseExpression());
  }
  Expect("]");
  return Make(line, ListExpr{std::move(items), /*is_tuple=*/false});
}

ExprPtr Parser::ParseDict() {
  const int line = Current().line;
  Expect("{");
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
  while (!AtOperator("}")) {
    if (!entries.empty()) Expect(",");
    if (AtOperator("}")) break;
    ExprPtr key = ParseExpression();
    Expect(":");
    entries.emplace_back(std::move(key), ParseExpression());
  }
  Expect("}");
  return Make(line, DictExpr{std::move(entries)});
}

ExprPtr Parser::ParsePostfix(ExprPtr expr) {
  for (;;) {
    const int line = Current().line;
    if (Skip("."))
      expr = ParseDot(std::move(expr));
    else if (Skip("["))
      expr = ParseSubscript(std::move(expr));
    else if (AtOperator("("))
      expr = Make(line, CallExpr{std::move(expr), ParseArguments()});
    else
      return expr;
  }
}

ExprPtr Parser::ParseFiltersAndTests(ExprPtr expr) {
  for (;;) {
    const int line = Current().line;
    if (Skip("|"))
      expr = ParseFilter(std::move(expr));
    else if (SkipName("is"))
      expr = ParseTest(std::move(expr));
    else if (AtOperator("("))
      expr = Make(line, CallExpr{std::move(expr), ParseArguments()});
    else
      return expr;
  }
}

ExprPtr Parser::ParseDot(ExprPtr object) {
  const Token& token = Current();
  ++position_;
  if (token.kind == Token::Kind::kName)
    return Make(token.line, AttributeExpr{std::move(object), token.text});
  if (token.kind != Token::Kind::kInteger) {
    --position_;
    Unexpected("a name or a number");
  }
  ExprPtr index = Make(token.line, LiteralExpr{Value(token.integer)});
  return Make(token.line, IndexExpr{std::move(object), std::move(index)});
}

ExprPtr Parser::ParseSubscript(ExprPtr object) {
  const int line = Current().line;
  auto at_part_end = [this] { return AtOperator("]") || AtOperator(":"); };
  ExprPtr first = at_part_end() ? nullptr : ParseTuple(/*in_parentheses=*/false);
  if (first && Skip("]")) return Make(line, IndexExpr{std::move(object), std::move(first)});
  Expect(":");
  ExprPtr stop = at_part_end() ? nullptr : ParseExpression();
  ExprPtr step;
  if (Skip(":") && !at_part_end()) step = ParseExpression();
  Expect("]");
  return Make(line,
              SliceExpr{std::move(object), std::move(first), std::move(stop), std::move(step)});
}

std::string Parser::ParseDottedName() {
  std::string name = ExpectName();
  while (Skip(".")) name += "." + ExpectName();
  return name;
}

ExprPtr Parser::ParseFilter(ExprPtr object) {
  const int line = Current().line;
  std::string name = ParseDottedName();
  const FilterEntry* filter = FindFilter(name);
  if (!filter) unknown_.emplace_back("the filter '" + name + "'", line);
  CallArguments arguments = AtOperator("(") ? ParseArguments() : CallArguments{};
  return Make(line, FilterExpr{std::move(object), std::move(name), filter, std::move(arguments)});
}

ExprPtr Parser::ParseTest(ExprPtr object) {
  const int line = Current().line;
  const bool negated = SkipName("not");
  std::string name = ParseDottedName();
  const TestEntry* test = FindTest(name);
  if (!test) unknown_.emplace_back("the test '" + name + "'", line);
  CallArguments arguments;
  const Token& token = Current();
  const bool starts_operand =
      (token.kind == Token::Kind::kName && token.text != "else" && token.text != "or" &&
       token.text != "and") ||
      token.kind == Token::Kind::kString || token.kind == Token::Kind::kInteger ||
      token.kind == Token::Kind::kFloat || AtOperator("[") || AtOperator("{");
  if (AtOperator("(")) {
    arguments = ParseArguments();
  } else if (starts_operand) {
    if (AtName("is")) Unexpected("one test; tests cannot be chained with 'is'");
    arguments.positional.push_back(ParsePostfix(ParsePrimary()));
  }
  ExprPtr expr =
      Make(line, TestExpr{std::move(object), std::move(name), test, std::move(arguments)});
  return negated ? Make(line, UnaryExpr{UnaryOp::kNot, std::move(expr)}) : std::move(expr);
}

CallArguments Parser::ParseArguments() {
  CallArguments arguments;
  auto check = [this](bool ordered) {
    if (!ordered) Unexpected("positional arguments first, then named ones, then *args, **kwargs");
  };
  Expect("(");
  bool first = true;
  while (!AtOperator(")")) {
    if (!first) Expect(",");
    first = false;
    if (AtOperator(")")) break;
    if (Skip("*")) {
      check(!arguments.star && !arguments.double_star);
      arguments.star = ParseExpression();
    } else if (Skip("**")) {
      check(!arguments.double_star);
      arguments.double_star = ParseExpression();
    } else if (Current().kind == Token::Kind::kName && Next().kind == Token::Kind::kOperator &&
               Next().text == "=") {
      check(!arguments.double_star);
      std::string name = Current().text;
      position_ += 2;
      arguments.named.emplace_back(std::move(name), ParseExpression());
    } else {
      check(!arguments.star && !arguments.double_star && arguments.named.empty());
      arguments.positional.push_back(ParseExpression());
    }
  }
  Expect(")");
  return arguments;
}

}  // namespace quern::jinja

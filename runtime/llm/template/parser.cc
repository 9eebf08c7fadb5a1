#include "runtime/llm/template/parser.h"

#include <algorithm>

#include "runtime/llm/template/error.h"
#include "runtime/llm/template/nesting.h"

namespace quern::jinja {
namespace {

std::string Describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kText:
      return "text";
    case Token::Kind::kVariableBegin:
      return "'{{'";
    case Token::Kind::kVariableEnd:
      return "'}}'";
    case Token::Kind::kBlockBegin:
      return "'{%'";
    case Token::Kind::kBlockEnd:
      return "'%}'";
    case Token::Kind::kString:
      return "a string";
    case Token::Kind::kFloat:
      return "a number";
    case Token::Kind::kEnd:
      return "the end of the template";
    case Token::Kind::kName:
    case Token::Kind::kInteger:
    case Token::Kind::kOperator:
      return "'" + token.text.substr(0, 64) + "'";
  }
  return "?";
}

}  // namespace

bool Parser::AtOperator(std::string_view op) const {
  return Current().kind == Token::Kind::kOperator && Current().text == op;
}

bool Parser::AtName(std::string_view name) const {
  return Current().kind == Token::Kind::kName && Current().text == name;
}

bool Parser::Skip(std::string_view op) {
  if (!AtOperator(op)) return false;
  ++position_;
  return true;
}

bool Parser::SkipName(std::string_view name) {
  if (!AtName(name)) return false;
  ++position_;
  return true;
}

void Parser::Expect(std::string_view op) {
  if (!Skip(op)) Unexpected("'" + std::string(op) + "'");
}

std::string Parser::ExpectName() {
  if (Current().kind != Token::Kind::kName) Unexpected("a name");
  return tokens_[position_++].text;
}

void Parser::ExpectBlockEnd() {
  if (Current().kind != Token::Kind::kBlockEnd) Unexpected("'%}'");
  ++position_;
}

void Parser::Unexpected(std::string_view wanted) const {
  Fail("expected " + std::string(wanted) + ", found " + Describe(Current()), Current().line);
}

Ast Parser::ParseTemplate() {
  Ast ast{ParseBody({})};
  if (!unknown_.empty())
    FailUnsupported(unknown_[0].first + " is not supported", unknown_[0].second);
  return ast;
}

Body Parser::ParseBody(Ends ends) {
  const Nesting nesting(*this);
  Body body;
  for (;;) {
    const Token& token = Current();
    switch (token.kind) {
      case Token::Kind::kText:
        body.push_back({token.line, TextStatement{token.text}});
        ++position_;
        break;
      case Token::Kind::kVariableBegin:
        ++position_;
        body.push_back({token.line, OutputStatement{ParseTuple(/*in_parentheses=*/false)}});
        if (Current().kind != Token::Kind::kVariableEnd) Unexpected("'}}'");
        ++position_;
        break;
      case Token::Kind::kBlockBegin:
        ++position_;
        if (std::any_of(ends.begin(), ends.end(), [this](auto end) { return AtName(end); }))
          return body;
        ParseStatement(body);
        break;
      default:
        if (ends.size() > 0) Unexpected("'{% " + std::string(*(ends.end() - 1)) + " %}'");
        return body;
    }
  }
}

Body Parser::ParseBodyThrough(std::string_view end) {
  Body body = ParseBody({end});
  ++position_;
  ExpectBlockEnd();
  return body;
}

void Parser::ParseStatement(Body& body) {
  using Parse = Statement (Parser::*)(int line);
  static constexpr std::pair<std::string_view, Parse> kStatements[] = {
      {"if", &Parser::ParseIf},
      {"for", &Parser::ParseFor},
      {"set", &Parser::ParseSet},
      {"macro", &Parser::ParseMacro},
      {"call", &Parser::ParseCall},
      {"filter", &Parser::ParseFilterBlock},
      {"with", &Parser::ParseWith},
      {"generation", &Parser::ParseGeneration},
      {"break", &Parser::ParseLoopControl},
      {"continue", &Parser::ParseLoopControl}};
  if (Current().kind != Token::Kind::kName) Unexpected("a statement");
  const int line = Current().line;
  for (const auto& [name, parse] : kStatements)
    if (AtName(name)) {
      if (parse != &Parser::ParseLoopControl) ++position_;
      body.push_back((this->*parse)(line));
      return;
    }
  static constexpr std::string_view kLeftOut[] = {"include", "import", "from",       "extends",
                                                  "block",   "do",     "autoescape", "trans"};
  for (const std::string_view name : kLeftOut)
    if (AtName(name))
      FailUnsupported("the statement '" + std::string(name) + "' is not supported", line);
  Unexpected("a statement");
}

Statement Parser::ParseIf(int line) {
  IfStatement node;
  const size_t unknown = unknown_.size();
  do {
    ExprPtr condition = ParseTuple(/*in_parentheses=*/false);
    ExpectBlockEnd();
    Body body = ParseBody({"elif", "else", "endif"});
    node.branches.emplace_back(std::move(condition), std::move(body));
  } while (SkipName("elif"));
  if (SkipName("else")) {
    ExpectBlockEnd();
    node.otherwise = ParseBody({"endif"});
  }
  ++position_;
  ExpectBlockEnd();
  unknown_.resize(unknown);
  return {line, std::move(node)};
}

Statement Parser::ParseFor(int line) {
  ForStatement node;
  node.target = ParseTarget(/*with_tuple=*/true);
  if (!SkipName("in")) Unexpected("'in'");
  // `if` filters the loop here, so the iterable is no conditional expression; a tuple needs none.
  node.iterable = ParseOr();
  if (SkipName("if")) node.condition = ParseExpression();
  if (AtName("recursive")) FailUnsupported("recursive loops are not supported", line);
  ExpectBlockEnd();
  ++loops_;
  node.body = ParseBody({"else", "endfor"});
  --loops_;
  if (SkipName("else")) {
    ExpectBlockEnd();
    node.otherwise = ParseBody({"endfor"});
  }
  ++position_;
  ExpectBlockEnd();
  return {line, std::move(node)};
}

Statement Parser::ParseSet(int line) {
  Target target = ParseTarget(/*with_tuple=*/true);
  if (Skip("=")) {
    ExprPtr value = ParseTuple(/*in_parentheses=*/false);
    ExpectBlockEnd();
    return {line, SetStatement{std::move(target), std::move(value)}};
  }
  ExprPtr filter;
  while (Skip("|")) filter = ParseFilter(std::move(filter));
  ExpectBlockEnd();
  Body body = ParseBodyThrough("endset");
  return {line, SetBlockStatement{std::move(target), std::move(filter), std::move(body)}};
}

void Parser::ParseParameters(MacroDefinition& macro) {
  Expect("(");
  while (!AtOperator(")")) {
    if (!macro.parameters.empty()) Expect(",");
    MacroDefinition::Parameter parameter{ExpectName(), nullptr};
    if (Skip("="))
      parameter.default_value = ParseExpression();
    else if (!macro.parameters.empty() && macro.parameters.back().default_value)
      Fail("parameter '" + parameter.name + "' has no default but follows one that has",
           Current().line);
    macro.parameters.push_back(std::move(parameter));
  }
  Expect(")");
}

void Parser::ParseMacroBody(MacroDefinition& macro, std::string_view end) {
  MacroDefinition* const outer = std::exchange(macro_, &macro);
  const int loops = std::exchange(loops_, 0);
  macro.body = ParseBodyThrough(end);
  macro_ = outer;
  loops_ = loops;
}

Statement Parser::ParseMacro(int line) {
  auto macro = std::make_shared<MacroDefinition>();
  macro->name = ExpectName();
  ParseParameters(*macro);
  ExpectBlockEnd();
  ParseMacroBody(*macro, "endmacro");
  return {line, MacroStatement{std::move(macro)}};
}

Statement Parser::ParseCall(int line) {
  auto caller = std::make_shared<MacroDefinition>();
  caller->name = "caller";
  if (AtOperator("(")) ParseParameters(*caller);
  ExprPtr call = ParseExpression();
  if (!std::holds_alternative<CallExpr>(call->node)) Fail("expected a call", line);
  ExpectBlockEnd();
  ParseMacroBody(*caller, "endcall");
  return {line, CallStatement{std::move(call), std::move(caller)}};
}

Statement Parser::ParseFilterBlock(int line) {
  ExprPtr filter = ParseFilter(nullptr);
  while (Skip("|")) filter = ParseFilter(std::move(filter));
  ExpectBlockEnd();
  return {line, FilterStatement{std::move(filter), ParseBodyThrough("endfilter")}};
}

Statement Parser::ParseWith(int line) {
  ScopeStatement node;
  while (Current().kind != Token::Kind::kBlockEnd) {
    if (!node.assignments.empty()) Expect(",");
    Target target = ParseTarget(/*with_tuple=*/false);
    Expect("=");
    node.assignments.emplace_back(std::move(target), ParseExpression());
  }
  ExpectBlockEnd();
  node.body = ParseBodyThrough("endwith");
  return {line, std::move(node)};
}

Statement Parser::ParseGeneration(int line) {
  ExpectBlockEnd();
  const int loops = std::exchange(loops_, 0);  // a scope that loop control cannot leave
  Statement statement{line, ScopeStatement{{}, ParseBodyThrough("endgeneration")}};
  loops_ = loops;
  return statement;
}

Statement Parser::ParseLoopControl(int line) {
  const std::string name = ExpectName();
  if (loops_ == 0) Fail("'" + name + "' outside of a loop", line);
  ExpectBlockEnd();
  if (name == "break") return {line, BreakStatement{}};
  return {line, ContinueStatement{}};
}

Target Parser::ParseTarget(bool with_tuple) {
  Target first = ParseTargetPart();
  if (!with_tuple || !AtOperator(",")) return first;
  Target tuple;
  tuple.parts.push_back(std::move(first));
  while (Skip(",")) {
    if (Current().kind != Token::Kind::kName && !AtOperator("(")) break;
    if (AtName("in")) break;
    tuple.parts.push_back(ParseTargetPart());
  }
  return tuple;
}

Target Parser::ParseTargetPart() {
  const Nesting nesting(*this);
  if (Skip("(")) {
    Target inner = ParseTarget(/*with_tuple=*/true);
    Expect(")");
    return inner;
  }
  Target target;
  static constexpr std::string_view kConstants[] = {"true",  "True", "false",
                                                    "False", "none", "None"};
  if (std::find(std::begin(kConstants), std::end(kConstants), Current().text) !=
      std::end(kConstants))
    Unexpected("a name to assign to");
  target.name = ExpectName();
  if (Skip(".")) target.attribute = ExpectName();
  return target;
}

}  // namespace quern::jinja

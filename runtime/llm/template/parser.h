// Tokens to a tree. The grammar is jinja2's, precedence included.
#pragma once

#include <initializer_list>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/llm/template/ast.h"
#include "runtime/llm/template/lexer.h"

namespace quern::jinja {

/// Recursive descent over the tokens of one template. Throws TemplateError.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Ast ParseTemplate();

 private:
  // Tokens.
  const Token& Current() const { return tokens_[position_]; }
  const Token& Next() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  bool AtOperator(std::string_view op) const;
  bool AtName(std::string_view name) const;
  bool Skip(std::string_view op);
  bool SkipName(std::string_view name);
  void Expect(std::string_view op);
  std::string ExpectName();
  void ExpectBlockEnd();
  [[noreturn]] void Unexpected(std::string_view wanted) const;

  // parser.cc: statements.
  using Ends = std::initializer_list<std::string_view>;
  /// Statements up to, and not including, the tag named by one of `ends`; its `{%` is consumed.
  Body ParseBody(Ends ends);
  /// ParseBody up to `end`, whose tag is consumed.
  Body ParseBodyThrough(std::string_view end);
  void ParseStatement(Body& body);
  Statement ParseIf(int line);
  Statement ParseFor(int line);
  Statement ParseSet(int line);
  Statement ParseMacro(int line);
  Statement ParseCall(int line);
  Statement ParseFilterBlock(int line);
  Statement ParseWith(int line);
  Statement ParseGeneration(int line);
  Statement ParseLoopControl(int line);
  void ParseParameters(MacroDefinition& macro);
  void ParseMacroBody(MacroDefinition& macro, std::string_view end);
  Target ParseTarget(bool with_tuple);
  Target ParseTargetPart();

  // parser_expressions.cc.
  ExprPtr ParseExpression();
  /// One expression, or several with commas between them as a tuple.
  ExprPtr ParseTuple(bool in_parentheses);
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  ExprPtr ParseCompare();
  ExprPtr ParseSum();
  ExprPtr ParseConcat();
  ExprPtr ParseProduct();
  ExprPtr ParsePower();
  ExprPtr ParseUnary(bool with_filter);
  ExprPtr ParsePrimary();
  ExprPtr ParseNamePrimary();
  ExprPtr ParseList();
  ExprPtr ParseDict();
  ExprPtr ParsePostfix(ExprPtr expr);
  ExprPtr ParseFiltersAndTests(ExprPtr expr);
  ExprPtr ParseDot(ExprPtr object);
  ExprPtr ParseSubscript(ExprPtr object);
  ExprPtr ParseFilter(ExprPtr object);
  ExprPtr ParseTest(ExprPtr object);
  CallArguments ParseArguments();
  std::string ParseDottedName();
  /// A node whose depth is one more than the deepest of `below`.
  template <typename Node>
  ExprPtr Make(int line, Node node);

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int depth_ = 0;  // of recursion
  // Filters and tests that are unknown, with their lines. Inside of conditions they may stay
  // unreached, and are errors only when they are not.
  std::vector<std::pair<std::string, int>> unknown_;
  int loops_ = 0;                     // `for` bodies around, for break and continue
  MacroDefinition* macro_ = nullptr;  // whose body is being read

  friend class Nesting;
};

}  // namespace quern::jinja

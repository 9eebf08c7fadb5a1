// A template as a tree.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/llm/template/value.h"

namespace quern::jinja {

struct Expr;
struct Statement;
struct FilterEntry;
struct TestEntry;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<Statement>;

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star;         // *args, or null
  ExprPtr double_star;  // **kwargs, or null
};

enum class UnaryOp { kNot, kNegate, kPlus };
enum class BinaryOp { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class CompareOp { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct LiteralExpr {
  Value value;
};
struct NameExpr {
  std::string name;
};
struct ListExpr {
  std::vector<ExprPtr> items;
  bool is_tuple;
};
struct DictExpr {
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};
struct AttributeExpr {
  ExprPtr object;
  std::string name;
};
struct IndexExpr {
  ExprPtr object, index;
};
struct SliceExpr {
  ExprPtr object, start, stop, step;
};  // the last three may be null
struct CallExpr {
  ExprPtr callee;
  CallArguments arguments;
};
/// `object` is null in `{% filter f %}` and `{% set x | f %}`: the block's text.
/// `filter` is null for a name that is unknown but perhaps never reached.
struct FilterExpr {
  ExprPtr object;
  std::string name;
  const FilterEntry* filter;
  CallArguments arguments;
};
struct TestExpr {
  ExprPtr object;
  std::string name;
  const TestEntry* test;
  CallArguments arguments;
};
struct UnaryExpr {
  UnaryOp op;
  ExprPtr operand;
};
struct BinaryExpr {
  BinaryOp op;
  ExprPtr left, right;
};
struct LogicalExpr {
  bool is_or;
  ExprPtr left, right;
};
struct CompareExpr {
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};
struct ConcatExpr {
  std::vector<ExprPtr> parts;
};
struct ConditionalExpr {
  ExprPtr condition, then, otherwise;
};  // otherwise may be null

struct Expr {
  int line;
  int depth;  // of the tree below, itself included
  std::variant<LiteralExpr, NameExpr, ListExpr, DictExpr, AttributeExpr, IndexExpr, SliceExpr,
               CallExpr, FilterExpr, TestExpr, UnaryExpr, BinaryExpr, LogicalExpr, CompareExpr,
               ConcatExpr, ConditionalExpr>
      node;
};

/// What is assigned to: a name, an attribute of a namespace (`attribute` not empty), or several
/// targets (`parts` not empty).
struct Target {
  std::string name;
  std::string attribute;
  std::vector<Target> parts;
};

struct MacroDefinition {
  struct Parameter {
    std::string name;
    ExprPtr default_value;  // or null
  };
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  // Special names that the body uses, and so accepts.
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
};

struct TextStatement {
  std::string text;
};
struct OutputStatement {
  ExprPtr value;
};
struct IfStatement {
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};
struct ForStatement {
  Target target;
  ExprPtr iterable, condition;  // condition may be null
  Body body, otherwise;
};
struct SetStatement {
  Target target;
  ExprPtr value;
};
struct SetBlockStatement {
  Target target;
  ExprPtr filter;
  Body body;
};  // filter may be null
struct MacroStatement {
  std::shared_ptr<const MacroDefinition> macro;
};
struct CallStatement {
  ExprPtr call;
  std::shared_ptr<const MacroDefinition> caller;
};
struct FilterStatement {
  ExprPtr filter;
  Body body;
};
/// `{% with %}` and `{% generation %}`: a scope of its own.
struct ScopeStatement {
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Body body;
};
struct BreakStatement {};
struct ContinueStatement {};

struct Statement {
  int line;
  std::variant<TextStatement, OutputStatement, IfStatement, ForStatement, SetStatement,
               SetBlockStatement, MacroStatement, CallStatement, FilterStatement, ScopeStatement,
               BreakStatement, ContinueStatement>
      node;
};

struct Ast {
  Body body;
};

}  // namespace quern::jinja

#include "runtime/llm/template/template.h"

#include <ctime>
#include <new>

#include "runtime/llm/template/ast.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/evaluator.h"
#include "runtime/llm/template/lexer.h"
#include "runtime/llm/template/parser.h"
#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

Status ToStatus(const TemplateError& error) {
  // What the template itself says needs no place in it.
  if (error.code == StatusCode::kUsage || error.line == 0) return {error.code, error.message};
  return {error.code, "chat template, line " + std::to_string(error.line) + ": " + error.message};
}

}  // namespace

Result<Template> Template::Parse(std::string_view source) try {
  if (source.size() > kMaxSourceBytes)
    return Malformed("the chat template has " + std::to_string(source.size()) + " bytes, at most " +
                     std::to_string(kMaxSourceBytes) + " are allowed");
  if (!utf8::IsValid(source)) return Malformed("the chat template is not valid UTF-8");
  return Template(std::make_shared<const Ast>(Parser(Lex(source)).ParseTemplate()));
} catch (const TemplateError& error) {
  return ToStatus(error);
} catch (const std::bad_alloc&) {
  return OutOfMemory("no memory for a chat template of " + std::to_string(source.size()) +
                     " bytes");
}

Result<std::string> Template::Render(const Value& context, const Limits& limits) const try {
  if (!context.is_dict()) return UsageError("the variables of a chat template are a JSON object");
  Evaluator evaluator(context.dict(), limits, now_.value_or(std::time(nullptr)));
  return evaluator.Run(*ast_);
} catch (const TemplateError& error) {
  return ToStatus(error);
} catch (const std::bad_alloc&) {
  return OutOfMemory("no memory for rendering the chat template");
}

}  // namespace quern::jinja

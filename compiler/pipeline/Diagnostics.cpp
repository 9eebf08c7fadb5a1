#include "compiler/pipeline/Diagnostics.h"

#include "mlir/IR/Location.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace quern;

/// `text` on one line.
static std::string oneLine(std::string text) {
  for (char &c : text)
    if (c == '\n' || c == '\r')
      c = ' ';
  return text;
}

/// `text` with "lm.rope: expected" for MLIR's "'lm.rope' op expected".
static std::string plainOpNames(llvm::StringRef text) {
  static constexpr llvm::StringLiteral kEnd = "' op ";
  if (!text.consume_front("'"))
    return text.str();
  auto [name, rest] = text.split(kEnd);
  return rest.empty() ? "'" + text.str() : (name + ": " + rest).str();
}

/// The message, with file, line and column in front where it has them.
static std::string describe(Diagnostic &diagnostic) {
  std::string text;
  llvm::raw_string_ostream os(text);
  if (auto loc = diagnostic.getLocation()->findInstanceOf<FileLineColLoc>())
    os << loc.getFilename().getValue() << ":" << loc.getLine() << ":"
       << loc.getColumn() << ": ";
  os << plainOpNames(diagnostic.str());
  return oneLine(std::move(text));
}

DiagnosticCollector::DiagnosticCollector(
    MLIRContext *context, std::function<void(const std::string &)> remark)
    : handler(context, [this, remark](Diagnostic &diagnostic) {
        if (diagnostic.getSeverity() == DiagnosticSeverity::Error) {
          if (firstError.empty())
            firstError = describe(diagnostic);
        } else if (remark) {
          remark(oneLine(diagnostic.str()));
        }
        return success();
      }) {}

llvm::Error DiagnosticCollector::take(ExitCode code,
                                      const llvm::Twine &fallback,
                                      const llvm::Twine &remedy) {
  std::string text = std::exchange(firstError, "");
  return compileError(code,
                      (text.empty() ? fallback.str() : text) + "; " + remedy);
}

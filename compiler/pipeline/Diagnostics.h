//===- Diagnostics.h - MLIR's diagnostics as errors -------------*- C++ -*-===//
//
// A user of the compiler gets one line, not MLIR's notes and op dumps. While
// this object lives it keeps the first error of a context and hands remarks on.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_PIPELINE_DIAGNOSTICS_H
#define QUERN_COMPILER_PIPELINE_DIAGNOSTICS_H

#include "codegen/artifact/CompileError.h"
#include "mlir/IR/Diagnostics.h"

#include <functional>
#include <string>

namespace quern {

class DiagnosticCollector {
public:
  /// `remark` gets the text of every remark and warning; it may be empty.
  DiagnosticCollector(mlir::MLIRContext *context,
                      std::function<void(const std::string &)> remark);

  /// The first error as a CompileError: `where: message`, or `fallback` when
  /// nothing was reported, and behind it `; remedy`. Forgets it.
  llvm::Error take(ExitCode code, const llvm::Twine &fallback,
                   const llvm::Twine &remedy);

private:
  std::string firstError;
  mlir::ScopedDiagnosticHandler handler;
};

} // namespace quern

#endif // QUERN_COMPILER_PIPELINE_DIAGNOSTICS_H

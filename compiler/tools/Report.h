//===- Report.h - What a compilation tells when it is done ------*- C++ -*-===//
#ifndef QUERN_COMPILER_TOOLS_REPORT_H
#define QUERN_COMPILER_TOOLS_REPORT_H

#include "compiler/evaluate/QuantizationLoss.h"
#include "compiler/pipeline/Compiler.h"
#include "compiler/tools/Progress.h"

namespace quern {

/// What is known of quantized weights besides their size.
struct QuantizationReport {
  std::optional<QuantizationLoss> loss;
  /// Why there is no loss, or empty when nobody asked for it.
  std::string notMeasured;
};

/// Writes sizes and hash to standard error, in a few lines.
void printReport(const CompileOptions &options, const CompileSummary &summary,
                 const QuantizationReport &quantization);

/// Writes one JSON object to standard output (docs/commands.md).
void printJsonReport(const CompileOptions &options,
                     const CompileSummary &summary,
                     const QuantizationReport &quantization,
                     const Progress &progress);

/// Writes an error as one line to standard error and, with `json`, as
/// `{"error": {"code", "kind", "message"}}` to standard output. `verb` may be
/// empty. Control characters of the message become spaces.
void printError(llvm::StringRef verb, ExitCode code, std::string message,
                bool json);

} // namespace quern

#endif // QUERN_COMPILER_TOOLS_REPORT_H

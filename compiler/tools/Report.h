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

/// Writes `{"error": {"code", "message"}}` to standard output.
void printJsonError(ExitCode code, const std::string &message);

} // namespace quern

#endif // QUERN_COMPILER_TOOLS_REPORT_H

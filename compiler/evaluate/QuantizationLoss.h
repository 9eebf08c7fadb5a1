//===- QuantizationLoss.h - What --quantize cost ----------------*- C++ -*-===//
//
// Runs an artifact whose float weights were quantized beside the same model
// unquantized, over a built-in text, and compares the distributions of the next
// token. The runtime is reached through quern.h, as everybody reaches it.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_EVALUATE_QUANTIZATIONLOSS_H
#define QUERN_COMPILER_EVALUATE_QUANTIZATIONLOSS_H

#include "compiler/pipeline/Compiler.h"

#include <string>

namespace quern {

/// How far the quantized model is from the float one.
struct QuantizationLoss {
  /// Mean over the positions of KL(float || quantized), in nats.
  double meanKl = 0;
  /// Share of positions where both find the same token the likeliest.
  double top1 = 0;
  /// Positions compared.
  size_t positions = 0;
  /// The target of the artifact that ran.
  std::string target;
};

/// Compares the artifact that `options` made with the same model compiled with
/// --precise and without --quantize into a temporary file beside it, which is
/// removed again. Errors: Unsupported when the options do not lead to a float
/// model or the model has no tokenizer; Incompatible when this machine can run
/// none of the targets; those of compileModel() and of the runtime.
llvm::Expected<QuantizationLoss>
measureQuantizationLoss(const CompileOptions &options);

} // namespace quern

#endif // QUERN_COMPILER_EVALUATE_QUANTIZATIONLOSS_H

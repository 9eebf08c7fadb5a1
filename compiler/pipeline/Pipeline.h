//===- Pipeline.h - Which passes run in which phase -------------*- C++ -*-===//
//
// One table says it. Whatever optimising passes are switched off, the model
// still compiles and agrees; it runs through plainer kernels.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_PIPELINE_PIPELINE_H
#define QUERN_COMPILER_PIPELINE_PIPELINE_H

#include "compiler/pipeline/Phases.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"

#include <optional>
#include <string>
#include <vector>

namespace quern {

/// What the passes need to know of a compilation.
struct PipelineOptions {
  /// Names of targets (codegen/target), in table order.
  std::vector<std::string> targets;
  /// Parts the work is cut in; results depend on it.
  int64_t shares = 2;
  /// Format for float weights, a name of BlockFormat: "q8_0", "q4_0".
  std::optional<std::string> quantizeFormat;
  /// Float activations and float32 KV.
  bool precise = false;
  /// Tiles that tuning found, as rt-apply-tuning takes them.
  std::vector<std::string> tunedTiles;
  /// Keys and values as int8 with scales: GPUs only.
  bool int8Kv = false;
  /// Names of optional passes that do not run.
  std::vector<std::string> disabledPasses;
};

/// Names that `--disable-pass=` takes, in pipeline order.
std::vector<llvm::StringRef> optionalPassNames();

/// Adds the passes of `phase` to `manager`.
void buildPhase(Phase phase, const PipelineOptions &options,
                mlir::PassManager &manager);

/// Checks that the result of `phase` holds nothing but what is legal after it;
/// otherwise emits one error at the first op that is not.
llvm::LogicalResult checkPhase(Phase phase, mlir::ModuleOp module);

} // namespace quern

#endif // QUERN_COMPILER_PIPELINE_PIPELINE_H

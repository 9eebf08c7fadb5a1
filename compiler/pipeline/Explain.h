//===- Explain.h - What a phase did, in lines -------------------*- C++ -*-===//
//
// Reads the module after a phase and says what fused, what did not and why, and
// how each kernel is cut and tiled: what `--explain` prints.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_PIPELINE_EXPLAIN_H
#define QUERN_COMPILER_PIPELINE_EXPLAIN_H

#include "compiler/pipeline/Pipeline.h"
#include "mlir/IR/BuiltinOps.h"

#include <functional>
#include <string>

namespace quern {

/// Calls `line` for each thing worth saying about `module` after `phase`.
void explainPhase(Phase phase, mlir::ModuleOp module,
                  const PipelineOptions &options,
                  const std::function<void(const std::string &)> &line);

} // namespace quern

#endif // QUERN_COMPILER_PIPELINE_EXPLAIN_H

//===- AttentionOutput.h - Where attention puts a head --------*- C++ -*-===//
//
// The results of an attention kernel: f32 rows, numeric rows, or both.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_ATTENTIONOUTPUT_H
#define QUERN_CODEGEN_HOST_ATTENTIONOUTPUT_H

#include "codegen/host/Kernel.h"
#include "codegen/kernels/AttentionPlan.h"

namespace quern::host {

/// Stores head `head` of row `row` (i64) in every result. `columns(c)` are its
/// columns [c, c + 16).
void storeHead(Kernel &k, const AttentionPlan &plan, int64_t headDim,
               mlir::Value row, mlir::Value head,
               llvm::function_ref<mlir::Value(int64_t)> columns);

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_ATTENTIONOUTPUT_H

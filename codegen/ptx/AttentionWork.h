//===- AttentionWork.h - Which heads a block attends for --------*- C++ -*-===//
//
// Query heads that read one KV head go together (GQA packing), at most
// kMaxHeads a unit of work. The grid has a block per KV head of an even cut; a
// share's heads need not begin at a KV head's first, so a block takes units in
// turns.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_ATTENTIONWORK_H
#define QUERN_CODEGEN_PTX_ATTENTIONWORK_H

#include "codegen/kernels/AttentionPlan.h"
#include "codegen/ptx/Kernel.h"

namespace quern::nvptx {

struct AttentionWork {
  /// Heads of a unit at most.
  static constexpr int64_t kMaxHeads = 8;

  AttentionWork(Kernel &k, const AttentionPlan &plan);

  int64_t heads, kvHeads, headDim, groupHeads;
  int64_t unitHeads; ///< heads of a full unit
  KvLayout layout;

  /// Blocks over the share's heads.
  GridFactor gridFactor() const;
  /// Calls `body(kvHead, first, end)` for this block's units: query heads
  /// [first, end) (i64, end - first <= unitHeads) read `kvHead`. All threads of
  /// a block come by together.
  void forUnits(Kernel &k,
                llvm::function_ref<void(mlir::Value kvHead, mlir::Value first,
                                        mlir::Value end)>
                    body) const;
  /// The address of KV head `kvHead` in page `page` (i64, in the pool), which
  /// is as KvPages.h says.
  mlir::Value headPointer(Kernel &k, const KvArgs &kv, mlir::Value page,
                          mlir::Value kvHead) const;
};

/// Checks what every attention generator takes for granted.
mlir::LogicalResult checkAttention(Kernel &k, const AttentionPlan &plan);

/// Stores 32 columns of head `head`, one a lane, in the formats of all results.
/// `column` is the head's first of the 32.
void storeAttended(Kernel &k, const AttentionPlan &plan, int64_t headDim,
                   mlir::Value row, mlir::Value head, int64_t column,
                   mlir::Value value);

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_ATTENTIONWORK_H

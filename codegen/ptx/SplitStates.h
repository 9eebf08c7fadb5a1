//===- SplitStates.h - Joining parts of a row's attention -------*- C++ -*-===//
//
// Where keys are cut (split KV), every part of a row ends in a state: of each
// query head the largest score, the sum of probabilities relative to it, and
// the values weighted by them. The states of a block's warps are joined in warp
// order; where a row has several runs, a block each, the last block to arrive
// joins theirs, in the order of the keys.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_SPLITSTATES_H
#define QUERN_CODEGEN_PTX_SPLITSTATES_H

#include "codegen/ptx/AttentionWork.h"
#include "codegen/ptx/OnlineSoftmax.h"

namespace quern::nvptx {

/// Rows of an mma, of which a unit's query heads fill the first
/// AttentionWork::kMaxHeads.
inline constexpr int64_t kUnitRows = 16;
/// Columns of an mma's result.
inline constexpr int64_t kMmaColumns = 8;

class SplitStates {
public:
  using Value = mlir::Value;
  using Values = Emitter::Values;

  struct Shape {
    int64_t headDim;
    int64_t warps;
    int64_t mostRuns; ///< of a row
  };

  /// `columns` is shared memory of `columnBytes` a warp, which has the place
  /// for (kUnitRows, head_dim) f32 and is free once the warp is done.
  SplitStates(Kernel &k, const AttentionPlan &plan, const Shape &shape,
              Value columns, int64_t columnBytes);

  /// Takes the kernel's workspace, for the states of runs.
  void makeWorkspace();
  /// Leaves this warp's state: `output` has head_dim / kMmaColumns tiles of
  /// kFragment. A barrier must follow.
  void leave(const SoftmaxState &softmax, mlir::ValueRange output);
  /// Joins the warps' states of query heads [first, end) of `row`, and stores
  /// the result where this block's is the row's only run, or the last of `runs`
  /// to arrive.
  void store(Value row, Value first, Value end, Value runs);

private:
  /// Where the parts of one state lie, f32 each.
  struct Pointers {
    Value maximum, sum, columns;
  };
  /// One column of several states together: relative to `maximum`, not divided.
  struct Joined {
    Value maximum, sum, column;
  };

  Pointers ofWarp(Value warp, Value head);
  Pointers ofRun(Value row, Value run, Value head);
  Joined join(Value count, Value column,
              llvm::function_ref<Pointers(Value)> state);
  /// Calls `body(head of the unit, first of 32 columns, this lane's column)`,
  /// a warp an item.
  void forColumns(Value heads,
                  llvm::function_ref<void(Value, int64_t, Value)> body);
  void storeRun(Value row, Value first, Value heads);
  void storeResult(Value row, Value first, Value heads, Value count,
                   llvm::function_ref<Pointers(Value, Value)> state);
  /// Whether this block is the last of the row's runs (i1), in all threads.
  Value arriveLast(Value counter, Value runs);

  Kernel &k;
  Emitter &e;
  const AttentionPlan &plan;
  Shape shape;
  Value columns, maxima, sums, isLast; ///< shared
  int64_t columnBytes;
  Kernel::Workspace workspace;
  int64_t stateFloats = 0, rowStates = 0; ///< in the workspace
  Value firstHead;                        ///< of the share
};

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_SPLITSTATES_H

//===- AttentionTile.h - What a block of prefill attention does -*- C++ -*-===//
//
// A block takes one attention tile (a run of rows of one sequence) and one KV
// head, and of the query vectors that read it, (rows, heads of the group), the
// next `blockVectors`: heads of a group are packed with the rows, so that keys
// and values are loaded once for both. Vector v is row v / heads of the tile
// and head v % heads of the group.
//
// Numbers of rows, vectors, slots, pages and steps are i32 here: 64-bit numbers
// cost a GPU two registers and two instructions.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_ATTENTIONTILE_H
#define QUERN_CODEGEN_PTX_ATTENTIONTILE_H

#include "codegen/kernels/AttentionPlan.h"
#include "codegen/ptx/Kernel.h"

namespace quern::nvptx {

class AttentionTile {
public:
  using Value = mlir::Value;

  /// `stepKeys`: keys of a step of the online softmax, whole pages.
  AttentionTile(Kernel &k, const AttentionPlan &plan, int64_t blockVectors,
                int64_t stepKeys);

  /// Sets the grid, a block for every KV head, and calls `body` where the block
  /// has work: a share has the heads of some groups, or a part of a group. What
  /// follows holds inside.
  void forWork(llvm::function_ref<void()> body);

  /// A query vector of the block.
  struct Vector {
    Value row;    ///< of the step
    Value head;   ///< query head
    Value slot;   ///< the last key that it sees
    Value inside; ///< i1: it is there; otherwise it repeats the last one
  };
  /// The block's vector number `i`.
  Vector vector(Value i);
  /// Writes the block's queries as f16 to shared memory: blocks of 8 vectors
  /// and 8 dims as in KvPages.h, [blockVectors / 8][head_dim / 8].
  /// Numbers are made finite.
  void loadQueries(Value shared);
  /// Stores a lane's columns of its vector, (head_dim / 8, 2): columns
  /// 8 i + 2 (lane % 4) and the next, in the formats of all results. All lanes
  /// of the warp take part.
  void store(const Vector &vector, llvm::ArrayRef<Value> columns);

  /// Steps [begin, end) hold every key that a vector of the block sees, and
  /// those of [fullBegin, fullEnd) only keys that all of them see. They are
  /// counted from the sequence's first key, so that a vector's steps do not
  /// depend on the block that it is in.
  struct Steps {
    Value begin, fullBegin, fullEnd, end;
  };
  Steps steps();

  int64_t stepPages() const { return stepKeys / layout.page; }
  /// The pages of the pool that hold the keys of step `step`; where the
  /// sequence has none so far behind, its last one.
  Emitter::Values poolPages(Value step);
  /// Byte `byte` (i64) of the block's KV head in a page of the pool.
  Value headPointer(Value poolPage, Value byte);

  const KvLayout layout;

private:
  /// Where a vector begins in a tensor (rows, heads * head_dim) of f32.
  Value pointer(Value tensor, const Vector &vector);
  void storeFloats(Value tensor, const Vector &vector,
                   llvm::ArrayRef<Value> columns);
  void storeNumericRow(Value buffer, const Vector &vector,
                       llvm::ArrayRef<Value> columns);
  Value narrow(Value value) { return e.truncate(value, e.i32()); }
  Value wide(Value value) { return e.extendUnsigned(value, e.i64()); }
  Value number(int64_t value) { return e.constant(e.i32(), value); }

  Kernel &k;
  Emitter &e;
  const AttentionPlan &plan;
  int64_t kvHeads, groupHeads, blockVectors, stepKeys;
  KvArgs kv;
  Value pages;                         ///< the sequence's page table
  Value firstRow, firstSlot, lastSlot; ///< of the tile
  Value headPool;                      ///< the pool from the KV head on
  Value firstHead, heads;              ///< of the group
  Value firstVector, vectors;          ///< of the block; of the tile
};

/// Runs steps [begin, end) of the online softmax: `step(i, state)` for each,
/// with a state that flattens to what a loop carries.
template <typename State, typename Step>
void runSteps(Emitter &e, mlir::Value begin, mlir::Value end, State &state,
              Step step) {
  Emitter::Values last =
      e.forLoop(begin, end, 1, state.flatten(),
                [&](mlir::Value i, mlir::ValueRange carried) {
                  State next = state;
                  next.unflatten(carried);
                  step(i, next);
                  return next.flatten();
                });
  state.unflatten(last);
}

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_ATTENTIONTILE_H

//===- FixedPageProducts.h - A page for a group of queries ------*- C++ -*-===//
//
// The inner part of attention over pages of fixed-point numbers: one page, by
// query vectors that share every load of keys and values. Both products are
// exact sums of int16 pairs. Everything is in base 2:
//
//   score = float(q . k) * (q's scale * k's scale * log2 e) + log2(v's scale)
//   code  = round(2^(score - top) * 8191), top = the page's greatest score,
//           rounded up to an integer
//   sum  += 2^(top - maximum) * float(code . v)
//
// so that a page's probabilities come with the scale of their values, always
// use all bits of a code, and joining pages multiplies by powers of two alone.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_FIXEDPAGEPRODUCTS_H
#define QUERN_CODEGEN_HOST_FIXEDPAGEPRODUCTS_H

#include "codegen/host/AttentionState.h"
#include "codegen/host/Kernel.h"
#include "codegen/kernels/AttentionPlan.h"

namespace quern::host {

/// The code of probability 1.
inline constexpr double kProbabilityOne = 8191;

/// Query vectors that are worked on together, consecutive ones of scratch.
struct QueryGroup {
  mlir::Value first;                    ///< i64, of scratch's vectors
  mlir::Value firstSlot, lastSlot;      ///< i64
  llvm::SmallVector<mlir::Value> slots; ///< i32, by vector

  int64_t size() const { return slots.size(); }
};

/// Scratch of a kernel: of all its query vectors, then of those of a group.
struct QueryScratch {
  mlir::Value codes;         ///< int16 (vectors, head_dim)
  mlir::Value scales;        ///< f32 (vectors), with that of scores and log2 e
  mlir::Value sums;          ///< AttentionState (group)
  mlir::Value probabilities; ///< int16 (group, 32)
};

/// A KV head of a page. (Its codes are read in order, as a stream that hardware
/// follows; asking for them ahead only made decode slower.)
struct PageHead {
  mlir::Value number; ///< i64: its first token / 32
  mlir::Value head;   ///< pointer
};

class FixedPageProducts {
public:
  using Value = mlir::Value;

  FixedPageProducts(Kernel &k, const AttentionPlan &plan, KvLayout layout,
                    QueryScratch scratch);

  /// Adds a page to the sums of `group`. `state` and the result: maxima (f32),
  /// then sums of weights (16 lanes), by vector.
  Emitter::Values attend(const QueryGroup &group, const PageHead &page,
                         mlir::ValueRange state);
  /// The state of vector `vector` of the group: its sum of values.
  AttentionState state(int64_t vector) const;

private:
  using Rows = llvm::SmallVector<Emitter::Values>;

  Emitter::Values weightsOfKeys(const QueryGroup &group, const PageHead &page);
  Rows scores(const QueryGroup &group, const PageHead &page);
  Emitter::Values dotKeys(const QueryGroup &group, const PageHead &page,
                          int64_t from, int64_t width);
  void mask(const QueryGroup &group, const PageHead &page, Rows &scores);
  Value masked(Value score, Value slot, Value firstKey);
  Emitter::Values moveTo(mlir::ValueRange maxima, mlir::ValueRange state);
  Value storeProbabilities(int64_t vector, mlir::ValueRange scores, Value top,
                           mlir::ValueRange weights);
  void accumulate(const PageHead &page, mlir::ValueRange factors);
  int64_t chunk(int64_t size) const;
  Value keyNumbers(const PageHead &page, int64_t vector);

  Value at(Value pointer, Value i, int64_t bytes) {
    return e.offset(pointer, e.mul(i, e.index(bytes)));
  }
  mlir::Type floats() { return e.vec(kLanes, e.f32()); }
  mlir::Type ints() { return e.vec(kLanes, e.i32()); }

  Emitter &e;
  const KvLayout layout;
  const QueryScratch scratch;
  const int64_t headDim, window;
};

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_FIXEDPAGEPRODUCTS_H

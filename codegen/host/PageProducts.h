//===- PageProducts.h - A page for a group of queries -----------*- C++ -*-===//
//
// The inner part of attention: one page of keys and values, by query vectors
// that share every load of them. Everything is in base 2:
//
//   score = q . k * (scale * log2 e), and log2 of the value's scale added
//   p     = 2^(score - top), top = the page's greatest score, rounded up to an
//           integer
//   sum  += 2^(top - maximum) * (p . v)
//
// Pages of fixed-point numbers hold two int16 in a word, and both products are
// exact sums of such pairs: keys and queries with a scale a vector, p as
// round(p * 8191). With its value's scale in the score, a probability comes
// with it and always uses all bits of a code; and joining pages multiplies by
// powers of two alone. Pages of f32 hold one number in a word.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_PAGEPRODUCTS_H
#define QUERN_CODEGEN_HOST_PAGEPRODUCTS_H

#include "codegen/host/AttentionState.h"
#include "codegen/host/Kernel.h"
#include "codegen/kernels/AttentionPlan.h"

namespace quern::host {

/// Query vectors that are worked on together, consecutive ones of scratch.
struct QueryGroup {
  mlir::Value first;                    ///< i64, of scratch's vectors
  mlir::Value firstSlot, lastSlot;      ///< i64
  llvm::SmallVector<mlir::Value> slots; ///< i32, by vector

  int64_t size() const { return slots.size(); }
};

/// A KV head of a page. (Its codes are read in order, as a stream that hardware
/// follows; asking for them ahead only made decode slower.)
struct PageHead {
  mlir::Value number; ///< i64: its first token / 32
  mlir::Value head;   ///< pointer
};

class PageProducts {
public:
  using Value = mlir::Value;

  /// For a kernel of at most `vectors` query vectors, `groupSize` a group.
  PageProducts(Kernel &k, const AttentionPlan &plan, KvLayout layout,
               int64_t vectors, int64_t groupSize);

  /// Makes query vector `vector` (i64) of the f32 columns at `query`.
  void prepare(Value query, Value vector);
  /// Adds a page to the sums of `group`. `state` and the result: maxima (f32),
  /// then sums of weights (16 lanes), by vector.
  Emitter::Values attend(const QueryGroup &group, const PageHead &page,
                         mlir::ValueRange state);
  /// The state of vector `vector` of the group: its sum of values.
  AttentionState state(int64_t vector) const;
  /// What a probability of 1 is in a sum of values.
  double one() const { return isFixed ? kCodeOfOne : 1; }

private:
  using Rows = llvm::SmallVector<Emitter::Values>;
  /// The code of probability 1: 32 products with codes of values are below
  /// 2^31.
  static constexpr double kCodeOfOne = 8191;

  Rows scores(const QueryGroup &group, const PageHead &page);
  Emitter::Values dotKeys(const QueryGroup &group, const PageHead &page,
                          int64_t from, int64_t width);
  void mask(const QueryGroup &group, const PageHead &page, Rows &scores);
  Value masked(Value score, Value slot, Value keys);
  Emitter::Values tops(const Rows &scores);
  Emitter::Values moveTo(mlir::ValueRange maxima, mlir::ValueRange state);
  Emitter::Values weightsOfKeys(const QueryGroup &group, const PageHead &page);
  Value storeProbabilities(int64_t vector, mlir::ValueRange scores, Value top,
                           mlir::ValueRange weights);
  /// Steps of a page's values that some vector of the group sees.
  Value visibleSteps(const QueryGroup &group, const PageHead &page);
  void accumulate(const QueryGroup &group, const PageHead &page,
                  mlir::ValueRange factors);
  int64_t chunk(int64_t size) const;

  Value keyNumbers(const PageHead &page, int64_t vector);
  Value scalesOf(const PageHead &page, FixedKvScale scale, int64_t vector);
  Value multiply(Value sum, Value words, Value word);
  Value sumAsFloat(Value sum) {
    return isFixed ? e.toFloat(sum, e.f32()) : sum;
  }
  Value zero() {
    return isFixed ? e.constant(words(), 0) : e.constant(words(), 0.0);
  }
  mlir::Type floats() { return e.vec(kLanes, e.f32()); }
  mlir::Type word() { return isFixed ? e.i32() : e.f32(); }
  mlir::Type words() { return e.vec(kLanes, word()); }

  Emitter &e;
  const KvLayout layout;
  const int64_t headDim, window;
  const double scale; ///< of scores, and log2 e
  const bool isFixed, isDecode;
  const int64_t inWord;               ///< numbers
  const int64_t keySteps, valueSteps; ///< words of a vector, of a page's tokens
  Value queries;                      ///< scratch: words (vectors, keySteps)
  Value scales;        ///< scratch: f32 (vectors), fixed-point only
  Value sums;          ///< scratch: AttentionState (group)
  Value probabilities; ///< scratch: words (group, valueSteps)
};

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_PAGEPRODUCTS_H

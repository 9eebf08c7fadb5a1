//===- AttentionState.h - Attention to a part of a context ------*- C++ -*-===//
//
//
// A query vector's attention over some tokens: f32 [16: maximum][16 lanes: sum
// of weights][head_dim: sum of weighted values], both sums over 2^maximum. The
// maximum is an integer, so sums move to another one by a power of two, without
// rounding; the state of no token is (kNoMaximum, 0, 0). In scratch, or in the
// cache's states, where shares leave what they computed of a row's context.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_HOST_ATTENTIONSTATE_H
#define QUERN_CODEGEN_HOST_ATTENTIONSTATE_H

#include "codegen/host/Emitter.h"
#include "runtime/schema/kernel_abi.h"

namespace quern::host {

class AttentionState {
public:
  using Value = mlir::Value;

  /// Finite, so that it may be subtracted from itself.
  static constexpr double kNoMaximum = -1e30;
  static constexpr int64_t bytes(int64_t headDim) {
    return 4 * (kAttentionStateLanes + headDim);
  }

  /// The state at `pointer`, aligned to 64 bytes.
  AttentionState(Emitter &e, int64_t headDim, Value pointer)
      : e(e), headDim(headDim), pointer(pointer) {}

  /// Of no token.
  void clear() const;
  /// Takes in what `other` saw, which lies behind.
  void add(const AttentionState &other) const;
  /// Multiplies the sum of values by `factor` (16 lanes).
  void scale(Value factor) const;
  void setWeights(Value maximum, Value weights) const;
  void copyTo(Value other) const;

  Value maximum() const { return e.load(e.f32(), pointer, 64); }
  Value weights() const { return e.load(lanes(), weightsAt(), 64); }
  /// Sum of all weights.
  Value weight() const { return e.reduceAdd(weights()); }
  /// Pointer of columns [column, column + 16) of the sum of values.
  Value column(int64_t column) const {
    return e.offset(pointer, 4 * (kAttentionStateLanes + column));
  }

private:
  mlir::Type lanes() const { return e.vec(kLanes, e.f32()); }
  Value weightsAt() const { return e.offset(pointer, 4 * kLanes); }

  Emitter &e;
  int64_t headDim;
  Value pointer;
};

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_ATTENTIONSTATE_H

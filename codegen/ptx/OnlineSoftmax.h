//===- OnlineSoftmax.h - Softmax over accumulator fragments -----*- C++ -*-===//
//
// The step of FlashAttention between its two products: scores arrive as the
// accumulators of mma.m16n8k16 (or wgmma, whose warps hold the same), and leave
// as probabilities, f16 and in the places of the next product's A operand. A
// lane has, of rows lane / 4 and lane / 4 + 8 of its warp's 16, the columns
// 2 (lane % 4) and the next of each 8.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_PTX_ONLINESOFTMAX_H
#define QUERN_CODEGEN_PTX_ONLINESOFTMAX_H

#include "codegen/ptx/Emitter.h"

#include <array>

namespace quern::nvptx {

/// The two rows of a fragment that a lane holds.
inline constexpr int kLaneRows = 2;
/// Accumulators of a lane in a fragment of 16 rows and 8 columns: element i is
/// of the lane's row i / 2, column 2 (lane % 4) + i % 2.
inline constexpr int kFragment = 4;

using LaneRows = std::array<mlir::Value, kLaneRows>;

/// What a lane keeps of its rows between steps: the maximum of the scores so
/// far, and the sum of its own columns' probabilities. f32.
struct SoftmaxState {
  LaneRows maximum, sum;
};

class OnlineSoftmax {
public:
  /// Scores are multiplied by `scale` > 0.
  OnlineSoftmax(Emitter &e, double scale) : e(e), scale(scale) {}

  SoftmaxState start();
  /// Turns `scores` (tiles of kFragment, -inf where hidden) into probabilities
  /// relative to the new maximum, updates `state`, and returns what earlier
  /// results of each row are to be multiplied with.
  LaneRows step(SoftmaxState &state, llvm::MutableArrayRef<mlir::Value> scores);
  /// 1 / the sums over all columns. All lanes take part.
  LaneRows inverseSums(const SoftmaxState &state);

private:
  Emitter &e;
  double scale;
};

/// Probabilities of two neighbouring tiles (2 * kFragment) as the A operand of
/// an mma of 16 columns: 4 x i32.
Emitter::Values packOperand(Emitter &e, llvm::ArrayRef<mlir::Value> tiles);

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_ONLINESOFTMAX_H

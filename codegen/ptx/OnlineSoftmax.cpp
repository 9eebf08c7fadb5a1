//===- OnlineSoftmax.cpp --------------------------------------------------===//
#include "codegen/ptx/OnlineSoftmax.h"

#include <cmath>

using namespace mlir;

namespace quern::nvptx {

/// The maximum before the first key: finite, so that a step without any visible
/// key leaves the state as it is.
static constexpr double kNoMaximum = -1e30;
/// Lanes that share a row.
static constexpr int kRowLanes = 4;

SoftmaxState OnlineSoftmax::start() {
  Value none = e.constant(e.f32(), kNoMaximum);
  Value zero = e.constant(e.f32(), 0.0);
  return {{none, none}, {zero, zero}};
}

LaneRows OnlineSoftmax::step(SoftmaxState &state,
                             MutableArrayRef<Value> scores) {
  // Probabilities are 2^(score * factor - maximum * factor): one fma and one
  // ex2 each.
  Value factor = e.constant(e.f32(), scale * M_LOG2E);
  LaneRows corrections;
  for (int row = 0; row < kLaneRows; ++row) {
    SmallVector<Value *> mine;
    for (size_t i = 0; i < scores.size(); ++i)
      if (static_cast<int>(i % kFragment / 2) == row)
        mine.push_back(&scores[i]);
    Value maximum = *mine.front();
    for (Value *score : ArrayRef(mine).drop_front())
      maximum = e.maxNumber(maximum, *score);
    for (int mask = kRowLanes / 2; mask > 0; mask /= 2)
      maximum = e.maxNumber(maximum, e.shuffleXor(maximum, mask));
    maximum = e.maxNumber(maximum, state.maximum[row]);
    Value offset = e.mul(maximum, e.constant(e.f32(), -scale * M_LOG2E));
    // Exactly 1 where the maximum stays.
    corrections[row] =
        e.exp2Fast(e.mul(e.sub(state.maximum[row], maximum), factor));
    Value sum;
    for (Value *score : mine) {
      *score = e.exp2Fast(e.fma(*score, factor, offset));
      sum = sum ? e.add(sum, *score) : *score;
    }
    state.sum[row] = e.fma(state.sum[row], corrections[row], sum);
    state.maximum[row] = maximum;
  }
  return corrections;
}

LaneRows OnlineSoftmax::inverseSums(const SoftmaxState &state) {
  LaneRows result;
  for (int row = 0; row < kLaneRows; ++row)
    result[row] =
        e.div(e.constant(e.f32(), 1.0), e.warpSum(state.sum[row], kRowLanes));
  return result;
}

Emitter::Values packOperand(Emitter &e, ArrayRef<Value> tiles) {
  Emitter::Values words;
  for (int tile = 0; tile < 2; ++tile)
    for (int row = 0; row < kLaneRows; ++row) {
      ArrayRef<Value> pair = tiles.slice(tile * kFragment + 2 * row, 2);
      Value halves = e.truncate(e.pack(ValueRange(pair)), e.f16());
      words.push_back(e.bitcast(halves, e.i32()));
    }
  return words;
}

} // namespace quern::nvptx

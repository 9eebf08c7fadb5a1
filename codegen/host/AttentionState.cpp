//===- AttentionState.cpp -------------------------------------------------===//
#include "codegen/host/AttentionState.h"

using namespace mlir;

namespace quern::host {

void AttentionState::clear() const {
  Value zero = e.constant(lanes(), 0.0);
  setWeights(e.constant(e.f32(), kNoMaximum), zero);
  for (int64_t at = 0; at < headDim; at += kLanes)
    e.store(zero, column(at), 64);
}

void AttentionState::setWeights(Value maximum, Value weights) const {
  e.store(maximum, pointer, 64);
  e.store(weights, weightsAt(), 64);
}

void AttentionState::scale(Value factor) const {
  for (int64_t at = 0; at < headDim; at += kLanes)
    e.store(e.mul(e.load(lanes(), column(at), 64), factor), column(at), 64);
}

void AttentionState::add(const AttentionState &other) const {
  Value mine = maximum(), theirs = other.maximum();
  Value greater = e.maxF(mine, theirs);
  Value keep = e.broadcast(e.powerOfTwo(e.sub(mine, greater)));
  Value take = e.broadcast(e.powerOfTwo(e.sub(theirs, greater)));
  auto join = [&](Value own, Value added) {
    return e.fma(added, take, e.mul(own, keep));
  };
  setWeights(greater, join(weights(), other.weights()));
  for (int64_t at = 0; at < headDim; at += kLanes)
    e.store(join(e.load(lanes(), column(at), 64),
                 e.load(lanes(), other.column(at), 64)),
            column(at), 64);
}

void AttentionState::copyTo(Value other) const {
  AttentionState to(e, headDim, other);
  to.setWeights(maximum(), weights());
  for (int64_t at = 0; at < headDim; at += kLanes)
    e.store(e.load(lanes(), column(at), 64), to.column(at), 64);
}

} // namespace quern::host

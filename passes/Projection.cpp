//===- Projection.cpp - Products with a weight, in either form ------------===//
#include "passes/Projection.h"

using namespace mlir;

namespace quern {

std::optional<Projection> projectionOf(Operation *op) {
  if (auto matmul = dyn_cast_if_present<lm::MatmulOp>(op))
    return Projection{op, matmul.getX(), matmul.getW(), matmul.getBias(),
                      matmul.getResult()};
  auto matmul = dyn_cast_if_present<lm::QuantMatmulOp>(op);
  if (!matmul || matmul.getSplit() == lm::MatmulSplit::K)
    return std::nullopt;
  return Projection{op, matmul.getX(), matmul.getW(), matmul.getBias(),
                    matmul.getResult()};
}

std::optional<Projection> soleProjectionOf(Value value) {
  if (!value.hasOneUse())
    return std::nullopt;
  return projectionOf(value.getDefiningOp());
}

BlockFormat activationFormatFor(Value w) {
  return lm::activationFormatFor(*lm::formatOf(w.getType()));
}

Value storedWeight(Value w) {
  if (auto dequantize = w.getDefiningOp<lm::DequantizeOp>())
    return dequantize.getX();
  return w;
}

} // namespace quern

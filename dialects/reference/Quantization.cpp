//===- Quantization.cpp - Between floats and stored formats ---------------===//
#include "dialects/reference/Evaluate.h"

using namespace mlir;
using namespace quern;
using namespace quern::reference;

static Tensor convert(const Tensor &x, BlockFormat format) {
  Tensor y = Tensor::makeStored(format, x.shape);
  for (int64_t m = 0; m < x.rows(); ++m)
    y.setRow(m, x.row(m));
  return y;
}

LogicalResult reference::evaluate(lm::QuantizeOp op, Frame &frame) {
  frame.set(op.getResult(),
            convert(frame.tensor(op.getX()), *lm::formatOf(op.getType())));
  return success();
}

LogicalResult reference::evaluate(lm::DequantizeOp op, Frame &frame) {
  frame.set(op.getResult(), convert(frame.tensor(op.getX()), BlockFormat::F32));
  return success();
}

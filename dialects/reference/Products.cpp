//===- Products.cpp - Matrix products and their partial results -----------===//
#include "dialects/reference/Evaluate.h"

using namespace mlir;
using namespace quern;
using namespace quern::reference;

/// Adds to y (rows, N) the products over columns [begin, end), and the bias
/// where there is one. Dot products accumulate in double, ascending in k.
static void multiply(const Tensor &x, const Tensor &w, const Tensor *bias,
                     int64_t begin, int64_t end, float *y) {
  std::vector<std::vector<float>> rows;
  for (int64_t m = 0; m < x.rows(); ++m)
    rows.push_back(x.row(m));
  const int64_t columns = w.rows();
  for (int64_t n = 0; n < columns; ++n) {
    const std::vector<float> weight = w.row(n);
    for (int64_t m = 0; m < x.rows(); ++m) {
      double sum = bias ? bias->floats[n] : 0.0;
      for (int64_t k = begin; k < end; ++k)
        sum += static_cast<double>(rows[m][k]) * weight[k];
      y[m * columns + n] = static_cast<float>(sum);
    }
  }
}

/// x w^T + bias over all columns.
static Tensor product(const Tensor &x, const Tensor &w, const Tensor *bias) {
  Tensor y = Tensor::makeFloats({x.rows(), w.rows()});
  multiply(x, w, bias, 0, x.columns(), y.floats.data());
  return y;
}

static const Tensor *optional(Value value, Frame &frame) {
  return value ? &frame.tensor(value) : nullptr;
}

LogicalResult reference::evaluate(lm::MatmulOp op, Frame &frame) {
  frame.set(op.getResult(),
            product(frame.tensor(op.getX()), frame.tensor(op.getW()),
                    optional(op.getBias(), frame)));
  return success();
}

LogicalResult reference::evaluate(lm::QuantMatmulOp op, Frame &frame) {
  const Tensor &x = frame.tensor(op.getX()), &w = frame.tensor(op.getW());
  const Tensor *bias = optional(op.getBias(), frame);
  if (op.getSplit() == lm::MatmulSplit::N) {
    frame.set(op.getResult(), product(x, w, bias));
    return success();
  }
  const int64_t shares = cast<RankedTensorType>(op.getType()).getDimSize(0);
  lm::RangesAttr ranges =
      op.getRangesAttr() ? op.getRangesAttr() : frame.ranges;
  if (!ranges || ranges.getSegments() != 1 || ranges.getShares() != shares ||
      ranges.getExtent(0) != x.columns())
    return op.emitOpError("has no ranges of k for its shares");
  Tensor y = Tensor::makeFloats({shares, x.rows(), w.rows()});
  for (int64_t s = 0; s < shares; ++s)
    multiply(x, w, s == 0 ? bias : nullptr, ranges.getBegin(s, 0),
             ranges.getEnd(s, 0), y.floats.data() + s * x.rows() * w.rows());
  frame.set(op.getResult(), std::move(y));
  return success();
}

LogicalResult reference::evaluate(lm::QkvProjOp op, Frame &frame) {
  const Tensor &x = frame.tensor(op.getX());
  frame.set(op.getQ(),
            product(x, frame.tensor(op.getWq()), optional(op.getBq(), frame)));
  frame.set(op.getK(),
            product(x, frame.tensor(op.getWk()), optional(op.getBk(), frame)));
  frame.set(op.getV(),
            product(x, frame.tensor(op.getWv()), optional(op.getBv(), frame)));
  return success();
}

Tensor reference::reduceShares(const Tensor &partials) {
  Tensor y = Tensor::makeFloats({partials.shape[1], partials.shape[2]});
  for (int64_t i = 0; i < y.size(); ++i) {
    float sum = partials.floats[i];
    for (int64_t s = 1; s < partials.shape[0]; ++s)
      sum += partials.floats[s * y.size() + i];
    y.floats[i] = sum;
  }
  return y;
}

LogicalResult reference::evaluate(lm::ReduceSharesOp op, Frame &frame) {
  frame.set(op.getResult(), reduceShares(frame.tensor(op.getPartials())));
  return success();
}

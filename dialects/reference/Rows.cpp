//===- Rows.cpp - Tables, elementwise ops and reductions of rows ----------===//
#include "dialects/reference/Evaluate.h"

#include <cmath>
#include <numeric>

using namespace mlir;
using namespace quern;
using namespace quern::reference;

/// Rows of `table` that `indices` name.
static FailureOr<Tensor> gather(Operation *op, const Tensor &table,
                                const Tensor &indices) {
  Tensor y = Tensor::makeFloats({indices.size(), table.columns()});
  for (int64_t m = 0; m < indices.size(); ++m) {
    const int32_t index = indices.indices[m];
    if (index < 0 || index >= table.rows())
      return op->emitOpError() << "expected an index below " << table.rows()
                               << ", but got " << index;
    y.setRow(m, table.row(index));
  }
  return y;
}

LogicalResult reference::evaluate(lm::EmbeddingOp op, Frame &frame) {
  FailureOr<Tensor> y =
      gather(op, frame.tensor(op.getTable()), frame.tensor(op.getTokens()));
  if (succeeded(y))
    frame.set(op.getResult(), std::move(*y));
  return y;
}

LogicalResult reference::evaluate(lm::SelectRowsOp op, Frame &frame) {
  FailureOr<Tensor> y =
      gather(op, frame.tensor(op.getX()), frame.tensor(op.getRows()));
  if (succeeded(y))
    frame.set(op.getResult(), std::move(*y));
  return y;
}

//===----------------------------------------------------------------------===//
// Elementwise
//===----------------------------------------------------------------------===//

static float silu(float x) {
  return static_cast<float>(x / (1.0 + std::exp(-static_cast<double>(x))));
}

/// function(lhs[i], rhs[i]).
template <typename Function>
static LogicalResult zip(Operation *op, const Tensor &lhs, const Tensor &rhs,
                         Frame &frame, Function function) {
  if (failed(expectRows(op, rhs.rows(), lhs.rows())))
    return failure();
  Tensor y = Tensor::makeFloats(lhs.shape);
  for (int64_t i = 0; i < y.size(); ++i)
    y.floats[i] = function(lhs.floats[i], rhs.floats[i]);
  frame.set(op->getResult(0), std::move(y));
  return success();
}

LogicalResult reference::evaluate(lm::MulOp op, Frame &frame) {
  return zip(op, frame.tensor(op.getLhs()), frame.tensor(op.getRhs()), frame,
             [](float a, float b) { return a * b; });
}

LogicalResult reference::evaluate(lm::SwigluOp op, Frame &frame) {
  return zip(op, frame.tensor(op.getGate()), frame.tensor(op.getUp()), frame,
             [](float gate, float up) { return silu(gate) * up; });
}

LogicalResult reference::evaluate(lm::SiluOp op, Frame &frame) {
  Tensor y = frame.tensor(op.getX());
  for (float &value : y.floats)
    value = silu(value);
  frame.set(op.getResult(), std::move(y));
  return success();
}

Tensor reference::addDelta(const Tensor &x, const Tensor &delta) {
  const Tensor total = delta.shape.size() == 3 ? reduceShares(delta) : delta;
  Tensor y = x;
  for (int64_t i = 0; i < y.size(); ++i)
    y.floats[i] += total.floats[i];
  return y;
}

/// Rows of a delta, which may be partial results.
static int64_t deltaRows(const Tensor &delta) {
  return delta.shape[delta.shape.size() - 2];
}

LogicalResult reference::evaluate(lm::AddOp op, Frame &frame) {
  const Tensor &x = frame.tensor(op.getX());
  const Tensor &delta = frame.tensor(op.getDelta());
  if (failed(expectRows(op, deltaRows(delta), x.rows())))
    return failure();
  frame.set(op.getResult(), addDelta(x, delta));
  return success();
}

//===----------------------------------------------------------------------===//
// Reductions of rows
//===----------------------------------------------------------------------===//

static Tensor rmsNorm(const Tensor &x, const Tensor &w, float eps) {
  Tensor y = Tensor::makeFloats(x.shape);
  for (int64_t m = 0; m < x.rows(); ++m) {
    std::vector<float> row = x.row(m);
    double squares = 0;
    for (float value : row)
      squares += static_cast<double>(value) * value;
    const double scale = 1.0 / std::sqrt(squares / x.columns() + eps);
    for (int64_t k = 0; k < x.columns(); ++k)
      row[k] = static_cast<float>(row[k] * scale * w.floats[k]);
    y.setRow(m, row);
  }
  return y;
}

LogicalResult reference::evaluate(lm::RmsNormOp op, Frame &frame) {
  frame.set(op.getResult(),
            rmsNorm(frame.tensor(op.getX()), frame.tensor(op.getW()),
                    op.getEps().convertToFloat()));
  return success();
}

LogicalResult reference::evaluate(lm::AddRmsNormOp op, Frame &frame) {
  const Tensor &x = frame.tensor(op.getX());
  const Tensor &delta = frame.tensor(op.getDelta());
  if (failed(expectRows(op, deltaRows(delta), x.rows())))
    return failure();
  Tensor sum = addDelta(x, delta);
  frame.set(op.getResult(), rmsNorm(sum, frame.tensor(op.getW()),
                                    op.getEps().convertToFloat()));
  frame.set(op.getSum(), std::move(sum));
  return success();
}

LogicalResult reference::evaluate(lm::SoftmaxOp op, Frame &frame) {
  Tensor y = frame.tensor(op.getX());
  for (int64_t m = 0; m < y.rows(); ++m) {
    std::vector<float> row = y.row(m);
    const float largest = *llvm::max_element(row);
    double sum = 0;
    for (float value : row)
      sum += std::exp(static_cast<double>(value) - largest);
    for (float &value : row)
      value = static_cast<float>(
          std::exp(static_cast<double>(value) - largest) / sum);
    y.setRow(m, row);
  }
  frame.set(op.getResult(), std::move(y));
  return success();
}

LogicalResult reference::evaluate(lm::TopKOp op, Frame &frame) {
  const Tensor &x = frame.tensor(op.getX());
  const int64_t k = op.getK();
  if (k > x.columns())
    return op.emitOpError()
           << "expected at least " << k << " columns, but got " << x.columns();
  Tensor values = Tensor::makeFloats({x.rows(), k});
  Tensor columns = Tensor::makeIndices({x.rows(), k});
  for (int64_t m = 0; m < x.rows(); ++m) {
    std::vector<float> row = x.row(m);
    std::vector<int32_t> order(row.size());
    std::iota(order.begin(), order.end(), 0);
    auto isLarger = [&](int32_t a, int32_t b) {
      return std::isnan(row[a]) ? !std::isnan(row[b]) : row[a] > row[b];
    };
    llvm::sort(order, [&](int32_t a, int32_t b) {
      return isLarger(a, b) || (!isLarger(b, a) && a < b);
    });
    for (int64_t i = 0; i < k; ++i) {
      columns.indices[m * k + i] = order[i];
      values.floats[m * k + i] = row[order[i]];
    }
  }
  frame.set(op.getValues(), std::move(values));
  frame.set(op.getColumns(), std::move(columns));
  return success();
}

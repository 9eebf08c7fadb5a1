//===- Evaluate.h - Evaluation of regions and ops ---------------*- C++ -*-===//
//
// One overload of evaluate() per op; Region.cpp finds it, the family's file
// defines it (Products.cpp, Rows.cpp, Quantization.cpp, Attention.cpp).
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_DIALECTS_REFERENCE_EVALUATE_H
#define QUERN_DIALECTS_REFERENCE_EVALUATE_H

#include "dialects/reference/Interpreter.h"

namespace quern::reference {

/// Values of one activation of a region.
class Frame {
public:
  Frame(const WeightProvider &weights, int64_t layer, lm::RangesAttr ranges)
      : weights(weights), layer(layer), ranges(ranges) {}

  const WeightProvider &weights;
  const int64_t layer;
  /// Ranges of the kernel around the region, or null.
  const lm::RangesAttr ranges;

  const Tensor &tensor(mlir::Value value) const {
    return *std::get<std::shared_ptr<const Tensor>>(values.at(value));
  }
  const KvCache &cache(mlir::Value value) const {
    return *std::get<std::shared_ptr<const KvCache>>(values.at(value));
  }
  const Datum &get(mlir::Value value) const { return values.at(value); }
  void set(mlir::Value value, Datum datum) {
    values.insert_or_assign(value, std::move(datum));
  }
  void set(mlir::Value value, Tensor tensor) {
    set(value, datum(std::move(tensor)));
  }

private:
  llvm::DenseMap<mlir::Value, Datum> values;
};

/// Runs a region of one block on `arguments`; the operands of its terminator.
mlir::FailureOr<Data> runRegion(mlir::Region &region,
                                llvm::ArrayRef<Datum> arguments,
                                const WeightProvider &weights, int64_t layer,
                                lm::RangesAttr ranges = {});

/// Asks for a weight, checking what comes back. `op` is where errors are said.
mlir::FailureOr<Tensor> getWeight(mlir::Operation *op, llvm::StringRef name,
                                  mlir::RankedTensorType type,
                                  std::optional<mlir::Type> source,
                                  const WeightProvider &weights, int64_t layer);

/// Checks that two row counts, known only now, agree.
mlir::LogicalResult expectRows(mlir::Operation *op, int64_t rows,
                               int64_t wanted);

/// x + delta, with partial deltas (S, ?, K) added in share order first.
Tensor addDelta(const Tensor &x, const Tensor &delta);

/// ((p[0] + p[1]) + ...), (S, ?, N) to (?, N).
Tensor reduceShares(const Tensor &partials);

/// A dispatch list interpreter: logits of every position.
mlir::FailureOr<Tensor> runProgram(rt::ProgramOp program,
                                   llvm::ArrayRef<int32_t> tokens,
                                   const WeightProvider &weights);

mlir::LogicalResult evaluate(lm::AddOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::AddRmsNormOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::AttentionOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::DequantizeOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::EmbeddingOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::KernelOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::KvAppendOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::MatmulOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::MulOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::OnlineAttentionOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::QkvProjOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::QuantMatmulOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::QuantizeOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::ReduceSharesOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::RmsNormOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::RopeOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::SelectRowsOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::SiluOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::SoftmaxOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::SwigluOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::TopKOp op, Frame &frame);
mlir::LogicalResult evaluate(lm::WeightOp op, Frame &frame);

} // namespace quern::reference

#endif // QUERN_DIALECTS_REFERENCE_EVALUATE_H

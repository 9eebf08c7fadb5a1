//===- QuantizeActivations.cpp - Inputs of matmuls to int8 or f16 ---------===//
#include "passes/Passes.h"
#include "passes/Projection.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_QUANTIZEACTIVATIONSPASS
#include "passes/Passes.h.inc"

namespace {
/// Columns that kernels store together.
constexpr int64_t kGroup = 32;

struct QuantizeActivationsPass
    : impl::QuantizeActivationsPassBase<QuantizeActivationsPass> {
  void runOnOperation() override {
    getOperation().walk([&](lm::MatmulOp matmul) {
      Value x = matmul.getX(), w = storedWeight(matmul.getW());
      auto type = cast<RankedTensorType>(x.getType());
      if (!w.getDefiningOp<lm::WeightOp>() ||
          x.getDefiningOp<lm::DequantizeOp>() ||
          type.getDimSize(1) % kGroup != 0)
        return;
      BlockFormat format = activationFormatFor(w);
      Value &rounded = roundedBy[{x, static_cast<unsigned>(format)}];
      if (!rounded)
        rounded = round(x, format);
      matmul.getXMutable().assign(rounded);
    });
    roundedBy.clear();
  }

  /// `x` through `format` and back.
  static Value round(Value x, BlockFormat format) {
    OpBuilder builder(x.getContext());
    builder.setInsertionPointAfterValue(x);
    auto type = cast<RankedTensorType>(x.getType());
    auto stored = type.clone(lm::elementTypeOf(x.getContext(), format));
    Value quantized = lm::QuantizeOp::create(builder, x.getLoc(), stored, x);
    return lm::DequantizeOp::create(builder, x.getLoc(), type, quantized);
  }

  /// One rounding serves all matmuls that read the same input in one format.
  DenseMap<std::pair<Value, unsigned>, Value> roundedBy;
};
} // namespace
} // namespace quern

//===- QuantizeActivations.cpp - Inputs of quantized matmuls to int8 ------===//
#include "passes/Passes.h"
#include "passes/Projection.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_QUANTIZEACTIVATIONSPASS
#include "passes/Passes.h.inc"

namespace {
struct QuantizeActivationsPass
    : impl::QuantizeActivationsPassBase<QuantizeActivationsPass> {
  void runOnOperation() override {
    getOperation().walk([&](lm::MatmulOp matmul) {
      if (!isQuantizedWeight(storedWeight(matmul.getW())) ||
          matmul.getX().getDefiningOp<lm::DequantizeOp>())
        return;
      Value &rounded = roundedBy[matmul.getX()];
      if (!rounded)
        rounded = round(matmul.getX());
      matmul.getXMutable().assign(rounded);
    });
    roundedBy.clear();
  }

  /// `x` through int8 and back.
  static Value round(Value x) {
    OpBuilder builder(x.getContext());
    builder.setInsertionPointAfterValue(x);
    auto type = cast<RankedTensorType>(x.getType());
    auto integers =
        type.clone(lm::elementTypeOf(x.getContext(), BlockFormat::A8));
    Value quantized = lm::QuantizeOp::create(builder, x.getLoc(), integers, x);
    return lm::DequantizeOp::create(builder, x.getLoc(), type, quantized);
  }

  /// One rounding serves all matmuls that read the same input.
  DenseMap<Value, Value> roundedBy;
};
} // namespace
} // namespace quern

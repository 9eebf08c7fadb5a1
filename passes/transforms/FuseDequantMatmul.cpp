//===- FuseDequantMatmul.cpp - Multiply in the stored formats -------------===//
#include "passes/Passes.h"
#include "passes/Projection.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_FUSEDEQUANTMATMULPASS
#include "passes/Passes.h.inc"

namespace {
/// The activations behind `x` in the format that is read beside `w`, or `x`:
/// integers times floats has no kernel.
Value activationsOf(Value x, Value w) {
  auto dequantize = x.getDefiningOp<lm::DequantizeOp>();
  if (dequantize && lm::formatOf(dequantize.getX().getType()) ==
                        std::optional(activationFormatFor(w)))
    return dequantize.getX();
  return x;
}

struct FuseDequantMatmulPass
    : impl::FuseDequantMatmulPassBase<FuseDequantMatmulPass> {
  void runOnOperation() override {
    IRRewriter rewriter(&getContext());
    getOperation().walk([&](lm::MatmulOp matmul) {
      Value w = storedWeight(matmul.getW());
      if (!w.getDefiningOp<lm::WeightOp>()) {
        matmul.emitRemark("not fused: the right side is not a stored weight");
        return;
      }
      Value x = activationsOf(matmul.getX(), w);
      rewriter.setInsertionPoint(matmul);
      rewriter.replaceOpWithNewOp<lm::QuantMatmulOp>(
          matmul, matmul.getType(), x, w, matmul.getBias(), lm::MatmulSplit::N,
          /*ranges=*/lm::RangesAttr(), matmul.getTilesAttr());
    });
    // Dequantized copies that nothing reads any more.
    getOperation().walk([&](lm::DequantizeOp dequantize) {
      if (dequantize->use_empty())
        rewriter.eraseOp(dequantize);
    });
  }
};
} // namespace
} // namespace quern

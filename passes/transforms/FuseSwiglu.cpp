//===- FuseSwiglu.cpp - Fuse silu of the gate with the product by up ------===//
#include "dialects/lm/Lm.h"
#include "passes/Passes.h"
#include "passes/Projection.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_FUSESWIGLUPASS
#include "passes/Passes.h.inc"

namespace {
struct FuseSwigluPass : impl::FuseSwigluPassBase<FuseSwigluPass> {
  void runOnOperation() override {
    IRRewriter rewriter(&getContext());
    getOperation().walk([&](lm::MulOp mul) {
      auto silu = mul.getLhs().getDefiningOp<lm::SiluOp>();
      if (!silu)
        return;
      if (!silu->hasOneUse()) {
        mul.emitRemark("not fused: the silu has other readers");
        return;
      }
      rewriter.setInsertionPoint(mul);
      rewriter.replaceOpWithNewOp<lm::SwigluOp>(mul, mul.getType(), silu.getX(),
                                                mul.getRhs());
      rewriter.eraseOp(silu);
    });
  }
};
} // namespace
} // namespace quern

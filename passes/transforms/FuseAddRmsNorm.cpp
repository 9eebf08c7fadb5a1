//===- FuseAddRmsNorm.cpp - Fuse a residual add with its norm -------------===//
#include "dialects/lm/Lm.h"
#include "passes/Passes.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_FUSEADDRMSNORMPASS
#include "passes/Passes.h.inc"

namespace {
struct FuseAddRmsNormPass : impl::FuseAddRmsNormPassBase<FuseAddRmsNormPass> {
  void runOnOperation() override {
    IRRewriter rewriter(&getContext());
    getOperation().walk([&](lm::RmsNormOp norm) {
      auto add = norm.getX().getDefiningOp<lm::AddOp>();
      if (!add || add->getBlock() != norm->getBlock())
        return;
      // The sum may have readers between the two ops, so the fused op takes the
      // place of the add; the norm's weight is all that may have to move.
      if (Operation *weight = norm.getW().getDefiningOp()) {
        if (add->isBeforeInBlock(weight))
          rewriter.moveOpBefore(weight, add);
      }
      rewriter.setInsertionPoint(add);
      auto fused = lm::AddRmsNormOp::create(
          rewriter, norm.getLoc(), add.getType(), norm.getType(), add.getX(),
          add.getDelta(), norm.getW(), norm.getEpsAttr());
      rewriter.replaceOp(norm, fused.getResult());
      rewriter.replaceOp(add, fused.getSum());
    });
  }
};
} // namespace
} // namespace quern

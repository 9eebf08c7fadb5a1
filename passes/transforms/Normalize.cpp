//===- Normalize.cpp - The form that the other passes match ---------------===//
#include "dialects/lm/Lm.h"
#include "passes/Passes.h"

#include "mlir/IR/Dominance.h"
#include "mlir/Transforms/CSE.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_NORMALIZEPASS
#include "passes/Passes.h.inc"

namespace {
bool isProduct(Value value) {
  return isa_and_present<lm::MatmulOp, lm::QuantMatmulOp>(
      value.getDefiningOp());
}

struct NormalizePass : impl::NormalizePassBase<NormalizePass> {
  void runOnOperation() override {
    IRRewriter rewriter(&getContext());
    getOperation().walk([&](Operation *op) {
      if (auto add = dyn_cast<lm::AddOp>(op)) {
        // Float addition commutes exactly, so only the order of reading
        // changes.
        if (isProduct(add.getX()) && !isProduct(add.getDelta()) &&
            add.getX().getType() == add.getDelta().getType())
          swapOperands(op);
      } else if (auto mul = dyn_cast<lm::MulOp>(op)) {
        if (mul.getRhs().getDefiningOp<lm::SiluOp>() &&
            !mul.getLhs().getDefiningOp<lm::SiluOp>())
          swapOperands(op);
      }
    });
    DominanceInfo dominance(getOperation());
    eliminateCommonSubExpressions(rewriter, dominance, getOperation());
  }

  static void swapOperands(Operation *op) {
    Value first = op->getOperand(0), second = op->getOperand(1);
    op->setOperands({second, first});
  }
};
} // namespace
} // namespace quern

//===- TileMatmul.cpp - Tiles of matmuls for every target and role --------===//
#include "dialects/lm/Lm.h"
#include "passes/Passes.h"
#include "passes/tiling/Tiles.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_TILEMATMULPASS
#include "passes/Passes.h.inc"

namespace {
struct TileMatmulPass : impl::TileMatmulPassBase<TileMatmulPass> {
  using TileMatmulPassBase::TileMatmulPassBase;

  void runOnOperation() override {
    auto tilesOf = [&](KernelFamily family) {
      return tileTable(getOperation(), llvm::to_vector(targetNames), family);
    };
    FailureOr<DictionaryAttr> quantized = tilesOf(KernelFamily::Matmul);
    FailureOr<DictionaryAttr> floats = tilesOf(KernelFamily::FloatMatmul);
    if (failed(quantized) || failed(floats))
      return signalPassFailure();
    // Tiles that are there already were chosen by hand or by tuning.
    getOperation().walk([&](Operation *op) {
      if (!isa<lm::MatmulOp, lm::QuantMatmulOp, lm::QkvProjOp>(op) ||
          op->hasAttr("tiles"))
        return;
      bool isQuantized =
          lm::isQuantizedActivations(op->getOperand(0).getType());
      op->setAttr("tiles", isQuantized ? *quantized : *floats);
    });
  }
};
} // namespace
} // namespace quern

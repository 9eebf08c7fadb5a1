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
    auto tilesFor = [&](BlockFormat activations) {
      return tileTable(getOperation(), llvm::to_vector(targetNames),
                       [&](const Target &target) {
                         return familyFor(activations, target);
                       });
    };
    llvm::SmallDenseMap<unsigned, DictionaryAttr> tiles;
    for (BlockFormat format : {BlockFormat::F32, BlockFormat::F16,
                               BlockFormat::A8, BlockFormat::E4M3}) {
      FailureOr<DictionaryAttr> table = tilesFor(format);
      if (failed(table))
        return signalPassFailure();
      tiles[static_cast<unsigned>(format)] = *table;
    }
    // Tiles that are there already were chosen by hand or by tuning.
    getOperation().walk([&](Operation *op) {
      if (!isa<lm::MatmulOp, lm::QuantMatmulOp, lm::QkvProjOp>(op) ||
          op->hasAttr("tiles"))
        return;
      BlockFormat format = *lm::formatOf(op->getOperand(0).getType());
      op->setAttr("tiles", tiles.lookup(static_cast<unsigned>(format)));
    });
  }

  /// GPUs read f16 and e4m3 activations on tensor cores, hosts as the floats
  /// they are.
  static KernelFamily familyFor(BlockFormat activations, const Target &target) {
    bool isNumeric = activations == BlockFormat::A8 ||
                     (activations != BlockFormat::F32 && target.isGpu());
    return isNumeric ? KernelFamily::Matmul : KernelFamily::FloatMatmul;
  }
};
} // namespace
} // namespace quern

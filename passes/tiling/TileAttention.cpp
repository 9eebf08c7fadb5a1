//===- TileAttention.cpp - Tiles of attention for every target and role ---===//
#include "dialects/lm/Lm.h"
#include "passes/Passes.h"
#include "passes/tiling/Tiles.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_TILEATTENTIONPASS
#include "passes/Passes.h.inc"

namespace {
struct TileAttentionPass : impl::TileAttentionPassBase<TileAttentionPass> {
  using TileAttentionPassBase::TileAttentionPassBase;

  void runOnOperation() override {
    FailureOr<DictionaryAttr> tiles =
        tileTable(getOperation(), llvm::to_vector(targetNames),
                  [](const Target &) { return KernelFamily::Attention; });
    if (failed(tiles))
      return signalPassFailure();
    // Tiles that are there already were chosen by hand or by tuning.
    getOperation().walk([&](Operation *op) {
      if (lm::isAttention(*op) && !op->hasAttr("tiles"))
        op->setAttr("tiles", *tiles);
    });
  }
};
} // namespace
} // namespace quern

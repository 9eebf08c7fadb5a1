//===- ConvertAttentionToOnlineAttention.cpp - Attention in one pass ------===//
#include "dialects/lm/Lm.h"
#include "passes/Passes.h"

#include <numeric>

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_CONVERTATTENTIONTOONLINEATTENTIONPASS
#include "passes/Passes.h.inc"

namespace {
/// Keys of a tile, where pages allow it.
constexpr int64_t kKeyTile = 32;

struct ConvertAttentionToOnlineAttentionPass
    : impl::ConvertAttentionToOnlineAttentionPassBase<
          ConvertAttentionToOnlineAttentionPass> {
  void runOnOperation() override {
    IRRewriter rewriter(&getContext());
    getOperation().walk([&](lm::AttentionOp op) {
      // A tile lies in one page.
      const int64_t tile = std::gcd(op.getKv().getType().getPage(), kKeyTile);
      rewriter.setInsertionPoint(op);
      auto online = lm::OnlineAttentionOp::create(
          rewriter, op.getLoc(), op.getType(), op.getQ(), op.getKv(),
          op.getPositions(), op.getHeadsAttr(), op.getScaleAttr(),
          op.getWindowAttr(), rewriter.getI64IntegerAttr(tile),
          op.getTilesAttr());
      rewriter.replaceOp(op, online);
    });
  }
};
} // namespace
} // namespace quern

//===- LmAttention.cpp - Positions, caches and attention ------------------===//
//
// Labels in comments (`attention_c1`) are those of docs/spec.md.
//
//===----------------------------------------------------------------------===//
#include "dialects/lm/Lm.h"
#include "dialects/lm/Verify.h"

using namespace mlir;
using namespace quern;
using namespace quern::lm;

LogicalResult RopeOp::verify() {
  // rope_c1
  if (failed(expectSize(*this, "columns of x (heads * head_dim)",
                        dim(getX(), 1), getHeads() * getHeadDim())))
    return failure();
  // rope_c2
  if (failed(expectSize(*this, "columns of the result", dim(getResult(), 1),
                        dim(getX(), 1))) ||
      failed(expectSize(*this, "rows of the result", dim(getResult(), 0),
                        dim(getX(), 0))))
    return failure();
  // rope_c3
  if (failed(expectSize(*this, "the number of positions",
                        dim(getPositions(), 0), dim(getX(), 0))))
    return failure();
  // rope_c4
  if (getRotaryDim() % 2 != 0 || getRotaryDim() > getHeadDim())
    return emitOpError() << "expected rotary_dim to be even and at most "
                         << getHeadDim() << ", but got " << getRotaryDim();
  // rope_c5
  if (getFactors() &&
      failed(expectSize(*this, "the number of factors (rotary_dim / 2)",
                        dim(getFactors(), 0), getRotaryDim() / 2)))
    return failure();
  // rope_c6
  if (!getBase().isFinite() || getBase().isNegative() || getBase().isZero())
    return emitOpError("expected base to be finite and positive");
  return success();
}

LogicalResult KvAppendOp::verify() {
  // kv_append_c1
  if (getKv().getType() != getResult().getType())
    return emitOpError() << "expected the result to be a " << getKv().getType()
                         << ", but got " << getResult().getType();
  // kv_append_c2
  const int64_t columns = cast<KvCacheType>(getKv().getType()).getRowElements();
  if (failed(expectSize(*this, "columns of k", dim(getK(), 1), columns)) ||
      failed(expectSize(*this, "columns of v", dim(getV(), 1), columns)))
    return failure();
  // kv_append_c3
  return expectSize(*this, "rows of v", dim(getV(), 0), dim(getK(), 0));
}

/// The constraints of lm.attention and lm.online_attention.
template <typename OpT> static LogicalResult verifyAttention(OpT op) {
  auto kv = cast<KvCacheType>(op.getKv().getType());
  const int64_t heads = op.getHeads();
  // attention_c1, online_attention_c1
  if (heads % kv.getHeads() != 0)
    return op.emitOpError() << "expected heads to be a multiple of the cache's "
                            << kv.getHeads() << ", but got " << heads;
  // attention_c2, online_attention_c2
  if (failed(expectSize(op, "columns of q (heads * head_dim)",
                        dim(op.getQ(), 1), heads * kv.getHeadDim())))
    return failure();
  // attention_c3, online_attention_c3
  if (failed(expectSize(op, "columns of the result", dim(op.getResult(), 1),
                        dim(op.getQ(), 1))) ||
      failed(expectSize(op, "rows of the result", dim(op.getResult(), 0),
                        dim(op.getQ(), 0))))
    return failure();
  // attention_c4, online_attention_c4
  if (failed(expectSize(op, "the number of positions",
                        dim(op.getPositions(), 0), dim(op.getQ(), 0))))
    return failure();
  // attention_c5, online_attention_c5
  if (!op.getScale().isFinite())
    return op.emitOpError("expected a finite scale");
  // attention_c6, online_attention_c6
  return verifyTiles(op, op.getTilesAttr());
}

LogicalResult AttentionOp::verify() { return verifyAttention(*this); }

LogicalResult OnlineAttentionOp::verify() {
  if (failed(verifyAttention(*this)))
    return failure();
  // online_attention_c7: a tile lies in one page.
  const int64_t page = cast<KvCacheType>(getKv().getType()).getPage();
  if (page % getKeyTile() != 0)
    return emitOpError() << "expected key_tile to divide the page of " << page
                         << " rows, but got " << getKeyTile();
  return success();
}

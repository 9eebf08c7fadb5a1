//===- FuseQkv.cpp - Fuse the three projections of attention --------------===//
#include "passes/Passes.h"
#include "passes/Projection.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_FUSEQKVPASS
#include "passes/Passes.h.inc"

namespace {
/// The projection that `value` comes from, through rope or not.
std::optional<Projection> throughRope(Value value) {
  if (auto rope = soleDef<lm::RopeOp>(value))
    value = rope.getX();
  return soleProjectionOf(value);
}

struct FuseQkvPass : impl::FuseQkvPassBase<FuseQkvPass> {
  void runOnOperation() override {
    getOperation().walk([&](Operation *op) {
      if (auto attention = dyn_cast<lm::AttentionOp>(op))
        fuse(op, attention.getQ(), attention.getKv());
      else if (auto online = dyn_cast<lm::OnlineAttentionOp>(op))
        fuse(op, online.getQ(), online.getKv());
    });
  }

  void fuse(Operation *attention, Value query, Value cache) {
    auto append = cache.getDefiningOp<lm::KvAppendOp>();
    if (!append)
      return;
    auto q = throughRope(query), k = throughRope(append.getK()),
         v = throughRope(append.getV());
    if (const char *reason = whyNot(q, k, v)) {
      attention->emitRemark("queries, keys and values not fused: ") << reason;
      return;
    }
    replace(*q, *k, *v);
  }

  /// Why the three cannot be one op; nullptr when they can.
  static const char *whyNot(const std::optional<Projection> &q,
                            const std::optional<Projection> &k,
                            const std::optional<Projection> &v) {
    if (!q || !k || !v)
      return "not three projections that nothing else reads";
    if (q->x != k->x || q->x != v->x)
      return "they read different inputs";
    if (!q->bias != !k->bias || !q->bias != !v->bias)
      return "only some have a bias";
    for (const Projection *p : {&*q, &*k, &*v})
      if (!p->w.getDefiningOp<lm::WeightOp>())
        return "a weight is dequantized first";
    return nullptr;
  }

  void replace(const Projection &q, const Projection &k, const Projection &v) {
    // The last of the three is behind every weight and bias, and before every
    // reader once those have moved there.
    Operation *last = q.op;
    for (Operation *op : {k.op, v.op})
      if (last->isBeforeInBlock(op))
        last = op;
    OpBuilder builder(last);
    auto fused = lm::QkvProjOp::create(
        builder, last->getLoc(), q.result.getType(), k.result.getType(),
        v.result.getType(), q.x, q.w, k.w, v.w, q.bias, k.bias, v.bias,
        /*ranges=*/lm::RangesAttr(), /*tiles=*/DictionaryAttr());
    IRRewriter rewriter(&getContext());
    for (auto [projection, result] :
         {std::pair(q, fused.getQ()), {k, fused.getK()}, {v, fused.getV()}}) {
      for (Operation *reader : projection.result.getUsers())
        if (reader->isBeforeInBlock(fused))
          rewriter.moveOpAfter(reader, fused);
      rewriter.replaceAllUsesWith(projection.result, result);
      rewriter.eraseOp(projection.op);
    }
  }
};
} // namespace
} // namespace quern

//===- SplitShares.cpp - Cut the work of every body in shares -------------===//
//
// Two steps. Analysis finds the dimensions that are cut, and which ops share
// one: attention's queries with the projection before it and the product after
// it, keys with values, a feed-forward product with the columns it sums over.
// Then the number of shares is known, and every op gets its ranges.
//
//===----------------------------------------------------------------------===//
#include "passes/Passes.h"
#include "passes/Projection.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

#include <numeric>

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_SPLITSHARESPASS
#include "passes/Passes.h.inc"

namespace {
/// Rows of a packed row block: what a cut of a weight's rows is a multiple of.
constexpr int64_t kRowBlock = 16;
/// What a cut of the head is a multiple of: pieces of two row blocks have whole
/// cache lines in every format, so they follow one another without padding and
/// an embedding tied to the head can read them as one matrix.
constexpr int64_t kHeadUnit = 2 * kRowBlock;
/// Columns of a group: what a cut along k is a multiple of.
constexpr int64_t kGroup = 32;
constexpr int64_t kMaxShares = 64;

/// A dimension that is cut in shares.
struct Cut {
  int64_t extent = 0;
  /// Ranges begin at multiples of it.
  int64_t unit = kRowBlock;
  /// Who gets the units that do not divide: the first or the last shares.
  /// Queries go to the last and keys and values to the first, to balance them.
  bool remainderLast = false;
  /// A product is summed over it: every share should have some.
  bool summed = false;

  int64_t units() const { return llvm::divideCeil(extent, unit); }

  /// [begin, end) of every share.
  SmallVector<std::pair<int64_t, int64_t>> ranges(int64_t shares) const {
    SmallVector<std::pair<int64_t, int64_t>> result;
    const int64_t each = units() / shares, rest = units() % shares;
    int64_t begin = 0;
    for (int64_t share = 0; share < shares; ++share) {
      const bool extra = remainderLast ? share >= shares - rest : share < rest;
      const int64_t end = std::min(begin + (each + extra) * unit, extent);
      result.push_back({begin, end});
      begin = end;
    }
    return result;
  }
};

int64_t columnsOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getShape().back();
}

/// Elements of k that packed weights of this format cannot be cut inside of.
int64_t kUnit(Value weight) {
  const BlockFormatInfo &info =
      blockFormatInfo(*lm::formatOf(weight.getType()));
  return std::max<int64_t>(kGroup, info.blockElements);
}

/// Whether `use` reads a value as the delta of a residual add.
bool isDelta(OpOperand &use) {
  return isa<lm::AddOp, lm::AddRmsNormOp>(use.getOwner()) &&
         use.getOperandNumber() == 1;
}

/// The cuts of one body, and the ops that will be told.
class BodyCuts {
public:
  void analyse(func::FuncOp body);
  /// The most shares that give every share some of each summed dimension.
  int64_t maxShares() const;
  void apply(int64_t shares);

private:
  int newCut(Cut cut) {
    cuts.push_back(cut);
    return cuts.size() - 1;
  }
  void cutAttention(Operation *attention, Value query, Value cache);
  void cutSum(lm::QuantMatmulOp product);
  int cutBehind(Value value, int64_t unit);
  void collectSources(Value value, SmallVectorImpl<Value> &sources);
  void cutResult(Value result, int cut);
  void setRanges(Operation *op, ArrayRef<int> segments, int64_t shares);
  void sumPerShare(lm::QuantMatmulOp product, int cut, int64_t shares);

  SmallVector<Cut> cuts;
  /// Cut of the columns of a value; by result, since qkv_proj has three.
  llvm::DenseMap<Value, int> cutOf;
  /// Products summed over a cut, in order.
  SmallVector<std::pair<lm::QuantMatmulOp, int>> sums;
  /// Ops that get ranges, in order.
  SmallVector<Operation *> ops;
};

/// `value` has its columns cut by `cut`, and so has what rope made it from.
void BodyCuts::cutResult(Value value, int cut) {
  cutOf.try_emplace(value, cut);
  if (auto rope = value.getDefiningOp<lm::RopeOp>())
    cutOf.try_emplace(rope.getX(), cut);
}

void BodyCuts::cutAttention(Operation *attention, Value query, Value cache) {
  auto type = cast<lm::KvCacheType>(cache.getType());
  const int64_t headDim = type.getHeadDim();
  // The result may be quantized, in groups.
  const int queries = newCut({.extent = columnsOf(query),
                              .unit = std::lcm(headDim, kGroup),
                              .remainderLast = true});
  cutOf.try_emplace(attention->getResult(0), queries);
  cutResult(query, queries);
  auto append = cache.getDefiningOp<lm::KvAppendOp>();
  if (!append || cutOf.contains(append.getK()))
    return;
  const int keys = newCut(
      {.extent = type.getRowElements(), .unit = std::lcm(headDim, kRowBlock)});
  cutResult(append.getK(), keys);
  cutResult(append.getV(), keys);
}

/// The values that elementwise ops make `value` from, column by column.
void BodyCuts::collectSources(Value value, SmallVectorImpl<Value> &sources) {
  Operation *op = value.getDefiningOp();
  sources.push_back(value);
  if (isa_and_present<lm::QuantizeOp, lm::DequantizeOp, lm::SiluOp, lm::MulOp,
                      lm::SwigluOp>(op))
    for (Value operand : op->getOperands())
      collectSources(operand, sources);
}

/// The cut of `value`'s columns and of all that they are made from; new ones
/// are multiples of `unit`, known ones become so.
int BodyCuts::cutBehind(Value value, int64_t unit) {
  SmallVector<Value> sources;
  collectSources(value, sources);
  int cut = -1;
  for (Value source : sources)
    if (auto it = cutOf.find(source); it != cutOf.end())
      cut = it->second;
  if (cut < 0)
    cut = newCut({.extent = columnsOf(value)});
  cuts[cut].unit = std::lcm(cuts[cut].unit, unit);
  for (Value source : sources)
    cutOf[source] = cut;
  return cut;
}

void BodyCuts::cutSum(lm::QuantMatmulOp product) {
  // A bias would be added once per share.
  if (product.getSplit() == lm::MatmulSplit::K || product.getBias() ||
      llvm::none_of(product->getUses(), isDelta))
    return;
  const int cut = cutBehind(product.getX(), kUnit(product.getW()));
  cuts[cut].summed = true;
  sums.push_back({product, cut});
}

void BodyCuts::analyse(func::FuncOp body) {
  body.walk([&](Operation *op) {
    if (auto attention = dyn_cast<lm::AttentionOp>(op))
      cutAttention(op, attention.getQ(), attention.getKv());
    else if (auto online = dyn_cast<lm::OnlineAttentionOp>(op))
      cutAttention(op, online.getQ(), online.getKv());
  });
  // Gate and up may be quantized together, in groups.
  body.walk(
      [&](lm::SwigluOp swiglu) { cutBehind(swiglu.getResult(), kGroup); });
  body.walk([&](lm::QuantMatmulOp product) { cutSum(product); });
  body.walk([&](Operation *op) {
    if (!lm::isAttention(*op) &&
        !isa<lm::MatmulOp, lm::QuantMatmulOp, lm::QkvProjOp, lm::RopeOp,
             lm::KvAppendOp>(op))
      return;
    ops.push_back(op);
    for (Value result : op->getResults())
      if (isa<RankedTensorType>(result.getType()) && !cutOf.contains(result))
        cutOf[result] =
            newCut({.extent = columnsOf(result), .unit = kHeadUnit});
  });
}

int64_t BodyCuts::maxShares() const {
  int64_t shares = kMaxShares;
  for (const Cut &cut : cuts)
    if (cut.summed)
      shares = std::min(shares, cut.units());
  return shares;
}

void BodyCuts::setRanges(Operation *op, ArrayRef<int> segments,
                         int64_t shares) {
  SmallVector<int64_t> bounds;
  for (int64_t share = 0; share < shares; ++share) {
    for (int segment : segments) {
      auto [begin, end] = cuts[segment].ranges(shares)[share];
      bounds.append({begin, end});
    }
  }
  op->setAttr("ranges",
              lm::RangesAttr::get(op->getContext(), segments.size(), bounds));
}

void BodyCuts::sumPerShare(lm::QuantMatmulOp product, int cut, int64_t shares) {
  auto type = cast<RankedTensorType>(product.getType());
  product.setSplit(lm::MatmulSplit::K);
  product.getResult().setType(RankedTensorType::get(
      {shares, type.getDimSize(0), type.getDimSize(1)}, type.getElementType()));
  setRanges(product, {cut}, shares);
  OpBuilder builder(product->getContext());
  builder.setInsertionPointAfter(product);
  lm::ReduceSharesOp sum;
  for (OpOperand &use : llvm::make_early_inc_range(product->getUses())) {
    if (isDelta(use))
      continue;
    if (!sum)
      sum = lm::ReduceSharesOp::create(builder, product.getLoc(), type,
                                       product.getResult());
    use.set(sum.getResult());
  }
}

void BodyCuts::apply(int64_t shares) {
  for (auto [product, cut] : sums)
    sumPerShare(product, cut, shares);
  for (Operation *op : ops) {
    if (op->hasAttr("ranges"))
      continue;
    SmallVector<int> segments;
    if (auto append = dyn_cast<lm::KvAppendOp>(op)) {
      if (!cutOf.contains(append.getK()) || !cutOf.contains(append.getV()))
        continue;
      segments = {cutOf.at(append.getK()), cutOf.at(append.getV())};
    } else {
      for (Value result : op->getResults())
        segments.push_back(cutOf.at(result));
    }
    setRanges(op, segments, shares);
  }
}

struct SplitSharesPass : impl::SplitSharesPassBase<SplitSharesPass> {
  using SplitSharesPassBase::SplitSharesPassBase;

  void runOnOperation() override {
    if (shares < 1 || shares > kMaxShares) {
      getOperation().emitError("cannot cut a model in ")
          << shares.getValue() << " shares (1 to " << kMaxShares << ")";
      return signalPassFailure();
    }
    SmallVector<BodyCuts> bodies;
    int64_t possible = shares;
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      bodies.emplace_back().analyse(function);
      possible = std::min(possible, bodies.back().maxShares());
    }
    if (possible < shares)
      getOperation().emitRemark("cut in ")
          << possible << " shares, not " << shares.getValue()
          << ": it has no more heads or feed-forward columns to divide";
    if (possible == 1)
      return;
    for (BodyCuts &body : bodies)
      body.apply(possible);
  }
};
} // namespace
} // namespace quern

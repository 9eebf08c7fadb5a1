//===- AttentionKernel.cpp - Attention over the KV pages ------------------===//
//
// lm.online_attention and lm.attention, each with an optional lm.quantize of
// the result. PageProducts.h has the arithmetic.
//
// A query vector is one row and one head. Those of an item that read the same
// KV head are taken in groups of `tile.rows`, which share every load of keys
// and values; what is left over goes as a group of half as many, or alone.
// A context is worked off in blocks of kAttentionBlock tokens, each with a
// state of its own (AttentionState.h), and the states are joined in order: who
// computes a block, and in which company, changes no bit.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/AttentionOutput.h"
#include "codegen/host/PackedLayout.h"
#include "codegen/host/PageProducts.h"
#include "runtime/schema/kernel_abi.h"

using namespace mlir;

namespace quern::host {
namespace {

constexpr int64_t kBlockPages = kAttentionBlock / kHostPageTokens;

/// Rows and heads of an item that read one KV head.
struct Part {
  Value firstRow, firstHead, headCount, count; ///< i64; count of vectors
  Value kvHead, pages;                         ///< pages: of its sequence
};

class AttentionEmitter {
public:
  AttentionEmitter(Kernel &k, const AttentionPlan &plan);
  void emit();

private:
  void emitItem(Value item);
  void attend(const Part &part, Value item);
  void merge(const Part &part);
  void prepare(const Part &part, Value vector);
  void forGroups(Value count, function_ref<void(Value, int64_t)> work);
  QueryGroup makeGroup(const Part &part, Value first, int64_t size);
  void attendBlock(const Part &part, const QueryGroup &group, Value block,
                   Value isPart);
  /// The pages of `block` that the group sees: begin, end (i64).
  std::pair<Value, Value> visiblePages(const QueryGroup &group, Value block);
  void finish(const Part &part, Value vector, const AttentionState &state);

  Value pageHead(const Part &part, Value page);
  /// Row and head (i64) of vector `i`.
  std::pair<Value, Value> placeOf(const Part &part, Value i);
  Value slotOf(Value row) { return k.intAt(kv.slots, row); }
  Value firstVisible(Value slot);
  Value stateAt(const Part &part, Value row, Value head, Value block);
  AttentionState total(Value vector) {
    return {e, headDim, e.at(totals, vector, AttentionState::bytes(headDim))};
  }
  Value minI(Value x, Value y) { return e.select(e.less(x, y), x, y); }
  Value maxI(Value x, Value y) { return e.select(e.less(x, y), y, x); }
  Value field(Value item, int64_t i) { return k.intAt(item, e.index(i)); }

  Kernel &k;
  Emitter &e;
  const AttentionPlan &plan;
  const KvLayout layout;
  const int64_t headDim, groupHeads;
  int64_t groupSize; ///< vectors of a full group
  KvArgs kv;
  Value q, pageStride;
  std::optional<PageProducts> products;
  Value totals; ///< scratch: states (vectors)
};

AttentionEmitter::AttentionEmitter(Kernel &k, const AttentionPlan &plan)
    : k(k), e(k.e), plan(plan),
      layout(kvLayout(cast<lm::KvCacheType>(plan.kv.getType()))),
      headDim(layout.headDim), groupHeads(plan.heads / layout.heads),
      groupSize(std::max<int64_t>(k.tile.rows, 1)) {
  // A decoded row comes alone, so with no more vectors than its heads.
  if (k.role == Role::Decode)
    groupSize = std::min(groupSize, groupHeads);
  // Room for a part, and for what fills up its last group.
  const int64_t vectors =
      k.target.attentionTileRows * groupHeads + groupSize - 1;
  q = k.argument(plan.q);
  kv = k.kvArgument(plan.kv);
  pageStride = k.pageTableStride();
  products.emplace(k, plan, layout, vectors, groupSize);
  totals = k.temporary(vectors * AttentionState::bytes(headDim));
}

void AttentionEmitter::emit() {
  e.forLoop(e.index(0), k.attentionTiles(), 1, [&](Value i) {
    emitItem(e.at(kv.tiles, i, kAttentionWorkFields * 4));
  });
}

void AttentionEmitter::emitItem(Value item) {
  Value firstRow = field(item, kWorkFirstRow);
  Value endRow = e.add(firstRow, field(item, kWorkRows));
  if (!k.splitShares()) {
    firstRow = maxI(firstRow, k.rangeBegin(0));
    endRow = minI(endRow, k.rangeEnd(0));
  }
  Value rows = maxI(e.sub(endRow, firstRow), e.index(0));
  Value headBegin = field(item, kWorkFirstHead);
  Value headEnd = field(item, kWorkEndHead);
  Value sequence = field(item, kWorkSequence);
  Value each = e.index(groupHeads);
  Value kvEnd = e.div(e.add(headEnd, e.index(groupHeads - 1)), each);
  e.forLoop(e.div(headBegin, each), kvEnd, 1, [&](Value kvHead) {
    Part part;
    part.firstRow = firstRow;
    part.firstHead = maxI(headBegin, e.mul(kvHead, each));
    part.headCount = e.sub(
        minI(headEnd, e.mul(e.add(kvHead, e.index(1)), each)), part.firstHead);
    part.count = e.mul(rows, part.headCount);
    part.kvHead = kvHead;
    part.pages = e.at(kv.pageTable, e.mul(sequence, pageStride), 4);
    Value merges = e.equal(field(item, kWorkKind), e.index(kAttentionMerge));
    e.ifThen(e.less(e.index(0), part.count), [&] {
      e.ifElse(merges, [&] { merge(part); }, [&] { attend(part, item); });
    });
  });
}

std::pair<Value, Value> AttentionEmitter::placeOf(const Part &part, Value i) {
  return {e.add(part.firstRow, e.div(i, part.headCount)),
          e.add(part.firstHead, e.rem(i, part.headCount))};
}

/// The first slot that a row of slot `slot` sees.
Value AttentionEmitter::firstVisible(Value slot) {
  if (plan.window == 0)
    return e.index(0);
  return maxI(e.index(0), e.sub(slot, e.index(plan.window - 1)));
}

Value AttentionEmitter::stateAt(const Part &part, Value row, Value head,
                                Value block) {
  // AttentionBlockStride().
  Value blocks =
      e.div(e.add(pageStride, e.index(kBlockPages - 1)), e.index(kBlockPages));
  Value number = e.add(e.mul(row, e.index(plan.heads)), head);
  return e.at(kv.states, e.add(e.mul(number, blocks), block),
              AttentionState::bytes(headDim));
}

//===----------------------------------------------------------------------===//
// A part
//===----------------------------------------------------------------------===//

void AttentionEmitter::attend(const Part &part, Value item) {
  Value isPart = e.equal(field(item, kWorkKind), e.index(kAttentionPart));
  Value last = e.sub(part.count, e.index(1));
  // The vectors that fill up a group are the last one again, with totals of
  // their own.
  e.forLoop(e.index(0), e.add(part.count, e.index(groupSize - 1)), 1,
            [&](Value i) {
              total(i).clear();
              prepare(part, i);
            });
  // Slots of an item ascend with its rows.
  Value tokens = e.index(kAttentionBlock);
  Value firstSlot = slotOf(placeOf(part, e.index(0)).first);
  Value lastSlot = slotOf(placeOf(part, last).first);
  Value begin = e.div(firstVisible(firstSlot), tokens);
  Value end = e.add(e.div(lastSlot, tokens), e.index(1));
  begin = e.select(isPart, maxI(begin, field(item, kWorkFirstBlock)), begin);
  end = e.select(isPart, minI(end, field(item, kWorkEndBlock)), end);
  e.forLoop(begin, end, 1, [&](Value block) {
    forGroups(part.count, [&](Value first, int64_t vectors) {
      attendBlock(part, makeGroup(part, first, vectors), block, isPart);
    });
  });
  Value whole = e.select(isPart, e.index(0), part.count);
  e.forLoop(e.index(0), whole, 1, [&](Value i) { finish(part, i, total(i)); });
}

/// Joins the states of all blocks that a row sees.
void AttentionEmitter::merge(const Part &part) {
  AttentionState joined = total(e.index(0));
  e.forLoop(e.index(0), part.count, 1, [&](Value i) {
    auto [row, head] = placeOf(part, i);
    Value slot = slotOf(row), tokens = e.index(kAttentionBlock);
    joined.clear();
    e.forLoop(e.div(firstVisible(slot), tokens),
              e.add(e.div(slot, tokens), e.index(1)), 1,
              [&, row = row, head = head](Value block) {
                joined.add(AttentionState(e, headDim,
                                          stateAt(part, row, head, block)));
              });
    finish(part, i, joined);
  });
}

/// Cuts `count` vectors in groups: as many full ones as there are, and one for
/// the rest, of as many vectors, half as many or one.
void AttentionEmitter::forGroups(Value count,
                                 function_ref<void(Value, int64_t)> work) {
  Value left = e.rem(count, e.index(groupSize));
  Value full = e.sub(count, left);
  int64_t half = (groupSize + 1) / 2;
  Value end = e.select(e.less(e.index(half), left), count, full);
  e.forLoop(e.index(0), end, groupSize,
            [&](Value first) { work(first, groupSize); });
  if (half > 1 && half < groupSize)
    e.ifThen(e.andI(e.less(e.index(1), left), e.less(left, e.index(half + 1))),
             [&] { work(full, half); });
  if (groupSize > 1)
    e.ifThen(e.equal(left, e.index(1)), [&] { work(full, 1); });
}

/// Query vector `i`; the last one where there is none.
void AttentionEmitter::prepare(const Part &part, Value i) {
  auto [row, head] = placeOf(part, minI(i, e.sub(part.count, e.index(1))));
  Value column = e.add(e.mul(row, e.index(plan.heads)), head);
  products->prepare(e.at(q, column, headDim * 4), i);
}

//===----------------------------------------------------------------------===//
// A block
//===----------------------------------------------------------------------===//

QueryGroup AttentionEmitter::makeGroup(const Part &part, Value first,
                                       int64_t size) {
  QueryGroup group;
  group.first = first;
  Value last = e.sub(part.count, e.index(1));
  for (int64_t r = 0; r < size; ++r) {
    Value i = minI(e.add(first, e.index(r)), last);
    group.lastSlot = slotOf(placeOf(part, i).first);
    if (r == 0)
      group.firstSlot = group.lastSlot;
    group.slots.push_back(e.truncate(group.lastSlot, e.i32()));
  }
  return group;
}

void AttentionEmitter::attendBlock(const Part &part, const QueryGroup &group,
                                   Value block, Value isPart) {
  const int64_t size = group.size();
  SmallVector<Value> start(size,
                           e.constant(e.f32(), AttentionState::kNoMaximum));
  start.append(size, e.constant(e.vec(kLanes, e.f32()), 0.0));
  for (int64_t r = 0; r < size; ++r)
    products->state(r).clear();
  auto [begin, end] = visiblePages(group, block);
  Emitter::Values reached =
      e.forLoop(begin, end, 1, start, [&](Value page, ValueRange carried) {
        PageHead head = {page, pageHead(part, page)};
        return products->attend(group, head, carried);
      });
  Value last = e.sub(part.count, e.index(1));
  for (int64_t r = 0; r < size; ++r) {
    AttentionState own = products->state(r);
    own.setWeights(reached[r], reached[size + r]);
    Value i = e.add(group.first, e.index(r));
    e.ifElse(
        isPart,
        [&] {
          auto [row, head] = placeOf(part, minI(i, last));
          own.copyTo(stateAt(part, row, head, block));
        },
        [&] { total(i).add(own); });
  }
}

std::pair<Value, Value> AttentionEmitter::visiblePages(const QueryGroup &group,
                                                       Value block) {
  Value first = e.mul(block, e.index(kBlockPages));
  Value tokens = e.index(kHostPageTokens);
  Value begin = maxI(first, e.div(firstVisible(group.firstSlot), tokens));
  Value end = minI(e.add(first, e.index(kBlockPages)),
                   e.add(e.div(group.lastSlot, tokens), e.index(1)));
  return {begin, end};
}

Value AttentionEmitter::pageHead(const Part &part, Value page) {
  Value number = k.intAt(part.pages, page);
  return e.at(e.offset(kv.pool, k.kvPageOffset(layout, number)), part.kvHead,
              layout.headStride());
}

/// Divides by the weights and stores the vector in the results' formats.
void AttentionEmitter::finish(const Part &part, Value vector,
                              const AttentionState &state) {
  auto [row, head] = placeOf(part, vector);
  Value inverse = e.broadcast(
      e.div(e.constant(e.f32(), 1.0),
            e.mul(state.weight(), e.constant(e.f32(), products->one()))));
  storeHead(k, plan, headDim, row, head, [&](int64_t column) {
    return e.mul(e.load(e.vec(kLanes, e.f32()), state.column(column), 64),
                 inverse);
  });
}

} // namespace

bool matchesFixedAttention(Kernel &k) {
  std::optional<AttentionPlan> plan = planAttention(k.op);
  return plan && kvLayout(cast<lm::KvCacheType>(plan->kv.getType())).isFixed;
}

bool matchesAttention(Kernel &k) { return planAttention(k.op).has_value(); }

LogicalResult generateAttention(Kernel &k) {
  AttentionPlan plan = *planAttention(k.op);
  auto type = cast<lm::KvCacheType>(plan.kv.getType());
  if (failed(checkKvCache(k, type, plan.quantized ? kPackedGroup : kLanes)))
    return failure();
  if (type.getPage() != kHostPageTokens)
    return k.emitError() << "expected pages of " << kHostPageTokens
                         << " tokens, got " << type.getPage();
  if (k.tile.keys != kHostPageTokens)
    return k.emitError() << "expected a page of " << kHostPageTokens
                         << " keys a step, got a tile of " << k.tile.keys;
  AttentionEmitter(k, plan).emit();
  return success();
}

} // namespace quern::host

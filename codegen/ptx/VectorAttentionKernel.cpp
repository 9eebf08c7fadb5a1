//===- VectorAttentionKernel.cpp - Attention a row at a time --------------===//
//
// Decode, and every attention that has no tensor core form. A block has one row
// and the query heads of a unit (AttentionWork.h); its warps take the row's
// pages in turns (split KV), each with an online softmax of its own, and their
// states are joined in warp order. In a page a lane is first a key (scores),
// then a column of the values. Keys and values are loaded once for all heads of
// the unit. A result depends on nothing but its own query and prefix.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/AttentionWork.h"
#include "codegen/ptx/KvPages.h"

#include <limits>

using namespace mlir;

namespace quern::nvptx {
namespace {

/// The running maximum before the first key: finite, so that a page without any
/// visible key leaves the state as it is.
constexpr double kNoMaximum = -1e30;

class VectorAttentionEmitter {
public:
  VectorAttentionEmitter(Kernel &k, const AttentionPlan &plan)
      : k(k), e(k.e), plan(plan), work(k, plan),
        warps(std::clamp<int64_t>(k.tile.rows, 1, 8)),
        parts((work.headDim + kWarp - 1) / kWarp) {}

  void emit();

private:
  using Values = Emitter::Values;

  void emitRow();
  void emitUnit(Value kvHead, Value first, Value end);
  /// The unit's queries as f32 in shared memory, (unitHeads, head_dim).
  void loadQueries(Value first, Value end);
  /// Scores of this lane's key, one a head, scaled and masked.
  Values scores(Value head, Value firstKey);
  /// Column 32 * part + lane of the value of `key` in a page.
  Value valueAt(Value head, Value key, int64_t part);
  /// One page: the next state. States are maxima, sums (a lane's own), columns.
  Values step(Value page, Value kvHead, ValueRange state);
  void leaveState(ValueRange state);
  void finish(Value first, Value end);

  /// Places in shared memory of warp `warp`'s state for head `head` (i64).
  Value statePlace(Value memory, Value warp, Value head, int64_t bytes) {
    Value at = e.add(e.mul(warp, e.index(work.unitHeads)), head);
    return e.at(memory, at, bytes);
  }

  Kernel &k;
  Emitter &e;
  const AttentionPlan &plan;
  AttentionWork work;
  int64_t warps, parts;
  KvArgs kv;
  Value row, slot, pages;
  Value queries, maxima, sums, columns; ///< shared
};

void VectorAttentionEmitter::emit() {
  kv = k.kvArgument(plan.kv);
  k.launch.blockThreads = warps * kWarp;
  GridFactor heads = work.gridFactor();
  if (!k.splitShares())
    heads = {GridCount::One, static_cast<uint32_t>(work.kvHeads)};
  k.launch.grid = {heads, {GridCount::Rows, 1}};
  queries = k.shared(work.unitHeads * work.headDim * 4);
  maxima = k.shared(warps * work.unitHeads * 4);
  sums = k.shared(warps * work.unitHeads * 4);
  columns = k.shared(warps * work.unitHeads * parts * kWarp * 4);
  if (k.splitShares()) {
    row = e.block(1);
    return emitRow();
  }
  row = e.add(k.rangeBegin(0), e.block(1));
  e.ifThen(e.less(row, k.rangeEnd(0)), [&] { emitRow(); });
}

void VectorAttentionEmitter::emitRow() {
  slot = e.loadIndex(kv.slots, row);
  Value sequence = e.loadIndex(kv.sequences, row);
  pages = e.at(kv.pageTable, e.mul(sequence, k.pageTableStride()), 4);
  work.forUnits(k, [&](Value kvHead, Value first, Value end) {
    emitUnit(kvHead, first, end);
  });
}

void VectorAttentionEmitter::loadQueries(Value first, Value end) {
  int64_t headDim = work.headDim;
  Value source =
      e.at(k.argument(plan.q), e.mul(row, e.index(plan.heads)), headDim * 4);
  e.forLoop(e.thread(), e.index(work.unitHeads * headDim),
            k.launch.blockThreads, [&](Value i) {
              // Heads past the last repeat it; nobody stores what becomes of
              // them.
              Value head = e.minI(e.add(first, e.div(i, e.index(headDim))),
                                  e.sub(end, e.index(1)));
              Value at = e.add(e.mul(head, e.index(headDim)),
                               e.rem(i, e.index(headDim)));
              Value q = e.load(e.f32(), e.at(source, at, 4), 4);
              e.store(q, e.at(queries, i, 4), 4);
            });
}

Emitter::Values VectorAttentionEmitter::scores(Value head, Value firstKey) {
  Values zeros(work.unitHeads, e.constant(e.f32(), 0.0));
  Values result =
      e.forLoop(e.index(0), e.index(work.headDim / kBlockSide), 1, zeros,
                [&](Value block, ValueRange carried) {
                  Values key = loadKvDims(e, work.layout, KvPart::Keys, head,
                                          e.lane(), block);
                  Value line = e.at(queries, block, 4 * kBlockSide);
                  Values next(carried);
                  for (int64_t h = 0; h < work.unitHeads; ++h)
                    for (int64_t d = 0; d < kBlockSide; ++d) {
                      Value at = e.offset(line, (h * work.headDim + d) * 4);
                      next[h] = e.fma(e.load(e.f32(), at, 4), key[d], next[h]);
                    }
                  return next;
                });
  Value key = e.add(firstKey, e.lane());
  Value hidden = e.less(slot, key);
  if (plan.window > 0)
    hidden = e.orI(hidden, e.less(key, e.sub(slot, e.index(plan.window - 1))));
  Value nothing = e.constant(e.f32(), -std::numeric_limits<double>::infinity());
  for (Value &score : result)
    score = e.select(hidden, nothing,
                     e.mul(score, e.constant(e.f32(), plan.scale)));
  return result;
}

Value VectorAttentionEmitter::valueAt(Value head, Value key, int64_t part) {
  // Lanes past the head's columns read its last one and store nothing.
  Value d =
      e.minI(e.add(e.lane(), e.index(part * kWarp)), e.index(work.headDim - 1));
  Value value = loadKvElement(e, work.layout, KvPart::Values, head, key, d);
  if (!work.layout.isInt8)
    return value;
  static_assert(KvLayout::kScaleColumns == kWarp);
  Value scale =
      kvScaleOffset(e, work.layout, KvPart::Values, key, e.index(part));
  return e.mul(value, e.load(e.f32(), e.offset(head, scale), 4));
}

Emitter::Values VectorAttentionEmitter::step(Value page, Value kvHead,
                                             ValueRange state) {
  int64_t heads = work.unitHeads;
  Value entry = e.load(e.i32(), e.at(pages, page, 4), 4);
  Value head = work.headPointer(k, kv, e.extend(entry, e.i64()), kvHead);
  Value firstKey = e.mul(page, e.index(kWarp));
  Values score = scores(head, firstKey);

  Values next(state);
  Values probabilities;
  for (int64_t h = 0; h < heads; ++h) {
    next[h] = e.maxF(state[h], e.warpMax(score[h]));
    Value correction = e.exp(e.sub(state[h], next[h]));
    Value p = e.exp(e.sub(score[h], next[h]));
    probabilities.push_back(p);
    next[heads + h] = e.fma(state[heads + h], correction, p);
    for (int64_t part = 0; part < parts; ++part) {
      Value &column = next[2 * heads + h * parts + part];
      column = e.mul(column, correction);
    }
  }
  // What lies behind the row's own slot in the page may never have been
  // written.
  Value visible =
      e.minI(e.index(kWarp), e.add(e.sub(slot, firstKey), e.index(1)));
  ValueRange sums = ValueRange(next).drop_front(2 * heads);
  Values totals = e.forLoop(
      e.index(0), visible, 1, sums, [&](Value key, ValueRange carried) {
        Values value;
        for (int64_t part = 0; part < parts; ++part)
          value.push_back(valueAt(head, key, part));
        Value from = e.truncate(key, e.i32());
        Values sum;
        for (int64_t h = 0; h < heads; ++h) {
          Value p = e.shuffle(probabilities[h], from);
          for (int64_t part = 0; part < parts; ++part)
            sum.push_back(e.fma(p, value[part], carried[h * parts + part]));
        }
        return sum;
      });
  std::copy(totals.begin(), totals.end(), next.begin() + 2 * heads);
  return next;
}

void VectorAttentionEmitter::leaveState(ValueRange state) {
  int64_t heads = work.unitHeads;
  for (int64_t h = 0; h < heads; ++h) {
    Value head = e.index(h), sum = e.warpSum(state[heads + h]);
    e.ifThen(e.equal(e.lane(), e.index(0)), [&] {
      e.store(state[h], statePlace(maxima, e.warp(), head, 4), 4);
      e.store(sum, statePlace(sums, e.warp(), head, 4), 4);
    });
    Value line = statePlace(columns, e.warp(), head, parts * kWarp * 4);
    for (int64_t part = 0; part < parts; ++part) {
      Value at = e.mul(e.add(e.lane(), e.index(part * kWarp)), e.index(4));
      e.store(state[2 * heads + h * parts + part], e.offset(line, at), 4);
    }
  }
}

/// Joins the warps' states and stores the heads, a warp a head.
void VectorAttentionEmitter::finish(Value first, Value end) {
  e.forLoop(e.warp(), e.sub(end, first), warps, [&](Value h) {
    auto at = [&](Value memory, int64_t warp, int64_t bytes) {
      return statePlace(memory, e.index(warp), h, bytes);
    };
    Value best = e.load(e.f32(), at(maxima, 0, 4), 4);
    for (int64_t warp = 1; warp < warps; ++warp)
      best = e.maxF(best, e.load(e.f32(), at(maxima, warp, 4), 4));
    Value sum = e.constant(e.f32(), 0.0);
    Values weights;
    for (int64_t warp = 0; warp < warps; ++warp) {
      weights.push_back(
          e.exp(e.sub(e.load(e.f32(), at(maxima, warp, 4), 4), best)));
      sum = e.fma(e.load(e.f32(), at(sums, warp, 4), 4), weights[warp], sum);
    }
    Value inverse = e.div(e.constant(e.f32(), 1.0), sum);
    for (int64_t part = 0; part < parts; ++part) {
      Value total = e.constant(e.f32(), 0.0);
      for (int64_t warp = 0; warp < warps; ++warp) {
        Value place = e.mul(e.add(e.lane(), e.index(part * kWarp)), e.index(4));
        Value column = e.load(
            e.f32(), e.offset(at(columns, warp, parts * kWarp * 4), place), 4);
        total = e.fma(column, weights[warp], total);
      }
      storeAttended(k, plan, work.headDim, row, e.add(first, h), part * kWarp,
                    e.mul(total, inverse));
    }
  });
}

void VectorAttentionEmitter::emitUnit(Value kvHead, Value first, Value end) {
  loadQueries(first, end);
  e.barrier();
  Values state(work.unitHeads, e.constant(e.f32(), kNoMaximum));
  state.append(work.unitHeads * (1 + parts), e.constant(e.f32(), 0.0));
  Value begin = e.index(0);
  if (plan.window > 0)
    begin = e.div(e.maxI(begin, e.sub(slot, e.index(plan.window - 1))),
                  e.index(kWarp));
  Value last = e.add(e.div(slot, e.index(kWarp)), e.index(1));
  state = e.forLoop(e.add(begin, e.warp()), last, warps, state,
                    [&](Value page, ValueRange carried) {
                      return step(page, kvHead, carried);
                    });
  leaveState(state);
  e.barrier();
  finish(first, end);
  e.barrier();
}

} // namespace

bool matchesVectorAttention(Kernel &k) {
  return planAttention(k.op).has_value();
}

LogicalResult generateVectorAttention(Kernel &k) {
  AttentionPlan plan = *planAttention(k.op);
  if (failed(checkAttention(k, plan)))
    return failure();
  VectorAttentionEmitter(k, plan).emit();
  return success();
}

} // namespace quern::nvptx

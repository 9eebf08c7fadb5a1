//===- AttentionKernel.cpp - Attention over the KV pages ------------------===//
//
// lm.online_attention and lm.attention, each with an optional lm.quantize of
// the result. A KV head of a page holds the keys of 32 tokens as
// [head_dim][32], then their values as [32][head_dim]; KvLayout says where it
// lies.
//
// Work is cut in query vectors (one row, one head); those of a work item that
// read the same kv head are taken in groups of `tile.rows`, so that a
// group shares every load of keys and values. What is left over goes as a group
// of half as many, or alone; a group that is not full repeats its last vector.
// Per vector the order of all arithmetic is fixed: scores sum over head_dim
// ascending, steps of `keys` keys come in ascending order, and so do the keys
// of a step; a step that a vector does not see adds exact zeros. A result so
// depends on nothing but its own query and prefix.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/Kernel.h"
#include "codegen/host/PackedLayout.h"
#include "codegen/kernels/AttentionPlan.h"
#include "runtime/schema/kernel_abi.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

#include <limits>

using namespace mlir;

namespace quern::host {
namespace {

constexpr int64_t kPageTokens = 32;
/// The running maximum before the first key: finite, so that a step without any
/// visible key leaves the state as it is.
constexpr double kNoMaximum = -1e30;

/// Columns of the values that are summed at a time, at most, in vectors.
constexpr int64_t kMaxChunk = 4;

/// Query vectors that are worked on together; all read kv head `kvHead` of the
/// sequence whose pages are `pages`.
struct Group {
  Value kvHead, pages;
  SmallVector<Value> row, head, slot; ///< i64
  Value firstSlot, lastSlot;          ///< least and greatest slot
};

class AttentionEmitter {
public:
  AttentionEmitter(Kernel &k, const AttentionPlan &plan)
      : k(k), e(k.e), plan(plan),
        type(cast<lm::KvCacheType>(plan.kv.getType())), layout(kvLayout(type)),
        headDim(layout.headDim), groupHeads(plan.heads / layout.heads),
        elementBytes(layout.elementBytes) {
    groupSize = std::max<int64_t>(k.tile.rows, 1);
    // A decoded row comes alone, so with no more vectors than its heads. (One
    // vector always goes alone.)
    if (k.role == Role::Decode && groupHeads > 1)
      groupSize = std::min(groupSize, groupHeads);
    keyVectors = plan.keys / kLanes;
    folds = e.target.vectorBits == 512;
  }

  void emit();

private:
  void emitItem(Value item);
  void forGroups(Value count, function_ref<void(Value, int64_t)> attend);
  Group makeGroup(Value first, Value count, Value firstRow, Value firstHead,
                  Value headCount);
  void gatherQuery(int64_t vector, Value query);
  void attendOnline(const Group &group);
  void attendInPasses(const Group &group);
  void finish(const Group &group, ValueRange sums);

  std::pair<Value, Value> stepRange(const Group &group);
  /// Pointers to the keys and the values of step `step`.
  std::pair<Value, Value> stepPointers(const Group &group, Value step);
  /// Scores, masked, [vector][keyVectors]. Meanwhile the keys at `next` are
  /// prefetched.
  SmallVector<SmallVector<Value>> scores(const Group &group, Value step,
                                         Value keys, Value next);
  /// Pointers as stepPointers', of the step behind `step` or of the last one.
  std::pair<Value, Value> nextPointers(const Group &group, Value step,
                                       Value end);
  Value masked(Value score, Value slot, Value firstKey);
  Value visibleKeys(const Group &group, Value step);
  /// Where a vector's maximum grew, scales its accumulators and its sum down.
  /// Returns the sums.
  Emitter::Values rescale(ValueRange oldMaxima, ValueRange maxima,
                          ValueRange sums);
  /// Vectors of columns that accumulate() sums at a time.
  int64_t chunk() const;
  /// acc += probabilities * values. `probability(vector, copy, key)`. Meanwhile
  /// the values at `next` are prefetched.
  void accumulate(Value values, Value count, Value next,
                  function_ref<Value(int64_t, int64_t, Value)> probability);
  void storeResult(Value result, Value value, Value row, Value head,
                   int64_t vector, Value inverse);

  Value accumulator(int64_t vector, int64_t column) {
    return e.offset(accumulators, (vector * headDim + column) * 4);
  }
  Value loadIndex(Value pointer) {
    return e.extend(e.load(e.i32(), pointer, 4), e.i64());
  }
  Value maxI(Value x, Value y) { return e.select(e.less(x, y), y, x); }
  Value minI(Value x, Value y) { return e.select(e.less(x, y), x, y); }
  Value loadFloats(Value pointer) {
    Value values = e.load(e.vec(kLanes, type.getElementType()), pointer);
    return elementBytes == 4 ? values : e.extend(values, e.f32());
  }
  Type lanes() { return e.vec(kLanes, e.f32()); }
  int64_t keyCopies() const { return folds ? keyVectors : 1; }
  int64_t valueCopies() const { return folds ? chunk() : 1; }
  /// Number `column` of query `vector`, i64.
  Value query(int64_t copy, int64_t vector, Value column) {
    Value first = e.offset(queries, (copy * size + vector) * headDim * 4);
    return e.broadcast(
        e.load(e.f32(), e.offset(first, e.mul(column, e.index(4))), 4));
  }
  /// A page ahead is far for L1, which holds four of them.
  void prefetchLines(Value pointer, int64_t bytes) {
    for (int64_t byte = 0; byte < bytes; byte += 64)
      e.prefetch(e.offset(pointer, byte), CacheLevel::L2);
  }

  Kernel &k;
  Emitter &e;
  const AttentionPlan &plan;
  lm::KvCacheType type;
  KvLayout layout;
  int64_t headDim, groupHeads, elementBytes;
  int64_t keyVectors;
  int64_t groupSize; ///< vectors of a full group
  int64_t size = 0;  ///< vectors of the group that code is emitted for
  KvArgs kv;
  Value q, pageStride;
  /// Products with a number that is in memory broadcast it for nothing, on 512
  /// bits, where it is read by this product alone; a broadcast that several
  /// share takes ports that conversions want. So what is broadcast is kept as
  /// often as it is needed at a time.
  bool folds;
  Value queries;       ///< scratch, scaled, f32 [keyCopies][size][head_dim]
  Value accumulators;  ///< scratch, f32 [size][head_dim]
  Value probabilities; ///< scratch, f32 [valueCopies][size][keys]; in passes:
                       ///< [size][context]
  int64_t probabilityRow = 0; ///< bytes from vector to vector
};

void AttentionEmitter::emit() {
  q = k.argument(plan.q);
  kv = k.kvArgument(plan.kv);
  pageStride = k.pageTableStride();
  queries = k.temporary(keyCopies() * groupSize * headDim * 4);
  accumulators = k.temporary(groupSize * headDim * 4);
  int64_t context = (k.context + kPageTokens - 1) / kPageTokens * kPageTokens;
  probabilityRow = (plan.online ? plan.keys : context) * 4;
  int64_t copies = plan.online && folds ? kMaxChunk : 1;
  probabilities = k.temporary(copies * groupSize * probabilityRow);

  e.forLoop(e.index(0), k.attentionTiles(), 1, [&](Value i) {
    emitItem(e.offset(kv.tiles, e.mul(i, e.index(kAttentionWorkFields * 4))));
  });
}

/// Attends to a work item, which is of kind kAttentionWhole.
void AttentionEmitter::emitItem(Value item) {
  auto field = [&](AttentionWorkField field) {
    return loadIndex(e.offset(item, field * 4));
  };
  Value firstRow = field(kWorkFirstRow);
  Value endRow = e.add(firstRow, field(kWorkRows));
  Value sequence = field(kWorkSequence);
  Value headBegin = field(kWorkFirstHead), headEnd = field(kWorkEndHead);
  if (!k.splitShares()) {
    firstRow = maxI(firstRow, k.rangeBegin(0));
    endRow = minI(endRow, k.rangeEnd(0));
  }
  Value rows = maxI(e.sub(endRow, firstRow), e.index(0));
  Value pages =
      e.offset(kv.pageTable, e.mul(e.mul(sequence, pageStride), e.index(4)));
  Value perKvHead = e.index(groupHeads);
  Value kvEnd = e.div(e.add(headEnd, e.index(groupHeads - 1)), perKvHead);
  e.forLoop(e.div(headBegin, perKvHead), kvEnd, 1, [&](Value kvHead) {
    Value first = maxI(headBegin, e.mul(kvHead, perKvHead));
    Value end = minI(headEnd, e.mul(e.add(kvHead, e.index(1)), perKvHead));
    Value headCount = e.sub(end, first);
    Value count = e.mul(rows, headCount);
    forGroups(count, [&](Value begin, int64_t vectors) {
      size = vectors;
      Group group = makeGroup(begin, count, firstRow, first, headCount);
      group.kvHead = kvHead;
      group.pages = pages;
      plan.online ? attendOnline(group) : attendInPasses(group);
    });
  });
}

/// Cuts `count` vectors in groups: as many full ones as there are, and one for
/// the rest, of as many vectors, half as many or one.
void AttentionEmitter::forGroups(Value count,
                                 function_ref<void(Value, int64_t)> attend) {
  Value left = e.rem(count, e.index(groupSize));
  Value full = e.sub(count, left);
  int64_t half = (groupSize + 1) / 2;
  Value end = e.select(e.less(e.index(half), left), count, full);
  e.forLoop(e.index(0), end, groupSize,
            [&](Value begin) { attend(begin, groupSize); });
  if (half > 1)
    e.ifThen(e.andI(e.less(e.index(1), left), e.less(left, e.index(half + 1))),
             [&] { attend(full, half); });
  if (groupSize > 1)
    e.ifThen(e.equal(left, e.index(1)), [&] { attend(full, 1); });
}

Group AttentionEmitter::makeGroup(Value first, Value count, Value firstRow,
                                  Value firstHead, Value headCount) {
  Group group;
  Value last = e.sub(count, e.index(1));
  for (int64_t r = 0; r < size; ++r) {
    Value i = minI(e.add(first, e.index(r)), last);
    Value row = e.add(firstRow, e.div(i, headCount));
    Value head = e.add(firstHead, e.rem(i, headCount));
    Value column = e.add(e.mul(row, e.index(plan.heads)), head);
    group.row.push_back(row);
    group.head.push_back(head);
    group.slot.push_back(loadIndex(e.offset(kv.slots, e.mul(row, e.index(4)))));
    gatherQuery(r, e.offset(q, e.mul(column, e.index(headDim * 4))));
  }
  group.firstSlot = group.lastSlot = group.slot[0];
  for (Value slot : ArrayRef(group.slot).drop_front()) {
    group.firstSlot = minI(group.firstSlot, slot);
    group.lastSlot = maxI(group.lastSlot, slot);
  }
  return group;
}

void AttentionEmitter::gatherQuery(int64_t vector, Value query) {
  Value scale = e.constant(lanes(), plan.scale);
  for (int64_t column = 0; column < headDim; column += kLanes) {
    Value part = e.mul(e.load(lanes(), e.offset(query, column * 4), 4), scale);
    for (int64_t copy = 0; copy < keyCopies(); ++copy) {
      int64_t place = (copy * size + vector) * headDim + column;
      e.store(part, e.offset(queries, place * 4), 64);
    }
  }
}

std::pair<Value, Value> AttentionEmitter::stepRange(const Group &group) {
  Value keys = e.index(plan.keys);
  Value begin = e.index(0);
  if (plan.window > 0) {
    Value first = e.sub(group.firstSlot, e.index(plan.window - 1));
    begin = e.div(maxI(begin, first), keys);
  }
  return {begin, e.add(e.div(group.lastSlot, keys), e.index(1))};
}

std::pair<Value, Value> AttentionEmitter::stepPointers(const Group &group,
                                                       Value step) {
  Value token = e.mul(step, e.index(plan.keys));
  Value inPage = e.rem(token, e.index(kPageTokens));
  Value entry = e.mul(e.div(token, e.index(kPageTokens)), e.index(4));
  Value page = loadIndex(e.offset(group.pages, entry));
  Value head = e.offset(e.offset(kv.pool, k.kvPageOffset(layout, page)),
                        e.mul(group.kvHead, e.index(layout.headStride())));
  Value keys = e.offset(head, e.mul(inPage, e.index(elementBytes)));
  Value values = e.offset(e.offset(head, layout.valuesOffset()),
                          e.mul(inPage, e.index(headDim * elementBytes)));
  return {keys, values};
}

Value AttentionEmitter::masked(Value score, Value slot, Value firstKey) {
  SmallVector<int32_t> counting(kLanes);
  for (int64_t lane = 0; lane < kLanes; ++lane)
    counting[lane] = lane;
  auto type = e.vec(kLanes, e.i32());
  Value lane = arith::ConstantOp::create(
      e.b, e.loc, DenseElementsAttr::get(type, ArrayRef(counting)));
  Value key = e.add(lane, e.broadcast(e.truncate(firstKey, e.i32())));
  Value own = e.broadcast(e.truncate(slot, e.i32()));
  Value nothing = e.constant(lanes(), -std::numeric_limits<double>::infinity());
  score = e.select(e.less(own, key), nothing, score);
  if (plan.window == 0)
    return score;
  Value begin = e.sub(own, e.constant(type, plan.window - 1));
  return e.select(e.less(key, begin), nothing, score);
}

std::pair<Value, Value> AttentionEmitter::nextPointers(const Group &group,
                                                       Value step, Value end) {
  Value next = e.add(step, e.index(1));
  return stepPointers(group, minI(next, e.sub(end, e.index(1))));
}

SmallVector<SmallVector<Value>> AttentionEmitter::scores(const Group &group,
                                                         Value step, Value keys,
                                                         Value next) {
  Value zero = e.constant(lanes(), 0.0);
  SmallVector<Value> zeros(size * keyVectors, zero);
  Emitter::Values sums = e.forLoop(
      e.index(0), e.index(headDim), 1, zeros, [&](Value d, ValueRange carried) {
        Value rowAt = e.mul(d, e.index(kPageTokens * elementBytes));
        Value row = e.offset(keys, rowAt);
        prefetchLines(e.offset(next, rowAt), plan.keys * elementBytes);
        SmallVector<Value> key;
        for (int64_t v = 0; v < keyVectors; ++v)
          key.push_back(loadFloats(e.offset(row, v * kLanes * elementBytes)));
        Emitter::Values grown;
        for (int64_t r = 0; r < size; ++r)
          for (int64_t v = 0; v < keyVectors; ++v)
            grown.push_back(e.fma(query(v % keyCopies(), r, d), key[v],
                                  carried[r * keyVectors + v]));
        return grown;
      });
  // Nearly all steps are behind the window's begin and before the own token.
  Value firstKey = e.mul(step, e.index(plan.keys));
  Value partly =
      e.less(group.firstSlot, e.add(firstKey, e.index(plan.keys - 1)));
  if (plan.window > 0)
    partly = e.orI(partly, e.less(e.add(firstKey, e.index(plan.window - 1)),
                                  group.lastSlot));
  auto mask = [&] {
    Emitter::Values seen;
    for (int64_t r = 0; r < size; ++r)
      for (int64_t v = 0; v < keyVectors; ++v)
        seen.push_back(masked(sums[r * keyVectors + v], group.slot[r],
                              e.add(firstKey, e.index(v * kLanes))));
    return seen;
  };
  sums = e.choose(partly, mask, [&] { return sums; });
  SmallVector<SmallVector<Value>> result(size);
  for (int64_t r = 0; r < size; ++r)
    result[r].assign(sums.begin() + r * keyVectors,
                     sums.begin() + (r + 1) * keyVectors);
  return result;
}

/// Keys of the step that some vector of the group sees: what lies behind them
/// in the page may never have been written.
Value AttentionEmitter::visibleKeys(const Group &group, Value step) {
  Value end = e.add(group.lastSlot, e.index(1));
  Value left = e.sub(end, e.mul(step, e.index(plan.keys)));
  return minI(left, e.index(plan.keys));
}

Emitter::Values AttentionEmitter::rescale(ValueRange oldMaxima,
                                          ValueRange maxima, ValueRange sums) {
  // Behind the first steps maxima hardly ever grow, and where one does not, its
  // factor is exp(0) = 1, exactly.
  Value grew = e.less(oldMaxima[0], maxima[0]);
  for (int64_t r = 1; r < size; ++r)
    grew = e.orI(grew, e.less(oldMaxima[r], maxima[r]));
  return e.choose(
      grew,
      [&] {
        Emitter::Values scaled;
        for (int64_t r = 0; r < size; ++r) {
          Value factor = e.exp(e.broadcast(e.sub(oldMaxima[r], maxima[r])));
          for (int64_t column = 0; column < headDim; column += kLanes)
            e.store(e.mul(e.load(lanes(), accumulator(r, column), 64), factor),
                    accumulator(r, column), 64);
          scaled.push_back(e.mul(sums[r], factor));
        }
        return scaled;
      },
      [&] { return Emitter::Values(sums); });
}

int64_t AttentionEmitter::chunk() const {
  // Sums, values and a probability stay in registers.
  int64_t registers =
      e.target.vectorRegisters * e.target.vectorBits / (32 * kLanes);
  int64_t columns = kMaxChunk;
  while (columns > 1 && (size + 1) * columns + 1 > registers)
    columns /= 2;
  return columns;
}

void AttentionEmitter::accumulate(
    Value values, Value count, Value next,
    function_ref<Value(int64_t, int64_t, Value)> probability) {
  for (int64_t first = 0; first < headDim / kLanes; first += chunk()) {
    int64_t width = std::min(chunk(), headDim / kLanes - first);
    SmallVector<Value> sums;
    for (int64_t r = 0; r < size; ++r)
      for (int64_t v = 0; v < width; ++v)
        sums.push_back(
            e.load(lanes(), accumulator(r, (first + v) * kLanes), 64));
    Emitter::Values totals = e.forLoop(
        e.index(0), count, 1, sums, [&](Value key, ValueRange carried) {
          Value rowAt = e.mul(key, e.index(headDim * elementBytes));
          Value row = e.offset(values, rowAt);
          if (first == 0)
            prefetchLines(e.offset(next, rowAt), headDim * elementBytes);
          SmallVector<Value> value;
          for (int64_t v = 0; v < width; ++v)
            value.push_back(
                loadFloats(e.offset(row, (first + v) * kLanes * elementBytes)));
          Emitter::Values grown;
          for (int64_t r = 0; r < size; ++r)
            for (int64_t v = 0; v < width; ++v)
              grown.push_back(
                  e.fma(e.broadcast(probability(r, v % valueCopies(), key)),
                        value[v], carried[r * width + v]));
          return grown;
        });
    for (int64_t r = 0; r < size; ++r)
      for (int64_t v = 0; v < width; ++v)
        e.store(totals[r * width + v], accumulator(r, (first + v) * kLanes),
                64);
  }
}

/// One pass: running maximum and sum, the accumulators scaled down whenever the
/// maximum grows.
void AttentionEmitter::attendOnline(const Group &group) {
  Value zero = e.constant(lanes(), 0.0);
  SmallVector<Value> state; // maxima (f32), then sums (16 lanes)
  for (int64_t r = 0; r < size; ++r)
    state.push_back(e.constant(e.f32(), kNoMaximum));
  for (int64_t r = 0; r < size; ++r)
    state.push_back(zero);
  for (int64_t r = 0; r < size; ++r)
    for (int64_t column = 0; column < headDim; column += kLanes)
      e.store(zero, accumulator(r, column), 64);
  auto at = [&](int64_t copy, int64_t r, int64_t byte) {
    return e.offset(probabilities, (copy * size + r) * probabilityRow + byte);
  };

  auto [begin, end] = stepRange(group);
  Emitter::Values last =
      e.forLoop(begin, end, 1, state, [&](Value step, ValueRange carried) {
        auto [keys, values] = stepPointers(group, step);
        auto [nextKeys, nextValues] = nextPointers(group, step, end);
        auto score = scores(group, step, keys, nextKeys);
        Emitter::Values next;
        for (int64_t r = 0; r < size; ++r) {
          Value best = score[r][0];
          for (Value other : ArrayRef(score[r]).drop_front())
            best = e.maxF(best, other);
          next.push_back(e.maxF(carried[r], e.reduceMax(best)));
        }
        next.append(
            rescale(carried.take_front(size), next, carried.drop_front(size)));
        for (int64_t r = 0; r < size; ++r)
          for (int64_t v = 0; v < keyVectors; ++v) {
            Value p = e.exp(e.sub(score[r][v], e.broadcast(next[r])));
            for (int64_t copy = 0; copy < valueCopies(); ++copy)
              e.store(p, at(copy, r, v * kLanes * 4), 64);
            next[size + r] = e.add(next[size + r], p);
          }
        accumulate(values, visibleKeys(group, step), nextValues,
                   [&](int64_t r, int64_t copy, Value key) {
                     Value first = at(copy, r, 0);
                     return e.load(e.f32(),
                                   e.offset(first, e.mul(key, e.index(4))), 4);
                   });
        return next;
      });
  finish(group, ValueRange(last).drop_front(size));
}

/// Three passes over scores that are kept: maximum, exponentials and sum,
/// values.
void AttentionEmitter::attendInPasses(const Group &group) {
  auto [begin, end] = stepRange(group);
  Value zero = e.constant(lanes(), 0.0);
  SmallVector<Value> maxima(size, e.constant(lanes(), kNoMaximum)),
      zeros(size, zero);
  auto at = [&](int64_t r, Value step, int64_t v) {
    Value row = e.offset(probabilities, r * probabilityRow + v * kLanes * 4);
    return e.offset(row, e.mul(step, e.index(plan.keys * 4)));
  };
  Emitter::Values best =
      e.forLoop(begin, end, 1, maxima, [&](Value step, ValueRange carried) {
        auto score = scores(group, step, stepPointers(group, step).first,
                            nextPointers(group, step, end).first);
        Emitter::Values next(carried);
        for (int64_t r = 0; r < size; ++r)
          for (int64_t v = 0; v < keyVectors; ++v) {
            e.store(score[r][v], at(r, step, v), 64);
            next[r] = e.maxF(next[r], score[r][v]);
          }
        return next;
      });
  for (int64_t r = 0; r < size; ++r)
    best[r] = e.broadcast(e.reduceMax(best[r]));
  Emitter::Values sums =
      e.forLoop(begin, end, 1, zeros, [&](Value step, ValueRange carried) {
        Emitter::Values next(carried);
        for (int64_t r = 0; r < size; ++r)
          for (int64_t v = 0; v < keyVectors; ++v) {
            Value p =
                e.exp(e.sub(e.load(lanes(), at(r, step, v), 64), best[r]));
            e.store(p, at(r, step, v), 64);
            next[r] = e.add(next[r], p);
          }
        return next;
      });
  for (int64_t r = 0; r < size; ++r)
    for (int64_t column = 0; column < headDim; column += kLanes)
      e.store(zero, accumulator(r, column), 64);
  e.forLoop(begin, end, 1, [&](Value step) {
    accumulate(stepPointers(group, step).second, visibleKeys(group, step),
               nextPointers(group, step, end).second,
               [&](int64_t r, int64_t, Value key) {
                 return e.load(e.f32(),
                               e.offset(at(r, step, 0), e.mul(key, e.index(4))),
                               4);
               });
  });
  finish(group, sums);
}

/// Divides by the sums and stores every vector in the results' formats.
void AttentionEmitter::finish(const Group &group, ValueRange sums) {
  for (int64_t r = 0; r < size; ++r) {
    Value one = e.constant(e.f32(), 1.0);
    Value inverse = e.broadcast(e.div(one, e.reduceAdd(sums[r])));
    for (auto [i, value] : llvm::enumerate(k.yielded()))
      storeResult(k.result(i), value, group.row[r], group.head[r], r, inverse);
  }
}

void AttentionEmitter::storeResult(Value result, Value value, Value row,
                                   Value head, int64_t vector, Value inverse) {
  int64_t columns = plan.heads * headDim;
  auto scaled = [&](int64_t column) {
    return e.mul(e.load(lanes(), accumulator(vector, column), 64), inverse);
  };
  if (k.hasNumericRows(value)) {
    Value target =
        e.offset(result, e.mul(row, e.index(activationRowBytes(columns))));
    Value firstGroup = e.mul(head, e.index(headDim / kPackedGroup));
    for (int64_t column = 0; column < headDim; column += kPackedGroup)
      storeActivationGroup(k, target, columns,
                           e.add(firstGroup, e.index(column / kPackedGroup)),
                           scaled(column), scaled(column + kLanes));
    return;
  }
  Value first =
      e.add(e.mul(row, e.index(columns)), e.mul(head, e.index(headDim)));
  Value target = e.offset(result, e.mul(first, e.index(4)));
  for (int64_t column = 0; column < headDim; column += kLanes)
    e.store(scaled(column), e.offset(target, column * 4));
}

} // namespace

bool matchesAttention(Kernel &k) { return planAttention(k.op).has_value(); }

LogicalResult generateAttention(Kernel &k) {
  AttentionPlan plan = *planAttention(k.op);
  if (k.tile.keys > 0)
    plan.keys = std::min(plan.keys, k.tile.keys);
  auto type = cast<lm::KvCacheType>(plan.kv.getType());
  if (failed(checkKvCache(k, type)))
    return failure();
  int64_t unit = plan.quantized ? kPackedGroup : kLanes;
  if (type.getPage() != kPageTokens)
    return k.emitError() << "expected pages of " << kPageTokens
                         << " tokens, got " << type.getPage();
  if (type.getHeadDim() % unit != 0)
    return k.emitError() << "expected head_dim to be a multiple of " << unit
                         << ", got " << type.getHeadDim();
  if (plan.keys != kLanes && plan.keys != kPageTokens)
    return k.emitError() << "expected 16 or 32 keys a step, got " << plan.keys;
  if (!plan.online && k.context <= 0)
    return k.emitError()
           << "expected a context length, which bounds the scores that "
              "lm.attention keeps";
  AttentionEmitter(k, plan).emit();
  return success();
}

} // namespace quern::host

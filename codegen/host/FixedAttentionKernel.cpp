//===- FixedAttentionKernel.cpp - Attention over 16-bit pages -------------===//
//
// lm.online_attention and lm.attention, each with an optional lm.quantize of
// the result, over pages of fixed-point numbers (docs/architecture.md, section
// 5). Both products are exact sums of int16 pairs. Everything is in base 2:
//
//   score = float(q . k) * (q's scale * k's scale * log2 e) + log2(v's scale)
//   code  = round(2^(score - top) * 8191), top = the page's greatest score,
//           rounded up to an integer
//   out  += 2^(top - maximum) * float(code . v)
//
// so that a page's probabilities come with the scale of their values, always
// use all bits of a code, and joining pages multiplies by powers of two alone.
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
#include "codegen/host/AttentionState.h"
#include "codegen/host/KvAppend.h"
#include "codegen/host/PackedLayout.h"
#include "runtime/schema/kernel_abi.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

#include <cmath>
#include <limits>

using namespace mlir;

namespace quern::host {
namespace {

constexpr int64_t kPageTokens = kHostPageTokens;
constexpr int64_t kBlockPages = kAttentionBlock / kPageTokens;
/// Vectors of keys of a page.
constexpr int64_t kKeyVectors = kPageTokens / kLanes;
/// Columns of the values that are summed at a time, at most, in vectors.
constexpr int64_t kMaxChunk = 4;
/// The code of probability 1.
constexpr double kProbabilityOne = 8191;

/// Rows and heads of an item that read one KV head.
struct Part {
  Value firstRow, firstHead, headCount, count; ///< i64; count of vectors
  Value kvHead, pages, states;
};

/// Query vectors that are worked on together.
struct Group {
  Value first;              ///< of the part's vectors
  Value firstSlot, lastSlot; ///< i64
  SmallVector<Value> slot;  ///< i32, by vector
};

class FixedAttention {
public:
  FixedAttention(Kernel &k, const AttentionPlan &plan);
  void emit();

private:
  using Body = function_ref<void(Value)>;

  void emitItem(Value item);
  void attend(const Part &part, Value item);
  void merge(const Part &part);
  void prepare(const Part &part, Value vector);
  void forGroups(Value count, function_ref<void(Value, int64_t)> work);
  void attendBlock(const Part &part, Value first, Value block, Value isPart);
  /// The pages of `block` that the group sees: begin, end (i64).
  std::pair<Value, Value> visiblePages(const Group &group, Value block);
  /// One page. `state`: maxima (f32), then sums (16 lanes), by vector.
  Emitter::Values attendPage(const Part &part, const Group &group, Value page,
                             Value lastPage, ValueRange state);
  SmallVector<Emitter::Values> scores(const Group &group, Value page,
                                      Value head, Value ahead);
  Value masked(Value score, Value slot, Value firstKey);
  void accumulate(Value head, Value ahead, ValueRange factors);
  int64_t chunk() const;
  void finish(const Part &part, Value vector, const AttentionState &state);

  Value pageHead(const Part &part, Value page);
  /// Row and head (i64) of vector `i`.
  std::pair<Value, Value> placeOf(const Part &part, Value i);
  Value slotOf(Value row) { return k.intAt(kv.slots, row); }
  Value firstVisible(Value slot);
  Value stateAt(const Part &part, Value row, Value head, Value block);
  Value codesAt(Value first, int64_t vector, Value pair);
  Value minI(Value x, Value y) { return e.select(e.less(x, y), x, y); }
  Value maxI(Value x, Value y) { return e.select(e.less(x, y), y, x); }
  Value field(Value item, int64_t i) { return k.intAt(item, e.index(i)); }
  Value at(Value pointer, Value i, int64_t bytes) {
    return e.offset(pointer, e.mul(i, e.index(bytes)));
  }
  Type floats() { return e.vec(kLanes, e.f32()); }
  Type ints() { return e.vec(kLanes, e.i32()); }

  Kernel &k;
  Emitter &e;
  const AttentionPlan &plan;
  const KvLayout layout;
  const int64_t headDim, groupHeads;
  int64_t groupSize; ///< vectors of a full group
  int64_t size = 0;  ///< vectors of the group that code is emitted for
  bool prefetches;
  KvArgs kv;
  Value q, pageStride;
  // Scratch, by vector of a part.
  Value codes;   ///< int16 (vectors, head_dim)
  Value scales;  ///< f32 (vectors)
  Value totals;  ///< states (vectors)
  // Scratch, by vector of a group.
  Value sums;          ///< states (vectors)
  Value probabilities; ///< int16 (vectors, 32)
};

FixedAttention::FixedAttention(Kernel &k, const AttentionPlan &plan)
    : k(k), e(k.e), plan(plan),
      layout(kvLayout(cast<lm::KvCacheType>(plan.kv.getType()))),
      headDim(layout.headDim), groupHeads(plan.heads / layout.heads), groupSize(k.tile.rows),
      prefetches(k.role == Role::Decode) {
  // A decoded row comes alone, so with no more vectors than its heads.
  if (k.role == Role::Decode)
    groupSize = std::min(groupSize, groupHeads);
  // Room for a part, and for what fills up its last group.
  const int64_t vectors =
      k.target.attentionTileRows * groupHeads + groupSize - 1;
  q = k.argument(plan.q);
  kv = k.kvArgument(plan.kv);
  pageStride = k.pageTableStride();
  codes = k.temporary(vectors * headDim * 2);
  scales = k.temporary(vectors * 4);
  totals = k.temporary(vectors * AttentionState::bytes(headDim));
  sums = k.temporary(groupSize * AttentionState::bytes(headDim));
  probabilities = k.temporary(groupSize * kPageTokens * 2);
}

void FixedAttention::emit() {
  e.forLoop(e.index(0), k.attentionTiles(), 1, [&](Value i) {
    emitItem(at(kv.tiles, i, kAttentionWorkFields * 4));
  });
}

void FixedAttention::emitItem(Value item) {
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
    part.pages = at(kv.pageTable, e.mul(sequence, pageStride), 4);
    Value merges = e.equal(field(item, kWorkKind),
                           e.index(kAttentionMerge));
    e.ifThen(e.less(e.index(0), part.count), [&] {
      e.ifElse(
          merges, [&] { merge(part); }, [&] { attend(part, item); });
    });
  });
}

std::pair<Value, Value> FixedAttention::placeOf(const Part &part, Value i) {
  return {e.add(part.firstRow, e.div(i, part.headCount)),
          e.add(part.firstHead, e.rem(i, part.headCount))};
}

/// The first slot that a row of slot `slot` sees.
Value FixedAttention::firstVisible(Value slot) {
  if (plan.window == 0)
    return e.index(0);
  return maxI(e.index(0), e.sub(slot, e.index(plan.window - 1)));
}

Value FixedAttention::stateAt(const Part &part, Value row, Value head,
                              Value block) {
  // AttentionBlockStride().
  Value blocks = e.div(e.add(pageStride, e.index(kBlockPages - 1)),
                       e.index(kBlockPages));
  Value number = e.add(e.mul(row, e.index(plan.heads)), head);
  return at(kv.states, e.add(e.mul(number, blocks), block),
            AttentionState::bytes(headDim));
}

//===----------------------------------------------------------------------===//
// A part
//===----------------------------------------------------------------------===//

void FixedAttention::attend(const Part &part, Value item) {
  Value isPart = e.equal(field(item, kWorkKind),
                         e.index(kAttentionPart));
  Value last = e.sub(part.count, e.index(1));
  // The vectors that fill up a group are the last one again, with totals of
  // their own.
  e.forLoop(e.index(0), e.add(part.count, e.index(groupSize - 1)), 1,
            [&](Value i) {
              AttentionState(e, headDim, at(totals, i,
                                            AttentionState::bytes(headDim)))
                  .clear();
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
      size = vectors;
      attendBlock(part, first, block, isPart);
    });
  });
  Value whole = e.select(isPart, e.index(0), part.count);
  e.forLoop(e.index(0), whole, 1, [&](Value i) {
    finish(part, i,
           AttentionState(e, headDim,
                          at(totals, i, AttentionState::bytes(headDim))));
  });
}

/// Joins the states of all blocks that a row sees.
void FixedAttention::merge(const Part &part) {
  AttentionState total(e, headDim, totals);
  e.forLoop(e.index(0), part.count, 1, [&](Value i) {
    auto [row, head] = placeOf(part, i);
    Value slot = slotOf(row), tokens = e.index(kAttentionBlock);
    total.clear();
    e.forLoop(e.div(firstVisible(slot), tokens),
              e.add(e.div(slot, tokens), e.index(1)), 1,
              [&, row = row, head = head](Value block) {
                total.add(AttentionState(e, headDim,
                                         stateAt(part, row, head, block)));
              });
    finish(part, i, total);
  });
}

/// Cuts `count` vectors in groups: as many full ones as there are, and one for
/// the rest, of as many vectors, half as many or one.
void FixedAttention::forGroups(Value count,
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

/// Query vector `i` as codes under a scale; the last one where there is none.
void FixedAttention::prepare(const Part &part, Value i) {
  auto [row, head] = placeOf(part, minI(i, e.sub(part.count, e.index(1))));
  Value column = e.add(e.mul(row, e.index(plan.heads)), head);
  Value source = at(q, column, headDim * 4);
  Value scale = storeKeyCodes(e, headDim, source, at(codes, i, headDim * 2));
  e.store(e.mul(scale, e.constant(e.f32(), plan.scale * M_LOG2E)),
          at(scales, i, 4), 4);
}

//===----------------------------------------------------------------------===//
// A block
//===----------------------------------------------------------------------===//

void FixedAttention::attendBlock(const Part &part, Value first, Value block,
                                 Value isPart) {
  Group group;
  group.first = first;
  Value last = e.sub(part.count, e.index(1));
  for (int64_t r = 0; r < size; ++r) {
    Value i = minI(e.add(first, e.index(r)), last);
    Value slot = slotOf(placeOf(part, i).first);
    if (r == 0)
      group.firstSlot = slot;
    group.lastSlot = slot;
    group.slot.push_back(e.truncate(slot, e.i32()));
  }
  const int64_t bytes = AttentionState::bytes(headDim);
  SmallVector<Value> state; // maxima (f32), then sums (16 lanes)
  for (int64_t r = 0; r < size; ++r)
    state.push_back(e.constant(e.f32(), AttentionState::kNoMaximum));
  for (int64_t r = 0; r < size; ++r) {
    state.push_back(e.constant(floats(), 0.0));
    AttentionState(e, headDim, e.offset(sums, r * bytes)).clear();
  }
  auto [begin, end] = visiblePages(group, block);
  Value lastPage = e.sub(end, e.index(1));
  Emitter::Values reached =
      e.forLoop(begin, end, 1, state, [&](Value page, ValueRange carried) {
        return attendPage(part, group, page, lastPage, carried);
      });
  for (int64_t r = 0; r < size; ++r) {
    AttentionState own(e, headDim, e.offset(sums, r * bytes));
    own.setWeights(reached[r], reached[size + r]);
    Value i = e.add(first, e.index(r));
    e.ifElse(
        isPart,
        [&] {
          auto [row, head] = placeOf(part, minI(i, last));
          own.copyTo(stateAt(part, row, head, block));
        },
        [&] { AttentionState(e, headDim, at(totals, i, bytes)).add(own); });
  }
}

std::pair<Value, Value> FixedAttention::visiblePages(const Group &group,
                                                     Value block) {
  Value first = e.mul(block, e.index(kBlockPages));
  Value tokens = e.index(kPageTokens);
  Value begin = maxI(first, e.div(firstVisible(group.firstSlot), tokens));
  Value end = minI(e.add(first, e.index(kBlockPages)),
                   e.add(e.div(group.lastSlot, tokens), e.index(1)));
  return {begin, end};
}

Value FixedAttention::pageHead(const Part &part, Value page) {
  Value number = k.intAt(part.pages, page);
  return at(e.offset(kv.pool, k.kvPageOffset(layout, number)), part.kvHead,
            layout.headStride());
}

Emitter::Values FixedAttention::attendPage(const Part &part, const Group &group,
                                           Value page, Value lastPage,
                                           ValueRange state) {
  Value head = pageHead(part, page);
  Value ahead = pageHead(part, minI(e.add(page, e.index(1)), lastPage));
  SmallVector<Emitter::Values> score = scores(group, page, head, ahead);

  // The weight of a key is its probability over the scale of its value.
  Value nothing = e.constant(floats(), 0.0);
  Value firstKey = e.mul(page, e.index(kPageTokens));
  Emitter::Values weights;
  for (int64_t v = 0; v < kKeyVectors; ++v) {
    // Behind the last slot may lie anything.
    Value key = e.add(e.laneNumbers(), e.broadcast(e.truncate(
                          e.add(firstKey, e.index(v * kLanes)), e.i32())));
    Value behind = e.less(e.broadcast(group.slot.back()), key);
    weights.push_back(e.select(
        behind, nothing,
        e.load(floats(), e.offset(head, layout.scaleOffset(FixedKvScale::kValueInverse) +
                                            v * kLanes * 4), 64)));
  }

  Value half = e.constant(e.f32(), 0.5);
  Emitter::Values tops, maxima, grown(state.drop_front(size));
  Value grew;
  for (int64_t r = 0; r < size; ++r) {
    Value best = e.reduceMax(e.maxF(score[r][0], score[r][1]));
    // Not below `best`, and finite.
    Value top = e.maxF(e.roundEven(e.add(best, half)),
                       e.constant(e.f32(), AttentionState::kNoMaximum));
    tops.push_back(top);
    maxima.push_back(e.maxF(state[r], top));
    Value more = e.less(state[r], top);
    grew = grew ? e.orI(grew, more) : more;
  }
  // Behind the first pages maxima hardly ever grow.
  grown = e.choose(
      grew,
      [&] {
        Emitter::Values scaled;
        for (int64_t r = 0; r < size; ++r) {
          Value factor =
              e.broadcast(e.powerOfTwo(e.sub(state[r], maxima[r])));
          AttentionState(e, headDim,
                         e.offset(sums, r * AttentionState::bytes(headDim)))
              .scale(factor);
          scaled.push_back(e.mul(grown[r], factor));
        }
        return scaled;
      },
      [&] { return grown; });

  Emitter::Values factors;
  for (int64_t r = 0; r < size; ++r) {
    factors.push_back(e.broadcast(e.powerOfTwo(e.sub(tops[r], maxima[r]))));
    Value top = e.broadcast(tops[r]), weight;
    for (int64_t v = 0; v < kKeyVectors; ++v) {
      Value p = e.exp2(e.sub(score[r][v], top));
      weight = weight ? e.fma(p, weights[v], weight) : e.mul(p, weights[v]);
      Value code = e.roundProduct(p, e.constant(floats(), kProbabilityOne));
      e.store(e.truncate(code, e.i16()),
              e.offset(probabilities, (r * kPageTokens + v * kLanes) * 2), 32);
    }
    grown[r] = e.fma(weight, factors[r], grown[r]);
  }
  accumulate(head, ahead, factors);
  maxima.append(grown);
  return maxima;
}

/// Scores, masked, [vector][kKeyVectors]. Meanwhile the keys of the page
/// `ahead` are prefetched.
SmallVector<Emitter::Values> FixedAttention::scores(const Group &group,
                                                    Value page, Value head,
                                                    Value ahead) {
  // With few registers, half a page at a time.
  const int64_t width = e.target.vectorBits == 512 ? kKeyVectors : 1;
  SmallVector<Emitter::Values> result(size);
  for (int64_t from = 0; from < kKeyVectors; from += width) {
    SmallVector<Value> zeros(size * width, e.constant(ints(), 0));
    Emitter::Values dots = e.forLoop(
        e.index(0), e.index(headDim / 2), 1, zeros,
        [&](Value pair, ValueRange carried) {
          Value row = e.mul(pair, e.index(layout.dimPairStride()));
          Value words = e.offset(e.offset(head, row), from * kLanes * 4);
          if (prefetches && from == 0)
            for (int64_t byte = 0; byte < kPageTokens * 4; byte += 64)
              e.prefetch(e.offset(e.offset(ahead, row), byte), CacheLevel::L2);
          Emitter::Values keys, grown;
          for (int64_t v = 0; v < width; ++v)
            keys.push_back(
                e.load(ints(), e.offset(words, v * kLanes * 4), 64));
          for (int64_t r = 0; r < size; ++r)
            for (int64_t v = 0; v < width; ++v)
              grown.push_back(e.dotPairs(
                  carried[r * width + v], keys[v],
                  e.broadcast(e.load(e.i32(), codesAt(group.first, r, pair),
                                     4))));
          return grown;
        });
    for (int64_t v = 0; v < width; ++v) {
      const int64_t byte = (from + v) * kLanes * 4;
      Value keyScale = e.load(
          floats(), e.offset(head, layout.scaleOffset(FixedKvScale::kKey) + byte), 64);
      Value valueLog = e.load(
          floats(), e.offset(head, layout.scaleOffset(FixedKvScale::kValueLog2) + byte), 64);
      for (int64_t r = 0; r < size; ++r) {
        Value own = e.load(
            e.f32(), at(scales, e.add(group.first, e.index(r)), 4), 4);
        Value dot = e.toFloat(dots[r * width + v], e.f32());
        result[r].push_back(
            e.fma(dot, e.mul(keyScale, e.broadcast(own)), valueLog));
      }
    }
  }
  // Nearly all pages are behind the window's begin and before the own token.
  Value firstKey = e.mul(page, e.index(kPageTokens));
  Value partly = e.less(group.firstSlot,
                        e.add(firstKey, e.index(kPageTokens - 1)));
  if (plan.window > 0)
    partly = e.orI(partly, e.less(e.add(firstKey, e.index(plan.window - 1)),
                                  group.lastSlot));
  Emitter::Values all;
  for (const Emitter::Values &of : result)
    all.append(of);
  all = e.choose(
      partly,
      [&] {
        Emitter::Values seen;
        for (int64_t i = 0; i < size * kKeyVectors; ++i)
          seen.push_back(
              masked(all[i], group.slot[i / kKeyVectors],
                     e.add(firstKey, e.index(i % kKeyVectors * kLanes))));
        return seen;
      },
      [&] { return all; });
  for (int64_t i = 0; i < size * kKeyVectors; ++i)
    result[i / kKeyVectors][i % kKeyVectors] = all[i];
  return result;
}

/// Two codes of query vector `vector` of a group.
Value FixedAttention::codesAt(Value first, int64_t vector, Value pair) {
  Value row = at(codes, e.add(first, e.index(vector)), headDim * 2);
  return at(row, pair, 4);
}

Value FixedAttention::masked(Value score, Value slot, Value firstKey) {
  Value key = e.add(e.laneNumbers(), e.broadcast(e.truncate(firstKey, e.i32())));
  Value own = e.broadcast(slot);
  Value nothing =
      e.constant(floats(), -std::numeric_limits<double>::infinity());
  score = e.select(e.less(own, key), nothing, score);
  if (plan.window == 0)
    return score;
  Value begin = e.sub(own, e.constant(ints(), plan.window - 1));
  return e.select(e.less(key, begin), nothing, score);
}

int64_t FixedAttention::chunk() const {
  // Sums, values and a probability stay in registers.
  int64_t registers =
      e.target.vectorRegisters * e.target.vectorBits / (32 * kLanes);
  int64_t columns = kMaxChunk;
  while (columns > 1 && (size + 1) * columns + 1 > registers)
    columns /= 2;
  return columns;
}

/// Adds the page's values, by its probabilities and the vectors' factors.
/// Meanwhile the values of the page `ahead` are prefetched.
void FixedAttention::accumulate(Value head, Value ahead, ValueRange factors) {
  const int64_t vectors = headDim / kLanes;
  for (int64_t first = 0; first < vectors; first += chunk()) {
    const int64_t width = std::min(chunk(), vectors - first);
    SmallVector<Value> zeros(size * width, e.constant(ints(), 0));
    Emitter::Values dots = e.forLoop(
        e.index(0), e.index(kPageTokens / 2), 1, zeros,
        [&](Value pair, ValueRange carried) {
          Value place = e.add(e.index(layout.valuesOffset()),
                              e.mul(pair, e.index(layout.tokenPairStride())));
          Value words = e.offset(e.offset(head, place), first * kLanes * 4);
          if (prefetches && first == 0)
            for (int64_t byte = 0; byte < headDim * 4; byte += 64)
              e.prefetch(e.offset(e.offset(ahead, place), byte),
                         CacheLevel::L2);
          Emitter::Values values, grown;
          for (int64_t v = 0; v < width; ++v)
            values.push_back(
                e.load(ints(), e.offset(words, v * kLanes * 4), 64));
          for (int64_t r = 0; r < size; ++r) {
            Value both = e.load(
                e.i32(),
                at(e.offset(probabilities, r * kPageTokens * 2), pair, 4), 4);
            for (int64_t v = 0; v < width; ++v)
              grown.push_back(e.dotPairs(carried[r * width + v], values[v],
                                         e.broadcast(both)));
          }
          return grown;
        });
    for (int64_t r = 0; r < size; ++r) {
      AttentionState state(e, headDim,
                           e.offset(sums, r * AttentionState::bytes(headDim)));
      for (int64_t v = 0; v < width; ++v) {
        Value to = state.column((first + v) * kLanes);
        Value dot = e.toFloat(dots[r * width + v], e.f32());
        e.store(e.fma(dot, factors[r], e.load(floats(), to, 64)), to, 64);
      }
    }
  }
}

/// Divides by the weights and stores the vector in the results' formats.
void FixedAttention::finish(const Part &part, Value vector,
                            const AttentionState &state) {
  auto [row, head] = placeOf(part, vector);
  Value inverse = e.broadcast(
      e.div(e.constant(e.f32(), 1.0),
            e.mul(state.weight(), e.constant(e.f32(), kProbabilityOne))));
  storeHead(k, plan, headDim, row, head, [&](int64_t column) {
    return e.mul(e.load(floats(), state.column(column), 64), inverse);
  });
}

} // namespace

bool matchesFixedAttention(Kernel &k) {
  std::optional<AttentionPlan> plan = planAttention(k.op);
  return plan && kvLayout(cast<lm::KvCacheType>(plan->kv.getType())).isFixed;
}

LogicalResult generateFixedAttention(Kernel &k) {
  AttentionPlan plan = *planAttention(k.op);
  auto type = cast<lm::KvCacheType>(plan.kv.getType());
  int64_t unit = plan.quantized ? kPackedGroup : kLanes;
  if (type.getPage() != kPageTokens)
    return k.emitError() << "expected pages of " << kPageTokens
                         << " tokens, got " << type.getPage();
  if (type.getHeadDim() % unit != 0)
    return k.emitError() << "expected head_dim to be a multiple of " << unit
                         << ", got " << type.getHeadDim();
  FixedAttention(k, plan).emit();
  return success();
}

} // namespace quern::host

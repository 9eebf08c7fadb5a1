//===- PageProducts.cpp ---------------------------------------------------===//
#include "codegen/host/PageProducts.h"
#include "codegen/host/KvAppend.h"

#include <cmath>
#include <limits>

using namespace mlir;

namespace quern::host {

static constexpr int64_t kPageTokens = kHostPageTokens;
/// Vectors of keys of a page.
static constexpr int64_t kKeyVectors = kPageTokens / kLanes;
/// Columns of the values that are summed at a time, at most, in vectors.
static constexpr int64_t kMaxChunk = 4;
static constexpr int64_t kWordBytes = KvLayout::kWordBytes;

PageProducts::PageProducts(Kernel &k, const AttentionPlan &plan,
                           KvLayout layout, int64_t vectors, int64_t groupSize)
    : e(k.e), layout(layout), headDim(layout.headDim), window(plan.window),
      scale(plan.scale * M_LOG2E), isFixed(layout.isFixed),
      isDecode(k.role == Role::Decode), inWord(isFixed ? 2 : 1),
      keySteps(headDim / inWord), valueSteps(kPageTokens / inWord),
      queries(k.temporary(vectors * keySteps * kWordBytes)),
      scales(k.temporary(isFixed ? vectors * 4 : 0)),
      sums(k.temporary(groupSize * AttentionState::bytes(headDim))),
      probabilities(k.temporary(groupSize * valueSteps * kWordBytes)) {}

void PageProducts::prepare(Value query, Value vector) {
  Value target = e.at(queries, vector, keySteps * kWordBytes);
  if (isFixed) {
    Value own = storeKeyCodes(e, headDim, query, target);
    e.store(e.mul(own, e.constant(e.f32(), scale)), e.at(scales, vector, 4), 4);
    return;
  }
  for (int64_t column = 0; column < headDim; column += kLanes)
    e.store(e.mul(e.load(floats(), e.offset(query, column * 4), 4),
                  e.constant(floats(), scale)),
            e.offset(target, column * 4), 64);
}

AttentionState PageProducts::state(int64_t vector) const {
  return AttentionState(
      e, headDim, e.offset(sums, vector * AttentionState::bytes(headDim)));
}

Emitter::Values PageProducts::attend(const QueryGroup &group,
                                     const PageHead &page, ValueRange state) {
  const int64_t size = group.size();
  Rows score = scores(group, page);
  mask(group, page, score);
  Emitter::Values top = tops(score), result;
  for (int64_t r = 0; r < size; ++r)
    result.push_back(e.maxF(state[r], top[r]));
  result.append(moveTo(result, state));
  Emitter::Values weights = weightsOfKeys(group, page), factors;
  for (int64_t r = 0; r < size; ++r) {
    factors.push_back(e.broadcast(e.powerOfTwo(e.sub(top[r], result[r]))));
    Value sum = storeProbabilities(r, score[r], top[r], weights);
    result[size + r] = e.fma(sum, factors[r], result[size + r]);
  }
  accumulate(group, page, factors);
  return result;
}

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

/// sum + words * word, of all numbers of a word.
Value PageProducts::multiply(Value sum, Value words, Value word) {
  Value spread = e.broadcast(word);
  return isFixed ? e.dotPairs(sum, words, spread) : e.fma(spread, words, sum);
}

/// [vector][kKeyVectors], of hidden keys too.
PageProducts::Rows PageProducts::scores(const QueryGroup &group,
                                        const PageHead &page) {
  // With few registers half a page at a time.
  const int64_t width = e.target.vectorBits == 512 ? kKeyVectors : 1;
  Rows result(group.size());
  for (int64_t from = 0; from < kKeyVectors; from += width) {
    Emitter::Values dots = dotKeys(group, page, from, width);
    for (int64_t r = 0; r < group.size(); ++r)
      for (int64_t v = 0; v < width; ++v) {
        Value dot = dots[r * width + v];
        if (isFixed) {
          Value own = e.load(
              e.f32(), e.at(scales, e.add(group.first, e.index(r)), 4), 4);
          Value both = e.mul(scalesOf(page, FixedKvScale::kKey, from + v),
                             e.broadcast(own));
          dot = e.fma(sumAsFloat(dot), both,
                      scalesOf(page, FixedKvScale::kValueLog2, from + v));
        }
        result[r].push_back(dot);
      }
  }
  return result;
}

/// Products of the group's vectors with `width` vectors of keys,
/// [vector][width].
Emitter::Values PageProducts::dotKeys(const QueryGroup &group,
                                      const PageHead &page, int64_t from,
                                      int64_t width) {
  SmallVector<Value> zeros(group.size() * width, zero());
  return e.forLoop(
      e.index(0), e.index(keySteps), 1, zeros,
      [&](Value step, ValueRange carried) {
        Value row = e.at(e.offset(page.head, from * kLanes * kWordBytes), step,
                         kPageTokens * kWordBytes);
        Emitter::Values keys, grown;
        for (int64_t v = 0; v < width; ++v)
          keys.push_back(
              e.load(words(), e.offset(row, v * kLanes * kWordBytes), 64));
        for (int64_t r = 0; r < group.size(); ++r) {
          Value query = e.at(queries, e.add(group.first, e.index(r)),
                             keySteps * kWordBytes);
          Value own = e.load(word(), e.at(query, step, kWordBytes), 4);
          for (int64_t v = 0; v < width; ++v)
            grown.push_back(multiply(carried[r * width + v], keys[v], own));
        }
        return grown;
      });
}

/// i32 tokens of vector `vector` of the page's keys.
Value PageProducts::keyNumbers(const PageHead &page, int64_t vector) {
  Value first =
      e.add(e.mul(page.number, e.index(kPageTokens)), e.index(vector * kLanes));
  return e.add(e.laneNumbers(), e.broadcast(e.truncate(first, e.i32())));
}

Value PageProducts::scalesOf(const PageHead &page, FixedKvScale scale,
                             int64_t vector) {
  return e.load(
      floats(),
      e.offset(page.head, layout.scaleOffset(scale) + vector * kLanes * 4), 64);
}

/// Hides the keys that a vector does not see.
void PageProducts::mask(const QueryGroup &group, const PageHead &page,
                        Rows &scores) {
  // Nearly all pages are behind the window's begin and before the own token.
  Value firstKey = e.mul(page.number, e.index(kPageTokens));
  Value partly =
      e.less(group.firstSlot, e.add(firstKey, e.index(kPageTokens - 1)));
  if (window > 0)
    partly = e.orI(
        partly, e.less(e.add(firstKey, e.index(window - 1)), group.lastSlot));
  Emitter::Values all;
  for (const Emitter::Values &row : scores)
    all.append(row);
  Emitter::Values seen = e.choose(
      partly,
      [&] {
        Emitter::Values hidden;
        for (auto [i, score] : llvm::enumerate(all))
          hidden.push_back(masked(score, group.slots[i / kKeyVectors],
                                  keyNumbers(page, i % kKeyVectors)));
        return hidden;
      },
      [&] { return all; });
  for (auto [i, score] : llvm::enumerate(seen))
    scores[i / kKeyVectors][i % kKeyVectors] = score;
}

Value PageProducts::masked(Value score, Value slot, Value keys) {
  Value own = e.broadcast(slot);
  Value nothing =
      e.constant(floats(), -std::numeric_limits<double>::infinity());
  score = e.select(e.less(own, keys), nothing, score);
  if (window == 0)
    return score;
  Value begin = e.sub(own, e.constant(e.vec(kLanes, e.i32()), window - 1));
  return e.select(e.less(keys, begin), nothing, score);
}

//===----------------------------------------------------------------------===//
// Probabilities
//===----------------------------------------------------------------------===//

/// Of each vector an integer not below its greatest score, and finite (f32).
Emitter::Values PageProducts::tops(const Rows &scores) {
  Emitter::Values best, result;
  for (const Emitter::Values &row : scores)
    best.push_back(e.maxF(row[0], row[1]));
  auto roundUp = [&](Value x) {
    x = e.roundEven(e.add(x, e.constant(x.getType(), 0.5)));
    return e.maxF(x, e.constant(x.getType(), AttentionState::kNoMaximum));
  };
  size_t r = 0;
  // Two at once take fewer steps, but wider ones: decode waits for the steps.
  for (; isDecode && r + 1 < best.size(); r += 2) {
    Value both = roundUp(e.reduceMaxBoth(best[r], best[r + 1]));
    result.append({e.extract(both, 0), e.extract(both, 1)});
  }
  for (; r < best.size(); ++r)
    result.push_back(roundUp(e.reduceMax(best[r])));
  return result;
}

/// Takes the sums of a group to new maxima; returns those of weights.
Emitter::Values PageProducts::moveTo(ValueRange maxima, ValueRange state) {
  const int64_t size = maxima.size();
  Value grew;
  for (int64_t r = 0; r < size; ++r) {
    Value more = e.less(state[r], maxima[r]);
    grew = grew ? e.orI(grew, more) : more;
  }
  // Behind the first pages maxima hardly ever grow.
  return e.choose(
      grew,
      [&] {
        Emitter::Values scaled;
        for (int64_t r = 0; r < size; ++r) {
          Value factor = e.broadcast(e.powerOfTwo(e.sub(state[r], maxima[r])));
          this->state(r).scale(factor);
          scaled.push_back(e.mul(state[size + r], factor));
        }
        return scaled;
      },
      [&] { return Emitter::Values(state.drop_front(size)); });
}

/// The weight of a key is its probability, less the scale of its value. Behind
/// the last slot may lie anything.
Emitter::Values PageProducts::weightsOfKeys(const QueryGroup &group,
                                            const PageHead &page) {
  if (!isFixed)
    return Emitter::Values(kKeyVectors, e.constant(floats(), 1.0));
  Value last = e.broadcast(e.truncate(group.lastSlot, e.i32()));
  Emitter::Values weights;
  for (int64_t v = 0; v < kKeyVectors; ++v)
    weights.push_back(e.select(e.less(last, keyNumbers(page, v)),
                               e.constant(floats(), 0.0),
                               scalesOf(page, FixedKvScale::kValueInverse, v)));
  return weights;
}

/// Stores a vector's probabilities; returns the sum of weights, 16 lanes.
Value PageProducts::storeProbabilities(int64_t vector, ValueRange scores,
                                       Value top, ValueRange weights) {
  Value one = e.constant(floats(), this->one()), sum;
  top = e.broadcast(top);
  const int64_t bytes = kWordBytes / inWord;
  for (int64_t v = 0; v < kKeyVectors; ++v) {
    Value p = e.exp2(e.sub(scores[v], top));
    sum = sum ? e.fma(p, weights[v], sum) : e.mul(p, weights[v]);
    Value stored = isFixed ? e.truncate(e.roundProduct(p, one), e.i16()) : p;
    e.store(
        stored,
        e.offset(probabilities, (vector * kPageTokens + v * kLanes) * bytes),
        kLanes * bytes);
  }
  return sum;
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

int64_t PageProducts::chunk(int64_t size) const {
  // Sums, values and a probability stay in registers.
  int64_t registers =
      e.target.vectorRegisters * e.target.vectorBits / (32 * kLanes);
  int64_t columns = kMaxChunk;
  while (columns > 1 && (size + 1) * columns + 1 > registers)
    columns /= 2;
  return columns;
}

Value PageProducts::visibleSteps(const QueryGroup &group,
                                 const PageHead &page) {
  // Behind the last slot probabilities are 0, which takes out any code; an f32
  // there may be a NaN.
  if (isFixed)
    return e.index(valueSteps);
  Value left = e.sub(e.add(group.lastSlot, e.index(1)),
                     e.mul(page.number, e.index(kPageTokens)));
  return e.select(e.less(left, e.index(kPageTokens)), left,
                  e.index(kPageTokens));
}

/// Adds the page's values, by its probabilities and the vectors' factors.
void PageProducts::accumulate(const QueryGroup &group, const PageHead &page,
                              ValueRange factors) {
  const int64_t size = factors.size(), vectors = headDim / kLanes;
  Value steps = visibleSteps(group, page);
  for (int64_t first = 0; first < vectors; first += chunk(size)) {
    const int64_t width = std::min(chunk(size), vectors - first);
    SmallVector<Value> zeros(size * width, zero());
    Value begin = e.offset(page.head,
                           layout.valuesOffset() + first * kLanes * kWordBytes);
    Emitter::Values dots = e.forLoop(
        e.index(0), steps, 1, zeros, [&](Value step, ValueRange carried) {
          Value row = e.at(begin, step, headDim * kWordBytes);
          Emitter::Values values, grown;
          for (int64_t v = 0; v < width; ++v)
            values.push_back(
                e.load(words(), e.offset(row, v * kLanes * kWordBytes), 64));
          for (int64_t r = 0; r < size; ++r) {
            Value own = e.offset(probabilities, r * valueSteps * kWordBytes);
            Value p = e.load(word(), e.at(own, step, kWordBytes), 4);
            for (int64_t v = 0; v < width; ++v)
              grown.push_back(multiply(carried[r * width + v], values[v], p));
          }
          return grown;
        });
    for (int64_t r = 0; r < size; ++r)
      for (int64_t v = 0; v < width; ++v) {
        Value to = state(r).column((first + v) * kLanes);
        e.store(e.fma(sumAsFloat(dots[r * width + v]), factors[r],
                      e.load(floats(), to, 64)),
                to, 64);
      }
  }
}

} // namespace quern::host

//===- FixedPageProducts.cpp ----------------------------------------------===//
#include "codegen/host/FixedPageProducts.h"

#include <limits>

using namespace mlir;

namespace quern::host {

static constexpr int64_t kPageTokens = kHostPageTokens;
/// Vectors of keys of a page.
static constexpr int64_t kKeyVectors = kPageTokens / kLanes;
/// Columns of the values that are summed at a time, at most, in vectors.
static constexpr int64_t kMaxChunk = 4;

FixedPageProducts::FixedPageProducts(Kernel &k, const AttentionPlan &plan,
                                     KvLayout layout, QueryScratch scratch)
    : e(k.e), layout(layout), scratch(scratch), headDim(layout.headDim),
      window(plan.window) {}

AttentionState FixedPageProducts::state(int64_t vector) const {
  return AttentionState(
      e, headDim,
      e.offset(scratch.sums, vector * AttentionState::bytes(headDim)));
}

Emitter::Values FixedPageProducts::attend(const QueryGroup &group,
                                          const PageHead &page,
                                          ValueRange state) {
  const int64_t size = group.size();
  Rows score = scores(group, page);
  mask(group, page, score);
  Emitter::Values tops, result;
  for (int64_t r = 0; r < size; ++r) {
    Value best = e.reduceMax(e.maxF(score[r][0], score[r][1]));
    // Not below `best`, and finite.
    Value rounded = e.roundEven(e.add(best, e.constant(e.f32(), 0.5)));
    tops.push_back(
        e.maxF(rounded, e.constant(e.f32(), AttentionState::kNoMaximum)));
    result.push_back(e.maxF(state[r], tops[r]));
  }
  result.append(moveTo(result, state));
  Emitter::Values weights = weightsOfKeys(group, page), factors;
  for (int64_t r = 0; r < size; ++r) {
    factors.push_back(e.broadcast(e.powerOfTwo(e.sub(tops[r], result[r]))));
    Value sum = storeProbabilities(r, score[r], tops[r], weights);
    result[size + r] = e.fma(sum, factors[r], result[size + r]);
  }
  accumulate(page, factors);
  return result;
}

/// Takes the sums of a group to new maxima; returns those of weights.
Emitter::Values FixedPageProducts::moveTo(ValueRange maxima, ValueRange state) {
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

/// Stores the codes of a vector's probabilities; returns the sum of weights.
Value FixedPageProducts::storeProbabilities(int64_t vector, ValueRange scores,
                                            Value top, ValueRange weights) {
  Value one = e.constant(floats(), kProbabilityOne), sum;
  top = e.broadcast(top);
  for (int64_t v = 0; v < kKeyVectors; ++v) {
    Value p = e.exp2(e.sub(scores[v], top));
    sum = sum ? e.fma(p, weights[v], sum) : e.mul(p, weights[v]);
    e.store(e.truncate(e.roundProduct(p, one), e.i16()),
            e.offset(scratch.probabilities,
                     (vector * kPageTokens + v * kLanes) * 2),
            32);
  }
  return sum;
}

/// i32 tokens of vector `vector` of the page's keys.
Value FixedPageProducts::keyNumbers(const PageHead &page, int64_t vector) {
  Value first =
      e.add(e.mul(page.number, e.index(kPageTokens)), e.index(vector * kLanes));
  return e.add(e.laneNumbers(), e.broadcast(e.truncate(first, e.i32())));
}

/// The weight of a key is its probability over the scale of its value. Behind
/// the last slot may lie anything.
Emitter::Values FixedPageProducts::weightsOfKeys(const QueryGroup &group,
                                                 const PageHead &page) {
  Value last = e.broadcast(e.truncate(group.lastSlot, e.i32()));
  Value inverses =
      e.offset(page.head, layout.scaleOffset(FixedKvScale::kValueInverse));
  Emitter::Values weights;
  for (int64_t v = 0; v < kKeyVectors; ++v)
    weights.push_back(
        e.select(e.less(last, keyNumbers(page, v)), e.constant(floats(), 0.0),
                 e.load(floats(), e.offset(inverses, v * kLanes * 4), 64)));
  return weights;
}

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

/// [vector][kKeyVectors], of hidden keys too.
FixedPageProducts::Rows FixedPageProducts::scores(const QueryGroup &group,
                                                  const PageHead &page) {
  // With few registers, half a page at a time.
  const int64_t width = e.target.vectorBits == 512 ? kKeyVectors : 1;
  Rows result(group.size());
  auto scalesOf = [&](FixedKvScale scale, int64_t v) {
    return e.load(
        floats(),
        e.offset(page.head, layout.scaleOffset(scale) + v * kLanes * 4), 64);
  };
  for (int64_t from = 0; from < kKeyVectors; from += width) {
    Emitter::Values dots = dotKeys(group, page, from, width);
    for (int64_t v = 0; v < width; ++v) {
      Value keyScale = scalesOf(FixedKvScale::kKey, from + v);
      Value valueLog = scalesOf(FixedKvScale::kValueLog2, from + v);
      for (int64_t r = 0; r < group.size(); ++r) {
        Value scale = e.load(
            e.f32(), at(scratch.scales, e.add(group.first, e.index(r)), 4), 4);
        Value dot = e.toFloat(dots[r * width + v], e.f32());
        result[r].push_back(
            e.fma(dot, e.mul(keyScale, e.broadcast(scale)), valueLog));
      }
    }
  }
  return result;
}

/// Products of the group's codes with `width` vectors of keys, [vector][width].
Emitter::Values FixedPageProducts::dotKeys(const QueryGroup &group,
                                           const PageHead &page, int64_t from,
                                           int64_t width) {
  SmallVector<Value> zeros(group.size() * width, e.constant(ints(), 0));
  return e.forLoop(
      e.index(0), e.index(headDim / 2), 1, zeros,
      [&](Value pair, ValueRange carried) {
        Value row = e.mul(pair, e.index(layout.dimPairStride()));
        Value words = e.offset(e.offset(page.head, row), from * kLanes * 4);
        Emitter::Values keys, grown;
        for (int64_t v = 0; v < width; ++v)
          keys.push_back(e.load(ints(), e.offset(words, v * kLanes * 4), 64));
        for (int64_t r = 0; r < group.size(); ++r) {
          Value codes =
              at(scratch.codes, e.add(group.first, e.index(r)), headDim * 2);
          Value both = e.broadcast(e.load(e.i32(), at(codes, pair, 4), 4));
          for (int64_t v = 0; v < width; ++v)
            grown.push_back(e.dotPairs(carried[r * width + v], keys[v], both));
        }
        return grown;
      });
}

/// Hides the keys that a vector does not see.
void FixedPageProducts::mask(const QueryGroup &group, const PageHead &page,
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

Value FixedPageProducts::masked(Value score, Value slot, Value keys) {
  Value own = e.broadcast(slot);
  Value nothing =
      e.constant(floats(), -std::numeric_limits<double>::infinity());
  score = e.select(e.less(own, keys), nothing, score);
  if (window == 0)
    return score;
  Value begin = e.sub(own, e.constant(ints(), window - 1));
  return e.select(e.less(keys, begin), nothing, score);
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

int64_t FixedPageProducts::chunk(int64_t size) const {
  // Sums, values and a probability stay in registers.
  int64_t registers =
      e.target.vectorRegisters * e.target.vectorBits / (32 * kLanes);
  int64_t columns = kMaxChunk;
  while (columns > 1 && (size + 1) * columns + 1 > registers)
    columns /= 2;
  return columns;
}

/// Adds the page's values, by its probabilities and the vectors' factors.
void FixedPageProducts::accumulate(const PageHead &page, ValueRange factors) {
  const int64_t size = factors.size(), vectors = headDim / kLanes;
  for (int64_t first = 0; first < vectors; first += chunk(size)) {
    const int64_t width = std::min(chunk(size), vectors - first);
    SmallVector<Value> zeros(size * width, e.constant(ints(), 0));
    Emitter::Values dots = e.forLoop(
        e.index(0), e.index(kPageTokens / 2), 1, zeros,
        [&](Value pair, ValueRange carried) {
          Value place = e.add(e.index(layout.valuesOffset()),
                              e.mul(pair, e.index(layout.tokenPairStride())));
          Value words =
              e.offset(e.offset(page.head, place), first * kLanes * 4);
          Emitter::Values values, grown;
          for (int64_t v = 0; v < width; ++v)
            values.push_back(
                e.load(ints(), e.offset(words, v * kLanes * 4), 64));
          for (int64_t r = 0; r < size; ++r) {
            Value codes = e.offset(scratch.probabilities, r * kPageTokens * 2);
            Value both = e.broadcast(e.load(e.i32(), at(codes, pair, 4), 4));
            for (int64_t v = 0; v < width; ++v)
              grown.push_back(
                  e.dotPairs(carried[r * width + v], values[v], both));
          }
          return grown;
        });
    for (int64_t r = 0; r < size; ++r)
      for (int64_t v = 0; v < width; ++v) {
        Value to = state(r).column((first + v) * kLanes);
        Value dot = e.toFloat(dots[r * width + v], e.f32());
        e.store(e.fma(dot, factors[r], e.load(floats(), to, 64)), to, 64);
      }
  }
}

} // namespace quern::host

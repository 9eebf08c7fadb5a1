//===- Attention.cpp - Positions, caches and attention --------------------===//
#include "dialects/reference/Evaluate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

using namespace mlir;
using namespace quern;
using namespace quern::reference;

//===----------------------------------------------------------------------===//
// Positions
//===----------------------------------------------------------------------===//

LogicalResult reference::evaluate(lm::RopeOp op, Frame &frame) {
  const Tensor &x = frame.tensor(op.getX());
  const Tensor &positions = frame.tensor(op.getPositions());
  if (failed(expectRows(op, positions.size(), x.rows())))
    return failure();
  const Tensor *factors =
      op.getFactors() ? &frame.tensor(op.getFactors()) : nullptr;
  const int64_t heads = op.getHeads(), headDim = op.getHeadDim();
  const int64_t pairs = op.getRotaryDim() / 2;
  const bool interleaved = op.getMode() == lm::RopeMode::Interleaved;
  const double base = op.getBase().convertToDouble();
  Tensor y = x;
  for (int64_t m = 0; m < x.rows(); ++m)
    for (int64_t i = 0; i < pairs; ++i) {
      const double frequency = std::pow(base, -static_cast<double>(i) / pairs);
      const double angle = positions.indices[m] * frequency /
                           (factors ? factors->floats[i] : 1.0f);
      const double c = std::cos(angle), s = std::sin(angle);
      const int64_t first = interleaved ? 2 * i : i;
      const int64_t second = interleaved ? 2 * i + 1 : i + pairs;
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = (m * heads + h) * headDim;
        const float a = x.floats[at + first], b = x.floats[at + second];
        y.floats[at + first] = static_cast<float>(a * c - b * s);
        y.floats[at + second] = static_cast<float>(a * s + b * c);
      }
    }
  frame.set(op.getResult(), std::move(y));
  return success();
}

//===----------------------------------------------------------------------===//
// The cache
//===----------------------------------------------------------------------===//

KvCache reference::makeCache(lm::KvCacheType type) {
  KvCache cache;
  cache.heads = type.getHeads();
  cache.headDim = type.getHeadDim();
  cache.format = *lm::formatOf(type.getElementType());
  return cache;
}

/// What a cache of `format` gives back of `n` elements that it is given.
static void roundElements(BlockFormat format, const float *src, float *dst,
                          int64_t n) {
  if (format != BlockFormat::A8) {
    std::vector<uint8_t> encoded(blockFormatInfo(format).rowBytes(n));
    quantizeRow(format, src, encoded.data(), n);
    return dequantizeRow(format, encoded.data(), dst, n);
  }
  // The scales of a cache lie further apart than those of activations.
  std::array<int8_t, lm::kKvScaleColumns> codes;
  for (int64_t i = 0; i < n; i += lm::kKvScaleColumns) {
    const float scale =
        quantizeToInt8(src + i, lm::kKvScaleColumns, codes.data());
    for (int64_t j = 0; j < lm::kKvScaleColumns; ++j)
      dst[i + j] = scale * codes[j];
  }
}

LogicalResult reference::evaluate(lm::KvAppendOp op, Frame &frame) {
  const Tensor &k = frame.tensor(op.getK()), &v = frame.tensor(op.getV());
  if (failed(expectRows(op, v.rows(), k.rows())))
    return failure();
  KvCache cache = frame.cache(op.getKv());
  auto append = [&](std::vector<float> &to, const Tensor &from) {
    const auto count = static_cast<int64_t>(from.floats.size());
    to.resize(to.size() + count);
    roundElements(cache.format, from.floats.data(),
                  to.data() + to.size() - count, count);
  };
  append(cache.keys, k);
  append(cache.values, v);
  cache.rows += k.rows();
  frame.set(op.getResult(), datum(std::move(cache)));
  return success();
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

namespace {
/// One query head's view of the cache.
struct Head {
  const KvCache &kv;
  const float *query; // (headDim)
  int64_t group;      // KV head that this query head reads.
  double scale;

  const float *key(int64_t j) const { return row(kv.keys, j); }
  const float *value(int64_t j) const { return row(kv.values, j); }
  double score(int64_t j) const {
    double dot = 0;
    for (int64_t d = 0; d < kv.headDim; ++d)
      dot += static_cast<double>(query[d]) * key(j)[d];
    return scale * dot;
  }

private:
  const float *row(const std::vector<float> &rows, int64_t j) const {
    return rows.data() + (j * kv.heads + group) * kv.headDim;
  }
};
} // namespace

/// softmax(scores) V over cache rows [begin, end).
static void attend(const Head &head, int64_t begin, int64_t end, float *y) {
  std::vector<double> weights;
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t j = begin; j < end; ++j) {
    weights.push_back(head.score(j));
    largest = std::max(largest, weights.back());
  }
  for (double &weight : weights)
    sum += weight = std::exp(weight - largest);
  for (int64_t d = 0; d < head.kv.headDim; ++d) {
    double total = 0;
    for (int64_t j = begin; j < end; ++j)
      total += weights[j - begin] * head.value(j)[d];
    y[d] = static_cast<float>(total / sum);
  }
}

/// The same, tile by tile: when a tile raises the maximum, what was summed
/// before is scaled down.
static void attendOnline(const Head &head, int64_t begin, int64_t end,
                         int64_t tile, float *y) {
  std::vector<double> totals(head.kv.headDim, 0.0);
  double largest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t at = begin / tile * tile; at < end; at += tile) {
    const int64_t first = std::max(at, begin), last = std::min(at + tile, end);
    double next = largest;
    for (int64_t j = first; j < last; ++j)
      next = std::max(next, head.score(j));
    const double correction = std::exp(largest - next);
    sum *= correction;
    for (double &total : totals)
      total *= correction;
    for (int64_t j = first; j < last; ++j) {
      const double weight = std::exp(head.score(j) - next);
      sum += weight;
      for (int64_t d = 0; d < head.kv.headDim; ++d)
        totals[d] += weight * head.value(j)[d];
    }
    largest = next;
  }
  for (int64_t d = 0; d < head.kv.headDim; ++d)
    y[d] = static_cast<float>(totals[d] / sum);
}

/// Calls attendHead(head, begin, end, y) for every row and head.
template <typename OpT, typename AttendHead>
static LogicalResult forEachHead(OpT op, Frame &frame, AttendHead attendHead) {
  const Tensor &q = frame.tensor(op.getQ());
  const Tensor &positions = frame.tensor(op.getPositions());
  const KvCache &kv = frame.cache(op.getKv());
  if (failed(expectRows(op, positions.size(), q.rows())))
    return failure();
  const int64_t heads = op.getHeads(), window = op.getWindow();
  const int64_t groupSize = heads / kv.heads;
  Tensor y = Tensor::makeFloats(q.shape);
  for (int64_t m = 0; m < q.rows(); ++m) {
    const int64_t position = positions.indices[m];
    if (position < 0 || position >= kv.rows)
      return op.emitOpError() << "expected a position below the cache's "
                              << kv.rows << " rows, but got " << position;
    const int64_t end = position + 1;
    const int64_t begin = window ? std::max<int64_t>(0, end - window) : 0;
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = (m * heads + h) * kv.headDim;
      const Head head{kv, q.floats.data() + at, h / groupSize,
                      op.getScale().convertToFloat()};
      attendHead(head, begin, end, y.floats.data() + at);
    }
  }
  frame.set(op.getResult(), std::move(y));
  return success();
}

LogicalResult reference::evaluate(lm::AttentionOp op, Frame &frame) {
  return forEachHead(op, frame, attend);
}

LogicalResult reference::evaluate(lm::OnlineAttentionOp op, Frame &frame) {
  const int64_t tile = op.getKeyTile();
  return forEachHead(
      op, frame,
      [tile](const Head &head, int64_t begin, int64_t end, float *y) {
        attendOnline(head, begin, end, tile, y);
      });
}

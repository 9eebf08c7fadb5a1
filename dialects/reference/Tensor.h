//===- Tensor.h - What the reference interpreter computes on ----*- C++ -*-===//
#ifndef QUERN_DIALECTS_REFERENCE_TENSOR_H
#define QUERN_DIALECTS_REFERENCE_TENSOR_H

#include "dialects/lm/BlockFormat.h"

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

namespace quern::reference {

/// A tensor in memory: 32-bit floats, 32-bit indices, or rows of bytes in a
/// storage format. Exactly one of the three vectors is in use.
struct Tensor {
  std::vector<int64_t> shape;
  /// How the last dimension is stored. F32 tensors use `floats`, indices are
  /// F32 with `isIndices`, everything else uses `bytes`.
  BlockFormat format = BlockFormat::F32;
  bool isIndices = false;
  std::vector<float> floats;
  std::vector<int32_t> indices;
  std::vector<uint8_t> bytes;

  /// Tensors of zeros.
  static Tensor makeFloats(std::vector<int64_t> shape);
  static Tensor makeIndices(std::vector<int64_t> shape);
  /// Precondition: columns are a multiple of the format's block.
  static Tensor makeStored(BlockFormat format, std::vector<int64_t> shape);

  int64_t columns() const { return shape.back(); }
  /// Product of all dimensions but the last.
  int64_t rows() const;
  int64_t size() const { return rows() * columns(); }
  /// Row `row` as floats, whatever the format. Not for indices.
  std::vector<float> row(int64_t row) const;
  /// Stores `values` (columns) in row `row`, rounding to the format, which is
  /// one that canQuantize().
  void setRow(int64_t row, const std::vector<float> &values);
};

/// Keys and values of one layer, (rows, heads, head_dim) each. The elements
/// are rounded to the cache's element type.
struct KvCache {
  int64_t heads = 0;
  int64_t headDim = 0;
  /// F16, F32 or A8; what append() rounds to. Keys and values are kept decoded.
  BlockFormat format = BlockFormat::F32;
  int64_t rows = 0;
  std::vector<float> keys;
  std::vector<float> values;
};

/// A value of the dialect. Values never change, so they are shared.
using Datum =
    std::variant<std::shared_ptr<const Tensor>, std::shared_ptr<const KvCache>>;

inline Datum datum(Tensor tensor) {
  return std::make_shared<const Tensor>(std::move(tensor));
}
inline Datum datum(KvCache cache) {
  return std::make_shared<const KvCache>(std::move(cache));
}

} // namespace quern::reference

#endif // QUERN_DIALECTS_REFERENCE_TENSOR_H

//===- Tensor.cpp ---------------------------------------------------------===//
#include "dialects/reference/Tensor.h"

#include <cassert>
#include <cstring>

using namespace quern;
using namespace quern::reference;

Tensor Tensor::makeFloats(std::vector<int64_t> shape) {
  Tensor tensor;
  tensor.shape = std::move(shape);
  tensor.floats.resize(tensor.size());
  return tensor;
}

Tensor Tensor::makeIndices(std::vector<int64_t> shape) {
  Tensor tensor;
  tensor.shape = std::move(shape);
  tensor.isIndices = true;
  tensor.indices.resize(tensor.size());
  return tensor;
}

Tensor Tensor::makeStored(BlockFormat format, std::vector<int64_t> shape) {
  if (format == BlockFormat::F32)
    return makeFloats(std::move(shape));
  Tensor tensor;
  tensor.shape = std::move(shape);
  tensor.format = format;
  tensor.bytes.resize(tensor.rows() *
                      blockFormatInfo(format).rowBytes(tensor.columns()));
  return tensor;
}

int64_t Tensor::rows() const {
  int64_t count = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i)
    count *= shape[i];
  return count;
}

std::vector<float> Tensor::row(int64_t row) const {
  assert(!isIndices && row >= 0 && row < rows());
  std::vector<float> values(columns());
  if (format == BlockFormat::F32)
    std::memcpy(values.data(), floats.data() + row * columns(),
                columns() * sizeof(float));
  else
    dequantizeRow(format,
                  bytes.data() +
                      row * blockFormatInfo(format).rowBytes(columns()),
                  values.data(), columns());
  return values;
}

void Tensor::setRow(int64_t row, const std::vector<float> &values) {
  assert(!isIndices && row >= 0 && row < rows());
  assert(static_cast<int64_t>(values.size()) == columns());
  if (format == BlockFormat::F32)
    std::memcpy(floats.data() + row * columns(), values.data(),
                columns() * sizeof(float));
  else
    quantizeRow(format, values.data(),
                bytes.data() +
                    row * blockFormatInfo(format).rowBytes(columns()),
                columns());
}

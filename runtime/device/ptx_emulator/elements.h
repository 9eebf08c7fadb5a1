// Element types of the tensor cores.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/device/ptx_emulator/numeric.h"

namespace quern::ptx {

enum class MatrixType : int32_t { kF16, kBf16, kTf32, kE4m3, kE5m2, kS8, kU8, kNone };

inline MatrixType MatrixTypeOf(std::string_view name) {
  constexpr std::string_view kNames[] = {".f16", ".bf16", ".tf32", ".e4m3", ".e5m2", ".s8", ".u8"};
  for (int i = 0; i < 7; ++i)
    if (kNames[i] == name) return static_cast<MatrixType>(i);
  return MatrixType::kNone;
}

inline uint32_t MatrixTypeBytes(MatrixType type) {
  if (type == MatrixType::kTf32) return 4;
  return type == MatrixType::kF16 || type == MatrixType::kBf16 ? 2 : 1;
}

/// Element `i` of a 32-bit register that holds 32 / bits of them.
inline float MatrixElement(MatrixType type, uint32_t bits, uint32_t i) {
  switch (type) {
    case MatrixType::kF16:
      return HalfToFloat(static_cast<uint16_t>(bits >> (16 * i)));
    case MatrixType::kBf16:
      return Bf16ToFloat(static_cast<uint16_t>(bits >> (16 * i)));
    case MatrixType::kTf32:
      return FloatOf(bits & 0xffffe000u);  // The low 13 bits are not read.
    case MatrixType::kE4m3:
      return E4m3Table()[(bits >> (8 * i)) & 255];
    case MatrixType::kE5m2:
      return E5m2Table()[(bits >> (8 * i)) & 255];
    case MatrixType::kS8:
      return static_cast<int8_t>(bits >> (8 * i));
    default:
      return static_cast<uint8_t>(bits >> (8 * i));
  }
}

/// c(rows, columns) += a(rows, depth) b(depth, columns), summed along depth in order.
/// `T`: float, or int64_t.
template <class T>
inline void MultiplyAdd(const T* a, const T* b, T* c, uint32_t rows, uint32_t columns,
                        uint32_t depth) {
  for (uint32_t i = 0; i < rows; ++i)
    for (uint32_t k = 0; k < depth; ++k) {
      const T x = a[i * depth + k];
      const T* from = b + k * columns;
      T* to = c + i * columns;
      for (uint32_t j = 0; j < columns; ++j) to[j] += x * from[j];
    }
}

}  // namespace quern::ptx

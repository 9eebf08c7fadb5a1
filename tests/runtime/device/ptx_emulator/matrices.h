// Matrices for tests of tensor-core instructions, and where their elements lie in shared memory.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "runtime/device/ptx_emulator/numeric.h"

namespace quern::ptx {

/// Small integers are exact in every type, and so are their sums.
struct Matrix {
  uint32_t rows, columns;
  std::vector<int> values;
  Matrix(uint32_t r, uint32_t c, uint32_t seed, int low = -4, int high = 4)
      : rows(r), columns(c), values(r * c) {
    std::mt19937 random(seed);
    for (int& value : values)
      value = static_cast<int>(random() % static_cast<uint32_t>(high - low + 1)) + low;
  }
  int operator()(uint32_t r, uint32_t c) const { return values[r * columns + c]; }
};

inline uint32_t Encode(const std::string& type, int value) {
  const auto x = static_cast<float>(value);
  if (type == "f16") return FloatToHalf(x);
  if (type == "bf16") return FloatToBf16(x);
  if (type == "e4m3") return ConvertToFormat(x, kFormatE4m3, Rounding::kNearest, true);
  if (type == "e5m2") return ConvertToFormat(x, kFormatE5m2, Rounding::kNearest, true);
  if (type == "tf32" || type == "f32") return BitsOf(x);
  if (type == "s8" || type == "u8") return static_cast<uint32_t>(value) & 255;
  return static_cast<uint32_t>(value);
}

inline uint32_t Bits(const std::string& type) {
  return type == "tf32" || type == "f32" || type == "s32" ? 32
         : type == "f16" || type == "bf16"                ? 16
                                                          : 8;
}

/// "{%r4, %r5}": `count` registers, from `first` on.
inline std::string List(const std::string& prefix, uint32_t first, uint32_t count) {
  std::string list = "{";
  for (uint32_t i = 0; i < count; ++i) list += (i ? ", " : "") + prefix + std::to_string(first + i);
  return list + "}";
}

/// Where element (mn, k) lies, in bytes, in a tile laid out for `swizzle`: rows of `swizzle` bytes,
/// eight of them an atom whose 16-byte units are permuted by row; atoms follow each other.
inline uint32_t Place(uint32_t mn, uint32_t k, uint32_t bytes, int swizzle, bool mn_major,
                      uint32_t mn_extent) {
  const auto width = static_cast<uint32_t>(swizzle);
  const uint32_t inner = (mn_major ? mn : k) * bytes, outer = mn_major ? k : mn;
  const uint32_t column = inner % width, chunk = inner / width;
  const uint32_t row = outer % 8, group = outer / 8;
  // K-major atoms: groups of rows first, then (no swizzle only) chunks of k. MN-major: chunks of mn
  // first, then groups of k.
  const uint32_t groups = mn_extent / 8, chunks = mn_extent * bytes / width;
  const uint32_t atom = mn_major ? group * chunks + chunk : chunk * groups + group;
  const uint32_t units = width / 16;
  // The swizzle looks at address bits 7 and up: how many rows share 128 bytes.
  const uint32_t line = row * width / 128;
  const uint32_t unit = (column / 16) ^ (line % units);
  const uint32_t where = row * width % 128 / 16 + unit;  // In the 128-byte line.
  return atom * 8 * width + line * 128 + where * 16 + column % 16;
}

/// Start, leading and stride offsets of the matrix descriptor of such a tile at `address`.
inline uint64_t DescriptorOffsets(uint32_t address, int swizzle, bool mn_major, uint32_t mn_extent,
                                  uint32_t bytes) {
  const auto width = static_cast<uint32_t>(swizzle);
  const uint32_t atom = 8 * width, groups = mn_extent / 8, chunks = mn_extent * bytes / width;
  uint32_t leading = 16, stride = atom;
  if (!mn_major && swizzle == 16) leading = groups * atom;  // Next 16 bytes of k.
  if (mn_major && swizzle == 16)
    stride = atom, leading = chunks * atom;  // SBO along mn, LBO along k.
  if (mn_major && swizzle != 16) leading = atom, stride = chunks * atom;
  return address >> 4 | uint64_t{leading >> 4} << 16 | uint64_t{stride >> 4} << 32;
}

}  // namespace quern::ptx

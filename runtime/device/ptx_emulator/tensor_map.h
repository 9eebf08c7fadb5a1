// Tensor maps: the 128-byte objects that tell the tensor memory accelerator (TMA) how a tile of a
// tensor lies in global memory. The hardware's encoding is not published; this one is the
// emulator's own, made from the arguments of cuTensorMapEncodeTiled and checked like them.
#pragma once

#include <array>
#include <cstdint>

#include "runtime/base/status.h"

namespace quern::ptx {

inline constexpr uint32_t kTensorMapBytes = 128;
inline constexpr uint32_t kTensorMapAlignment = 64;
inline constexpr uint32_t kMaxTensorRank = 5;

/// The values are those of CUtensorMapDataType.
enum class TensorElement : uint8_t {
  kU8 = 0,
  kU16 = 1,
  kU32 = 2,
  kS32 = 3,
  kU64 = 4,
  kS64 = 5,
  kF16 = 6,
  kF32 = 7,
  kF64 = 8,
  kBf16 = 9,
};
/// Values of CUtensorMapSwizzle.
enum class TensorSwizzle : uint8_t { kNone = 0, k32 = 1, k64 = 2, k128 = 3 };

/// Arguments of cuTensorMapEncodeTiled. Dimension 0 is the innermost.
struct TensorMap {
  TensorElement element = TensorElement::kF16;
  uint32_t rank = 2;
  uint64_t address = 0;                               ///< Multiple of 16.
  std::array<uint64_t, kMaxTensorRank> dims = {};     ///< Elements, 1 .. 2^32.
  std::array<uint64_t, kMaxTensorRank> strides = {};  ///< Bytes of dims 1..; [0] is not used.
  std::array<uint32_t, kMaxTensorRank> box = {};      ///< Elements of a tile, 1 .. 256.
  TensorSwizzle swizzle = TensorSwizzle::kNone;
  bool fill_nan = false;  ///< Out-of-bounds elements read as NaN, not zero.
};

/// Bytes of one element.
uint32_t ElementBytes(TensorElement element);

/// Errors: USAGE, naming the argument that breaks a rule of cuTensorMapEncodeTiled.
Result<std::array<uint8_t, kTensorMapBytes>> EncodeTensorMap(const TensorMap& map);

/// Error: MALFORMED (the bytes were not made by EncodeTensorMap).
Result<TensorMap> DecodeTensorMap(const uint8_t* bytes);

/// Where byte `address` of shared memory lies after a swizzle: 16-byte units are permuted by the
/// address bits above them. Also the swizzle of wgmma's matrix descriptors.
constexpr uint32_t Swizzle(uint32_t address, TensorSwizzle swizzle) {
  const uint32_t mask = (1u << static_cast<uint32_t>(swizzle)) - 1;  // 0, 1, 3 or 7 units
  return address ^ (((address >> 7) & mask) << 4);
}

}  // namespace quern::ptx

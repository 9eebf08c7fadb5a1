#include "runtime/device/ptx_emulator/tensor_map.h"

#include <cstring>

#include "runtime/device/ptx_emulator/emulator.h"

namespace quern::ptx {
namespace {

constexpr uint32_t kMagic = 0x50414D54;  // "TMAP"

/// The 128 bytes. Padding is zero.
struct Encoded {
  uint32_t magic;
  uint8_t element, rank, swizzle, reserved;
  uint64_t address;
  uint64_t strides[kMaxTensorRank];
  uint32_t dims_minus_1[kMaxTensorRank];
  uint16_t box[kMaxTensorRank];
  uint8_t padding[42];
};
static_assert(sizeof(Encoded) == kTensorMapBytes);

Status Wrong(const std::string& what) { return UsageError("tensor map: " + what); }

Status CheckAxis(const TensorMap& map, uint32_t axis) {
  const std::string name = "dimension " + std::to_string(axis);
  if (map.dims[axis] == 0 || map.dims[axis] > uint64_t{1} << 32)
    return Wrong(name + " of " + std::to_string(map.dims[axis]) +
                 " elements; 1 to 2^32 are possible");
  if (map.box[axis] == 0 || map.box[axis] > 256)
    return Wrong(name + ": a box of " + std::to_string(map.box[axis]) +
                 " elements; 1 to 256 are possible");
  if (axis > 0 && (map.strides[axis] % 16 || map.strides[axis] >= uint64_t{1} << 40))
    return Wrong(name + ": a stride of " + std::to_string(map.strides[axis]) +
                 " bytes; it must be a multiple of 16 below 2^40");
  return {};
}

}  // namespace

uint32_t ElementBytes(TensorElement element) {
  constexpr uint8_t kBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2};
  return kBytes[static_cast<size_t>(element)];
}

Result<std::array<uint8_t, kTensorMapBytes>> EncodeTensorMap(const TensorMap& map) {
  if (static_cast<uint8_t>(map.element) > static_cast<uint8_t>(TensorElement::kBf16))
    return Wrong("element type " + std::to_string(static_cast<int>(map.element)) +
                 " is not supported");
  if (static_cast<uint8_t>(map.swizzle) > 3)
    return Wrong("swizzle " + std::to_string(static_cast<int>(map.swizzle)) + " is not supported");
  if (map.rank < 1 || map.rank > kMaxTensorRank)
    return Wrong("rank " + std::to_string(map.rank) + "; 1 to 5 are possible");
  if (map.address == 0 || map.address % 16) return Wrong("the address must be a multiple of 16");
  if (map.fill_nan) return Wrong("out-of-bounds elements can only be zero");
  for (uint32_t axis = 0; axis < map.rank; ++axis) QUERN_RETURN_IF_ERROR(CheckAxis(map, axis));
  uint64_t box_bytes = ElementBytes(map.element);
  for (uint32_t axis = 0; axis < map.rank; ++axis) box_bytes *= map.box[axis];
  if (box_bytes > kMaxSharedBytes)
    return Wrong("a box of " + std::to_string(box_bytes) + " bytes; shared memory has " +
                 std::to_string(kMaxSharedBytes));
  const uint32_t inner = map.box[0] * ElementBytes(map.element);
  if (inner % 16)
    return Wrong("the box's rows have " + std::to_string(inner) +
                 " bytes; a multiple of 16 is wanted");
  const uint32_t span = 16u << static_cast<uint32_t>(map.swizzle);
  if (map.swizzle != TensorSwizzle::kNone && inner > span)
    return Wrong("the box's rows have " + std::to_string(inner) + " bytes; the swizzle allows " +
                 std::to_string(span));
  Encoded encoded = {};
  encoded.magic = kMagic;
  encoded.element = static_cast<uint8_t>(map.element);
  encoded.rank = static_cast<uint8_t>(map.rank);
  encoded.swizzle = static_cast<uint8_t>(map.swizzle);
  encoded.address = map.address;
  for (uint32_t axis = 0; axis < map.rank; ++axis) {
    encoded.strides[axis] = axis ? map.strides[axis] : 0;
    encoded.dims_minus_1[axis] = static_cast<uint32_t>(map.dims[axis] - 1);
    encoded.box[axis] = static_cast<uint16_t>(map.box[axis]);
  }
  std::array<uint8_t, kTensorMapBytes> bytes;
  std::memcpy(bytes.data(), &encoded, sizeof encoded);
  return bytes;
}

Result<TensorMap> DecodeTensorMap(const uint8_t* bytes) {
  Encoded encoded;
  std::memcpy(&encoded, bytes, sizeof encoded);
  if (encoded.magic != kMagic)
    return Malformed(
        "the 128 bytes are no tensor map of this device; make it with cuTensorMapEncodeTiled");
  TensorMap map;
  map.element = static_cast<TensorElement>(encoded.element);
  map.rank = encoded.rank;
  map.swizzle = static_cast<TensorSwizzle>(encoded.swizzle);
  map.address = encoded.address;
  for (uint32_t axis = 0; axis < kMaxTensorRank; ++axis) {
    map.strides[axis] = encoded.strides[axis];
    map.dims[axis] = uint64_t{encoded.dims_minus_1[axis]} + 1;
    map.box[axis] = encoded.box[axis];
  }
  const auto again = EncodeTensorMap(map);  // Bytes that were tampered with.
  if (!again.ok()) return Malformed(again.status().message());
  return map;
}

}  // namespace quern::ptx

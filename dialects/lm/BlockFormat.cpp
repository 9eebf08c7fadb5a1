#include "dialects/lm/BlockFormat.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

namespace quern {
namespace {

//===----------------------------------------------------------------------===//
// The table
//===----------------------------------------------------------------------===//

using enum BlockFormat;

// Columns: format, name, GGUF type, elements and bytes per block, code bits,
// zero, sub-group, signed sub-scales, sign of the minimum, bytes of a row
// scale.
constexpr std::array<BlockFormatInfo, kBlockFormatCount> kFormats = {{
    {F32, "f32", 0, 1, 4, 0, 0, 1, false, 0},
    {F16, "f16", 1, 1, 2, 0, 0, 1, false, 0},
    {BF16, "bf16", 30, 1, 2, 0, 0, 1, false, 0},
    {Q4_0, "q4_0", 2, 32, 18, 4, 8, 32, false, 0},
    {Q4_1, "q4_1", 3, 32, 20, 4, 0, 32, false, +1},
    {Q5_0, "q5_0", 6, 32, 22, 5, 16, 32, false, 0},
    {Q5_1, "q5_1", 7, 32, 24, 5, 0, 32, false, +1},
    {Q8_0, "q8_0", 8, 32, 34, 8, 128, 32, false, 0},
    {Q2_K, "q2_k", 10, 256, 84, 2, 0, 16, false, -1},
    {Q3_K, "q3_k", 11, 256, 110, 3, 4, 16, true, 0},
    {Q4_K, "q4_k", 12, 256, 144, 4, 0, 32, false, -1},
    {Q5_K, "q5_k", 13, 256, 176, 5, 0, 32, false, -1},
    {Q6_K, "q6_k", 14, 256, 210, 6, 32, 16, true, 0},
    {E4M3, "e4m3", -1, 32, 32, 8, 0, 32, false, 0, 4},
    {A8, "a8", -1, 16, 20, 8, 0, 16, false, 0},
}};

constexpr bool tableFollowsEnum() {
  for (int i = 0; i < kBlockFormatCount; ++i)
    if (kFormats[i].format != static_cast<BlockFormat>(i))
      return false;
  return true;
}
static_assert(tableFollowsEnum());

template <typename T> T load(const uint8_t *src) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  return value;
}

template <typename T> void store(uint8_t *dst, T value) {
  std::memcpy(dst, &value, sizeof(T));
}

//===----------------------------------------------------------------------===//
// Taking blocks apart
//===----------------------------------------------------------------------===//

/// Where the parts of one block go; see UnpackedBlockRow.
struct BlockParts {
  uint8_t *codes;
  uint16_t *scale;
  uint16_t *min;
  uint8_t *subScales;
  uint8_t *subMins;
};

/// Spreads a bit field over codes. GGUF stores `Bits` bits of every code in
/// runs of `Run` bytes: the lowest field of all bytes of a run comes first,
/// then the next field of all bytes, then the next run. The fields become bits
/// [Left, Left + Bits) of the codes; the field at 0 is to be spread first.
template <int Bits, int Run, int Left = 0>
void spreadBits(const uint8_t *src, int elements, uint8_t *codes) {
  constexpr int kFields = 8 / Bits;
  constexpr uint8_t kMask = (1 << Bits) - 1;
  for (int i = 0; i < elements; i += Run * kFields, src += Run)
    for (int field = 0; field < kFields; ++field)
      for (int l = 0; l < Run; ++l) {
        uint8_t bits = (src[l] >> (field * Bits)) & kMask;
        uint8_t &code = codes[i + field * Run + l];
        code = Left == 0 ? bits : code | static_cast<uint8_t>(bits << Left);
      }
}

/// spreadBits<1, 1, 4> of the 32 fifth bits of a Q5_0 or Q5_1 block, eight
/// codes at a time.
void spreadFifthBits(const uint8_t *src, uint8_t *codes) {
  constexpr uint64_t kOnes = 0x0101010101010101u;
  for (int byte = 0; byte < 4; ++byte) {
    // Byte k of `bits` keeps bit k of the source, then becomes 0 or 0x10.
    uint64_t bits = (src[byte] * kOnes) & 0x8040201008040201u;
    bits = ((bits + 0x7f * kOnes) & (0x80 * kOnes)) >> 3;
    store(codes + 8 * byte, load<uint64_t>(codes + 8 * byte) | bits);
  }
}

void unpackQ4_0(const uint8_t *block, BlockParts parts) {
  *parts.scale = load<uint16_t>(block);
  spreadBits<4, 16>(block + 2, 32, parts.codes);
}

void unpackQ4_1(const uint8_t *block, BlockParts parts) {
  *parts.scale = load<uint16_t>(block);
  *parts.min = load<uint16_t>(block + 2);
  spreadBits<4, 16>(block + 4, 32, parts.codes);
}

void unpackQ5_0(const uint8_t *block, BlockParts parts) {
  *parts.scale = load<uint16_t>(block);
  spreadBits<4, 16>(block + 6, 32, parts.codes);
  spreadFifthBits(block + 2, parts.codes);
}

void unpackQ5_1(const uint8_t *block, BlockParts parts) {
  *parts.scale = load<uint16_t>(block);
  *parts.min = load<uint16_t>(block + 2);
  spreadBits<4, 16>(block + 8, 32, parts.codes);
  spreadFifthBits(block + 4, parts.codes);
}

void unpackQ8_0(const uint8_t *block, BlockParts parts) {
  *parts.scale = load<uint16_t>(block);
  for (int i = 0; i < 32; ++i)
    parts.codes[i] = block[2 + i] ^ 0x80; // q + 128
}

void unpackQ2_K(const uint8_t *block, BlockParts parts) {
  for (int i = 0; i < 16; ++i) {
    parts.subScales[i] = block[i] & 15;
    parts.subMins[i] = block[i] >> 4;
  }
  spreadBits<2, 32>(block + 16, 256, parts.codes);
  *parts.scale = load<uint16_t>(block + 80);
  *parts.min = load<uint16_t>(block + 82);
}

void unpackQ3_K(const uint8_t *block, BlockParts parts) {
  spreadBits<2, 32>(block + 32, 256, parts.codes);
  spreadBits<1, 32, 2>(block, 256, parts.codes);
  // 16 scales of 6 bits, biased by 32: low nibbles in 8 bytes, the two high
  // bits in 4.
  const uint8_t *scales = block + 96;
  for (int i = 0; i < 16; ++i) {
    int low = (scales[i % 8] >> (4 * (i / 8))) & 15;
    int high = (scales[8 + i % 4] >> (2 * (i / 4))) & 3;
    parts.subScales[i] = static_cast<uint8_t>((low | high << 4) - 32);
  }
  *parts.scale = load<uint16_t>(block + 108);
}

/// The 8 scales and 8 minima of 6 bits that Q4_K and Q5_K pack in 12 bytes: the
/// first four of each are whole, the last four have their low nibbles in bytes
/// 8..11 and their high bits on top of the first four.
void unpackScalesAndMins(const uint8_t *packed, BlockParts parts) {
  for (int i = 0; i < 4; ++i) {
    uint8_t scale = packed[i], min = packed[4 + i], rest = packed[8 + i];
    parts.subScales[i] = scale & 63;
    parts.subMins[i] = min & 63;
    parts.subScales[4 + i] = (rest & 15) | ((scale >> 2) & 48);
    parts.subMins[4 + i] = (rest >> 4) | ((min >> 2) & 48);
  }
}

void unpackQ4_K(const uint8_t *block, BlockParts parts) {
  *parts.scale = load<uint16_t>(block);
  *parts.min = load<uint16_t>(block + 2);
  unpackScalesAndMins(block + 4, parts);
  spreadBits<4, 32>(block + 16, 256, parts.codes);
}

void unpackQ5_K(const uint8_t *block, BlockParts parts) {
  *parts.scale = load<uint16_t>(block);
  *parts.min = load<uint16_t>(block + 2);
  unpackScalesAndMins(block + 4, parts);
  spreadBits<4, 32>(block + 48, 256, parts.codes);
  spreadBits<1, 32, 4>(block + 16, 256, parts.codes);
}

void unpackQ6_K(const uint8_t *block, BlockParts parts) {
  spreadBits<4, 64>(block, 256, parts.codes);
  spreadBits<2, 32, 4>(block + 128, 256, parts.codes);
  std::memcpy(parts.subScales, block + 192, 16);
  *parts.scale = load<uint16_t>(block + 208);
}

void unpackE4M3(const uint8_t *block, BlockParts parts) {
  std::memcpy(parts.codes, block, 32);
}

using UnpackFunction = void (*)(const uint8_t *, BlockParts);

/// In the order of the enum; null for formats without blocks of codes.
constexpr std::array<UnpackFunction, kBlockFormatCount> kUnpack = {
    nullptr,    nullptr,    nullptr,    unpackQ4_0, unpackQ4_1,
    unpackQ5_0, unpackQ5_1, unpackQ8_0, unpackQ2_K, unpackQ3_K,
    unpackQ4_K, unpackQ5_K, unpackQ6_K, unpackE4M3, nullptr};

/// Decodes an unpacked row by the formula of BlockFormatInfo.
void decodeUnpacked(const BlockFormatInfo &info, const UnpackedBlockRow &row,
                    float *dst, int64_t n) {
  if (info.isRowScaled()) {
    for (int64_t i = 0; i < n; ++i)
      dst[i] = row.rowScale * e4m3ToF32(row.codes[i]);
    return;
  }
  for (int64_t begin = 0; begin < n; begin += info.subGroup) {
    int64_t block = begin / info.blockElements, sub = begin / info.subGroup;
    float scale = f16ToF32(row.scales[block]);
    float min = info.hasMin() ? f16ToF32(row.mins[block]) : 0.0f;
    if (info.isTwoLevel()) {
      uint8_t bits = row.subScales[sub];
      scale *= info.subScaleSigned ? static_cast<int8_t>(bits) : bits;
      if (info.hasMin())
        min *= row.subMins[sub];
    }
    for (int64_t i = begin; i < begin + info.subGroup; ++i) {
      float value = scale * static_cast<float>(row.codes[i] - info.zero);
      dst[i] = info.minSign == 0  ? value
               : info.minSign > 0 ? value + min
                                  : value - min;
    }
  }
}

//===----------------------------------------------------------------------===//
// Quantizing blocks
//===----------------------------------------------------------------------===//

/// `value` rounded to the nearest integer (ties to even) in [low, high].
int roundTo(float value, float low, float high) {
  return static_cast<int>(std::lrint(std::fmax(low, std::fmin(value, high))));
}

/// f16 bits of a scale; a scale out of range becomes the largest one.
uint16_t scaleToF16(float scale) {
  constexpr float kMax = 65504.0f;
  return f32ToF16(std::fmax(-kMax, std::fmin(scale, kMax)));
}

/// 1 / scale as stored, 0 for a zero scale.
float inverseOf(uint16_t scale) {
  float value = f16ToF32(scale);
  return value == 0.0f ? 0.0f : 1.0f / value;
}

/// Stores 32 codes of four bits as Q4_0 and Q4_1 do.
void storeNibbles(const std::array<int, 32> &codes, uint8_t *dst) {
  for (int i = 0; i < 16; ++i)
    dst[i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
}

void quantizeQ4_0(const float *src, uint8_t *block) {
  // The element of largest magnitude gets code 0, that is -8.
  float extreme = 0.0f;
  for (int i = 0; i < 32; ++i)
    if (std::fabs(src[i]) > std::fabs(extreme))
      extreme = src[i];
  uint16_t scale = scaleToF16(extreme / -8.0f);
  float inverse = inverseOf(scale);
  std::array<int, 32> codes;
  for (int i = 0; i < 32; ++i)
    codes[i] = roundTo(src[i] * inverse, -8.0f, 7.0f) + 8;
  store(block, scale);
  storeNibbles(codes, block + 2);
}

void quantizeQ4_1(const float *src, uint8_t *block) {
  auto [low, high] = std::minmax_element(src, src + 32);
  uint16_t min = scaleToF16(*low);
  uint16_t scale = scaleToF16((*high - f16ToF32(min)) / 15.0f);
  float inverse = inverseOf(scale), base = f16ToF32(min);
  std::array<int, 32> codes;
  for (int i = 0; i < 32; ++i)
    codes[i] = roundTo((src[i] - base) * inverse, 0.0f, 15.0f);
  store(block, scale);
  store(block + 2, min);
  storeNibbles(codes, block + 4);
}

float largestMagnitude(const float *src, int64_t n) {
  float largest = 0.0f;
  for (int64_t i = 0; i < n; ++i)
    largest = std::fmax(largest, std::fabs(src[i]));
  return largest;
}

void quantizeQ8_0(const float *src, uint8_t *block) {
  uint16_t scale = scaleToF16(largestMagnitude(src, 32) / 127.0f);
  float inverse = inverseOf(scale);
  store(block, scale);
  for (int i = 0; i < 32; ++i)
    block[2 + i] =
        static_cast<uint8_t>(roundTo(src[i] * inverse, -127.0f, 127.0f));
}

void quantizeA8(const float *src, uint8_t *block) {
  int8_t codes[16];
  store(block, quantizeToInt8(src, 16, codes));
  std::memcpy(block + sizeof(float), codes, sizeof(codes));
}

/// A whole row: the scale that makes its largest magnitude 448, then the codes.
void quantizeE4M3Row(const float *src, uint8_t *dst, int64_t n) {
  float scale = largestMagnitude(src, n) / kLargestE4m3;
  // A scale without a float32 inverse: the row is as good as zeros.
  if (scale < std::numeric_limits<float>::min())
    scale = 0.0f;
  float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  store(dst, scale);
  for (int64_t i = 0; i < n; ++i)
    dst[sizeof(scale) + i] = f32ToE4m3(src[i] * inverse);
}

void quantizeF32(const float *src, uint8_t *dst) { store(dst, *src); }
void quantizeF16(const float *src, uint8_t *dst) { store(dst, f32ToF16(*src)); }
void quantizeBF16(const float *src, uint8_t *dst) {
  store(dst, f32ToBf16(*src));
}

using QuantizeFunction = void (*)(const float *, uint8_t *);

/// One block of each format, in the order of the enum; null: not produced, or
/// as a whole row.
constexpr std::array<QuantizeFunction, kBlockFormatCount> kQuantize = {
    quantizeF32, quantizeF16, quantizeBF16, quantizeQ4_0, quantizeQ4_1,
    nullptr,     nullptr,     quantizeQ8_0, nullptr,      nullptr,
    nullptr,     nullptr,     nullptr,      nullptr,      quantizeA8};

} // namespace

//===----------------------------------------------------------------------===//
// Public functions
//===----------------------------------------------------------------------===//

const BlockFormatInfo &blockFormatInfo(BlockFormat format) {
  return kFormats[static_cast<int>(format)];
}

std::span<const BlockFormatInfo> blockFormats() { return kFormats; }

std::optional<BlockFormat> parseBlockFormat(std::string_view name) {
  for (const BlockFormatInfo &info : kFormats)
    if (info.name == name)
      return info.format;
  return std::nullopt;
}

std::optional<BlockFormat> blockFormatFromGguf(uint32_t type) {
  for (const BlockFormatInfo &info : kFormats)
    if (info.ggufType >= 0 && static_cast<uint32_t>(info.ggufType) == type)
      return info.format;
  return std::nullopt;
}

void unpackBlockRow(BlockFormat format, const uint8_t *src, int64_t first,
                    int64_t n, UnpackedBlockRow &row) {
  const BlockFormatInfo &info = blockFormatInfo(format);
  UnpackFunction unpack = kUnpack[static_cast<int>(format)];
  assert(unpack && first % info.blockElements == 0 &&
         n % info.blockElements == 0);
  if (info.isRowScaled())
    row.rowScale = load<float>(src);
  src += info.rowBytes(first);
  int64_t blocks = n / info.blockElements;
  int64_t subGroups = info.isTwoLevel() ? n / info.subGroup : 0;
  row.codes.resize(n);
  row.scales.resize(info.isRowScaled() ? 0 : blocks);
  row.mins.resize(info.hasMin() ? blocks : 0);
  row.subScales.resize(subGroups);
  row.subMins.resize(info.hasMin() ? subGroups : 0);
  int64_t perBlock = info.blockElements / info.subGroup;
  for (int64_t b = 0; b < blocks; ++b)
    unpack(src + b * info.blockBytes,
           {row.codes.data() + b * info.blockElements, row.scales.data() + b,
            row.mins.data() + b, row.subScales.data() + b * perBlock,
            row.subMins.data() + b * perBlock});
}

void dequantizeRow(BlockFormat format, const uint8_t *src, float *dst,
                   int64_t n) {
  const BlockFormatInfo &info = blockFormatInfo(format);
  assert(n % info.blockElements == 0);
  switch (format) {
  case F32:
    std::memcpy(dst, src, n * sizeof(float));
    return;
  case F16:
    for (int64_t i = 0; i < n; ++i)
      dst[i] = f16ToF32(load<uint16_t>(src + 2 * i));
    return;
  case BF16:
    for (int64_t i = 0; i < n; ++i)
      dst[i] = bf16ToF32(load<uint16_t>(src + 2 * i));
    return;
  case A8:
    for (int64_t i = 0; i < n; ++i) {
      const uint8_t *block = src + i / info.blockElements * info.blockBytes;
      dst[i] = load<float>(block) *
               static_cast<int8_t>(block[4 + i % info.blockElements]);
    }
    return;
  default:
    UnpackedBlockRow row;
    unpackBlockRow(format, src, 0, n, row);
    decodeUnpacked(info, row, dst, n);
  }
}

bool canQuantize(BlockFormat format) {
  return kQuantize[static_cast<int>(format)] ||
         blockFormatInfo(format).isRowScaled();
}

void quantizeRow(BlockFormat format, const float *src, uint8_t *dst,
                 int64_t n) {
  const BlockFormatInfo &info = blockFormatInfo(format);
  assert(canQuantize(format) && n % info.blockElements == 0);
  if (info.isRowScaled())
    return quantizeE4M3Row(src, dst, n);
  QuantizeFunction quantize = kQuantize[static_cast<int>(format)];
  for (int64_t i = 0; i < n; i += info.blockElements, dst += info.blockBytes)
    quantize(src + i, dst);
}

float quantizeToInt8(const float *src, int n, int8_t *codes) {
  float largest = largestMagnitude(src, n);
  float inverse = 127.0f / largest;
  // A group too small for its inverse to be finite is zero.
  bool isZero = largest == 0.0f || std::isinf(inverse);
  for (int i = 0; i < n; ++i)
    codes[i] =
        isZero
            ? 0
            : static_cast<int8_t>(roundTo(src[i] * inverse, -127.0f, 127.0f));
  return isZero ? 0.0f : largest / 127.0f;
}

float e4m3ToF32(uint8_t code) {
  uint32_t sign = (code & 0x80u) << 24, magnitude = code & 0x7fu;
  if (isE4m3Nan(code))
    return std::bit_cast<float>(sign | 0x7fc00000u);
  // The same bits as a float32 have an exponent that is 120 too small, also
  // where they are subnormal.
  return std::bit_cast<float>(sign | magnitude << 20) * 0x1p120f;
}

uint8_t f32ToE4m3(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  uint8_t sign = (bits >> 24) & 0x80u;
  float magnitude = std::fabs(value);
  if (std::isnan(value))
    return sign | 0x7fu;
  if (magnitude >= kLargestE4m3)
    return sign | 0x7eu;
  if (magnitude < 0x1p-6f) // a multiple of 2^-9
    return sign | static_cast<uint8_t>(std::lrint(magnitude * 0x1p9f));
  uint32_t rounded = (bits & 0x7fffffffu) + 0x7ffffu + ((bits >> 20) & 1u);
  return sign | static_cast<uint8_t>((rounded - (120u << 23)) >> 20);
}

float f16ToF32(uint16_t bits) {
  uint32_t sign = (bits & 0x8000u) << 16;
  uint32_t exponent = (bits >> 10) & 31, mantissa = bits & 0x3ff;
  if (exponent == 31)
    return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0)
    return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  // Zero or subnormal: mantissa * 2^-24, exact in float32.
  float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

uint16_t f32ToF16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  uint16_t sign = (bits >> 16) & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) // NaN, quiet
    return sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  if (magnitude >= 0x477ff000u) // rounds to 65520 or more: infinity
    return sign | 0x7c00u;
  if (magnitude < 0x38800000u) { // below 2^-14: a multiple of 2^-24
    float scaled = std::bit_cast<float>(magnitude) * 0x1p24f;
    return sign | static_cast<uint16_t>(std::lrint(scaled));
  }
  uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return sign | static_cast<uint16_t>((rounded - (112u << 23)) >> 13);
}

uint16_t f32ToBf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) // NaN, quiet
    return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

} // namespace quern

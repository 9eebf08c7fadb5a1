#include "codegen/host/PackedLayout.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>

namespace quern {
namespace {

/// Derives a layout from the facts of its format.
PackedFormat makePackedFormat(const BlockFormatInfo &info) {
  PackedFormat packed{};
  packed.format = info.format;
  packed.groupsPerSuperblock = 1;
  packed.subGroup = static_cast<int>(kPackedGroup);
  if (info.isFloat()) {
    packed.elementBytes = info.blockBytes;
    return packed;
  }
  // The low plane has the largest power of two of bits, the other the rest.
  int lowBits = static_cast<int>(std::bit_floor(unsigned(info.codeBits)));
  packed.planes = {{{lowBits, 0}, {info.codeBits - lowBits, lowBits}}};
  packed.planeCount = lowBits == info.codeBits ? 1 : 2;
  packed.zero = info.zero;
  packed.subGroup = std::min(packed.subGroup, info.subGroup);
  packed.scaleSigned = info.subScaleSigned;
  packed.minSign = info.minSign;
  packed.scaleKind = info.isTwoLevel()    ? ParamKind::Byte
                     : info.isRowScaled() ? ParamKind::Row
                                          : ParamKind::F16;
  packed.minKind = info.hasMin() ? packed.scaleKind : ParamKind::None;
  packed.groupsPerSuperblock =
      info.blockElements / static_cast<int>(kPackedGroup);
  return packed;
}

constexpr uint32_t kByteOnes = 0x01010101u;

uint32_t load32(const uint8_t *src) {
  uint32_t value;
  std::memcpy(&value, src, sizeof(value));
  return value;
}

/// The codes of a group, row by row; a quad of columns is one aligned word.
struct GroupCodes {
  alignas(64) std::array<uint8_t, kPackedRows * kPackedGroup> bytes;
};

/// Writes one plane of a group: every word of a vector gathers the same row's
/// bits of 8 / Bits quads.
template <int Bits>
void packPlane(const GroupCodes &codes, int shift, uint8_t *dst) {
  constexpr int kQuads = 8 / Bits;
  constexpr uint32_t kMask = ((1u << Bits) - 1) * kByteOnes;
  for (int vector = 0; vector < Bits; ++vector)
    for (int row = 0; row < kPackedRows; ++row) {
      const uint8_t *src =
          codes.bytes.data() + row * kPackedGroup + vector * kQuads * 4;
      uint32_t word = 0;
      for (int quad = 0; quad < kQuads; ++quad)
        word |= ((load32(src + 4 * quad) >> shift) & kMask) << (quad * Bits);
      std::memcpy(dst + vector * kPackedVectorBytes + 4 * row, &word, 4);
    }
}

void packPlanes(const PackedFormat &packed, const GroupCodes &codes,
                uint8_t *dst) {
  for (int p = 0; p < packed.planeCount; ++p) {
    PlaneSpec plane = packed.planes[p];
    uint8_t *out = dst + packed.planeOffset(p);
    switch (plane.bits) {
    case 1:
      packPlane<1>(codes, plane.shift, out);
      break;
    case 2:
      packPlane<2>(codes, plane.shift, out);
      break;
    case 4:
      packPlane<4>(codes, plane.shift, out);
      break;
    default:
      packPlane<8>(codes, plane.shift, out);
    }
  }
}

/// Writes the scales and minima of group `group` of the rows.
void packGroupParams(const PackedFormat &packed,
                     std::span<const UnpackedBlockRow> rows, int64_t group,
                     uint8_t *dst) {
  for (size_t r = 0; r < rows.size(); ++r) {
    const UnpackedBlockRow &row = rows[r];
    if (packed.scaleKind == ParamKind::F16) {
      std::memcpy(dst + packed.scaleOffset() + 2 * r, &row.scales[group], 2);
      if (packed.minKind != ParamKind::None)
        std::memcpy(dst + packed.minOffset() + 2 * r, &row.mins[group], 2);
      continue;
    }
    if (packed.isRowScaled())
      continue;
    for (int sub = 0; sub < packed.subGroups(); ++sub) {
      int64_t index = group * packed.subGroups() + sub;
      dst[packed.scaleOffset(sub) + r] = row.subScales[index];
      if (packed.minKind != ParamKind::None)
        dst[packed.minOffset(sub) + r] = row.subMins[index];
    }
  }
}

/// Writes the f16 scales and minima of superblock `index` of the rows.
void packSuperParams(const PackedFormat &packed,
                     std::span<const UnpackedBlockRow> rows, int64_t index,
                     uint8_t *dst) {
  for (size_t r = 0; r < rows.size(); ++r) {
    std::memcpy(dst + packed.superScaleOffset() + 2 * r, &rows[r].scales[index],
                2);
    if (packed.minKind != ParamKind::None)
      std::memcpy(dst + packed.superMinOffset() + 2 * r, &rows[r].mins[index],
                  2);
  }
}

void packQuantized(const PackedFormat &packed,
                   std::span<const UnpackedBlockRow> rows, int64_t columns,
                   uint8_t *dst) {
  int64_t groups = columns / kPackedGroup;
  GroupCodes codes;
  if (packed.isRowScaled())
    for (size_t r = 0; r < rows.size(); ++r)
      std::memcpy(dst + 4 * r, &rows[r].rowScale, 4);
  dst += packed.frontBytes();
  for (int64_t g = 0; g < groups; ++g) {
    int64_t superblock = g / packed.groupsPerSuperblock;
    int64_t inside = g % packed.groupsPerSuperblock;
    uint8_t *super = dst + superblock * packed.superblockBytes();
    uint8_t *group = super + inside * packed.groupBytes();
    for (size_t r = 0; r < rows.size(); ++r)
      std::memcpy(codes.bytes.data() + r * kPackedGroup,
                  rows[r].codes.data() + g * kPackedGroup, kPackedGroup);
    packPlanes(packed, codes, group);
    packGroupParams(packed, rows, g, group);
    if (packed.hasSuperblock() && inside == 0)
      packSuperParams(packed, rows, superblock, super);
  }
}

/// Whether float bits with these exponent bits mean NaN or infinity.
template <typename T> constexpr bool isNotFinite(T bits, T exponent) {
  return (bits & exponent) == exponent;
}

constexpr uint16_t kF16Exponent = 0x7c00, kBf16Exponent = 0x7f80;
constexpr uint32_t kF32Exponent = 0x7f800000;

/// The first of the rows with a scale, minimum or E4M3 number that is not
/// finite, or -1.
int firstNotFinite(const PackedFormat &packed,
                   std::span<const UnpackedBlockRow> rows) {
  for (size_t r = 0; r < rows.size(); ++r) {
    if (packed.isRowScaled() &&
        (!std::isfinite(rows[r].rowScale) ||
         std::any_of(rows[r].codes.begin(), rows[r].codes.end(), isE4m3Nan)))
      return static_cast<int>(r);
    for (const std::vector<uint16_t> *values : {&rows[r].scales, &rows[r].mins})
      for (uint16_t bits : *values)
        if (isNotFinite(bits, kF16Exponent))
          return static_cast<int>(r);
  }
  return -1;
}

/// Transposes (16, columns) elements to (columns, 16). Returns the first row
/// with an element that is not finite, or -1.
template <typename T>
int packFloats(std::span<const uint8_t *const> rows, T exponent, int64_t kBegin,
               int64_t columns, uint8_t *dst) {
  unsigned notFinite = 0; // a bit a row
  for (int64_t k = 0; k < columns; ++k)
    for (int64_t r = 0; r < kPackedRows; ++r) {
      bool isPadding = r >= static_cast<int64_t>(rows.size()) || !rows[r];
      T element = 0;
      if (!isPadding)
        std::memcpy(&element, rows[r] + (kBegin + k) * sizeof(T), sizeof(T));
      notFinite |= unsigned(isNotFinite(element, exponent)) << r;
      std::memcpy(dst + (k * kPackedRows + r) * sizeof(T), &element, sizeof(T));
    }
  return notFinite ? std::countr_zero(notFinite) : -1;
}

/// The value of row `r`, column `k` of a packed group, from its definition.
float decodeElement(const PackedFormat &packed, const uint8_t *rowBlock,
                    const uint8_t *super, const uint8_t *group, int r, int k) {
  auto f16At = [&](const uint8_t *src) {
    uint16_t bits;
    std::memcpy(&bits, src + 2 * r, 2);
    return f16ToF32(bits);
  };
  int quad = k / 4, byte = 4 * r + k % 4, code = 0;
  for (int p = 0; p < packed.planeCount; ++p) {
    auto [bits, shift] = packed.planes[p];
    const uint8_t *vector =
        group + packed.planeOffset(p) + quad * bits / 8 * kPackedVectorBytes;
    int field = (vector[byte] >> (quad * bits % 8)) & ((1 << bits) - 1);
    code |= field << shift;
  }
  if (packed.isRowScaled())
    return std::bit_cast<float>(load32(rowBlock + 4 * r)) *
           e4m3ToF32(static_cast<uint8_t>(code));
  bool hasMin = packed.minKind != ParamKind::None;
  float scale, min = 0.0f;
  if (packed.scaleKind == ParamKind::F16) {
    scale = f16At(group + packed.scaleOffset());
    if (hasMin)
      min = f16At(group + packed.minOffset());
  } else {
    int sub = k / packed.subGroup;
    uint8_t bits = group[packed.scaleOffset(sub) + r];
    scale = f16At(super + packed.superScaleOffset()) *
            (packed.scaleSigned ? static_cast<int8_t>(bits) : bits);
    if (hasMin)
      min = f16At(super + packed.superMinOffset()) *
            group[packed.minOffset(sub) + r];
  }
  float value = scale * static_cast<float>(code - packed.zero);
  return !hasMin ? value : packed.minSign > 0 ? value + min : value - min;
}

} // namespace

const PackedFormat &packedFormat(BlockFormat format) {
  static const std::array<PackedFormat, kBlockFormatCount> kTable = [] {
    std::array<PackedFormat, kBlockFormatCount> table{};
    for (const BlockFormatInfo &info : blockFormats())
      table[static_cast<int>(info.format)] = makePackedFormat(info);
    return table;
  }();
  assert(format != BlockFormat::A8 && "activations are not packed");
  return kTable[static_cast<int>(format)];
}

int packRowBlock(BlockFormat format, std::span<const uint8_t *const> rows,
                 int64_t kBegin, int64_t kEnd, uint8_t *dst) {
  const PackedFormat &packed = packedFormat(format);
  const BlockFormatInfo &info = blockFormatInfo(format);
  int64_t columns = kEnd - kBegin;
  assert(rows.size() <= static_cast<size_t>(kPackedRows) && columns >= 0 &&
         kBegin % packed.superblockColumns() == 0 &&
         kEnd % packed.superblockColumns() == 0);
  if (packed.isFloat() && packed.elementBytes == 4)
    return packFloats(rows, kF32Exponent, kBegin, columns, dst);
  if (packed.isFloat())
    return packFloats(rows,
                      format == BlockFormat::F16 ? kF16Exponent : kBf16Exponent,
                      kBegin, columns, dst);
  std::array<UnpackedBlockRow, kPackedRows> unpacked;
  // A row of zero bytes has zero scales, so it decodes to zero.
  std::vector<uint8_t> padding;
  for (int64_t r = 0; r < kPackedRows; ++r) {
    const uint8_t *row =
        r < static_cast<int64_t>(rows.size()) ? rows[r] : nullptr;
    if (!row && padding.empty())
      padding.resize(info.rowBytes(columns));
    unpackBlockRow(format, row ? row : padding.data(), row ? kBegin : 0,
                   columns, unpacked[r]);
  }
  packQuantized(packed, unpacked, columns, dst);
  return firstNotFinite(packed, unpacked);
}

void unpackRowBlockToFloat(BlockFormat format, const uint8_t *packed,
                           int64_t columns, float *dst) {
  const PackedFormat &layout = packedFormat(format);
  for (int64_t k = 0; k < columns; ++k) {
    int64_t group = k / kPackedGroup;
    const uint8_t *super =
        packed + layout.frontBytes() +
        group / layout.groupsPerSuperblock * layout.superblockBytes();
    const uint8_t *base =
        super + group % layout.groupsPerSuperblock * layout.groupBytes();
    for (int64_t r = 0; r < kPackedRows; ++r) {
      float &value = dst[r * columns + k];
      if (layout.isFloat())
        dequantizeRow(format,
                      base + (k % kPackedGroup * kPackedRows + r) *
                                 layout.elementBytes,
                      &value, 1);
      else
        value = decodeElement(layout, packed, super, base, static_cast<int>(r),
                              static_cast<int>(k % kPackedGroup));
    }
  }
}

} // namespace quern

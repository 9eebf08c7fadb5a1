// The packed layout: how a weight matrix lies in an artifact for every x86 ISA.
// The packer writes it and kernel generators read it, both from the table
// below.
//
// A matrix of N rows and K columns is cut into row blocks of 16 rows (N is
// padded with rows that decode to zero). A row block is contiguous over K.
// Along K it is cut into groups of 32 columns; in K-quant formats 8 groups make
// a superblock of 256.
//
// Inside a group the bits of the codes lie in planes, one after the other. A
// plane of width w has w vectors of 64 bytes. Number the group's columns k = 4
// i + j, with quad i in 0..7 and j in 0..3: column k of row r is in vector i *
// w / 8, byte 4 r + j, at bit (i * w) % 8. After masking, a vector is the u8
// operand of `vpdpbusd` (16 rows of one quad) and, stacked, the B tile of an
// AMX int8 product. AVX2 reads the halves of a vector (rows 0..7, rows 8..15).
//
//   group      = planes | scales | minima            (per group of 32 columns)
//   superblock = 8 groups | 16 x f16 d | 16 x f16 dmin (K-quants only)
//   row block  = 16 x f32 row scales (row-scaled formats only) | superblocks
//
// Scales and minima are 16 values by row: f16 in one-level formats, bytes per
// sub-group in K-quants. Float formats store a group as [32 columns][16 rows]
// elements and nothing else. Every piece of K of a row-scaled matrix has the
// row scales.
#ifndef QUERN_CODEGEN_HOST_PACKEDLAYOUT_H
#define QUERN_CODEGEN_HOST_PACKEDLAYOUT_H

#include "dialects/lm/BlockFormat.h"

#include <array>
#include <cstdint>
#include <span>

namespace quern {

/// Rows of a row block.
inline constexpr int64_t kPackedRows = 16;
/// Columns of a group.
inline constexpr int64_t kPackedGroup = 32;
/// Bytes of a vector of a plane: 16 rows x 4 columns.
inline constexpr int64_t kPackedVectorBytes = 64;

/// Bits [shift, shift + bits) of every code. `bits` is 1, 2, 4 or 8.
struct PlaneSpec {
  int bits;
  int shift;
};

/// How a group stores its scales or minima.
enum class ParamKind : uint8_t {
  None,
  /// 16 x f16 by row, one per group of 32.
  F16,
  /// 16 bytes by row, one per sub-group; multiplied by the superblock's f16.
  Byte,
  /// 16 x f32 by row, in front of the row block.
  Row,
};

/// The layout of one format. Offsets are in bytes, from the start of the group
/// for planes, scales and minima, from the start of the superblock for
/// superScale and superMin. A row block begins with its front.
struct PackedFormat {
  BlockFormat format;
  /// Planes in use; 0 for float formats.
  int planeCount;
  std::array<PlaneSpec, 2> planes;
  /// Bytes of an element of a float format, otherwise 0.
  int elementBytes;
  /// The code that means zero.
  int zero;
  /// Columns that share a scale: 16 or 32.
  int subGroup;
  ParamKind scaleKind;
  /// Byte scales are int8, not uint8.
  bool scaleSigned;
  ParamKind minKind;
  /// +1: the minimum is added; -1: it is subtracted; 0: there is none.
  int minSign;
  /// Groups that share a superblock's f16 scales: 1 (no superblock) or 8.
  int groupsPerSuperblock;

  /// Codes are E4M3 numbers under a scale of their row.
  constexpr bool isRowScaled() const { return scaleKind == ParamKind::Row; }
  /// Bytes of the row scales.
  constexpr int64_t frontBytes() const {
    return isRowScaled() ? kPackedRows * 4 : 0;
  }
  constexpr bool isFloat() const { return elementBytes != 0; }
  constexpr bool hasSuperblock() const { return groupsPerSuperblock != 1; }
  /// Sub-groups in a group: 1 or 2.
  constexpr int subGroups() const {
    return static_cast<int>(kPackedGroup) / subGroup;
  }
  /// Columns that one superblock (or group, without superblocks) covers: 32 or
  /// 256. K ranges are multiples of it.
  constexpr int64_t superblockColumns() const {
    return kPackedGroup * groupsPerSuperblock;
  }

  constexpr int64_t planeBytes(int plane) const {
    return planes[plane].bits * kPackedVectorBytes;
  }
  constexpr int64_t planeOffset(int plane) const {
    int64_t offset = 0;
    for (int p = 0; p < plane; ++p)
      offset += planeBytes(p);
    return offset;
  }
  /// Scales of sub-group `sub`.
  constexpr int64_t scaleOffset(int sub = 0) const {
    return planeOffset(planeCount) + sub * paramBytes(scaleKind);
  }
  /// Minima of sub-group `sub`.
  constexpr int64_t minOffset(int sub = 0) const {
    return scaleOffset(subGroups()) + sub * paramBytes(minKind);
  }
  constexpr int64_t groupBytes() const {
    return isFloat() ? kPackedGroup * kPackedRows * elementBytes
                     : minOffset(subGroups());
  }
  /// The superblock's 16 x f16 d.
  constexpr int64_t superScaleOffset() const {
    return groupsPerSuperblock * groupBytes();
  }
  /// The superblock's 16 x f16 dmin.
  constexpr int64_t superMinOffset() const {
    return superScaleOffset() + (hasSuperblock() ? kPackedRows * 2 : 0);
  }
  /// Bytes of a superblock, or of a group where there are no superblocks.
  constexpr int64_t superblockBytes() const {
    return superMinOffset() + (hasSuperblock() && minKind != ParamKind::None
                                   ? kPackedRows * 2
                                   : 0);
  }
  /// Bytes of a row block over `columns` columns, a multiple of
  /// superblockColumns().
  constexpr int64_t rowBlockBytes(int64_t columns) const {
    return frontBytes() + columns / superblockColumns() * superblockBytes();
  }
  /// Bytes of a whole matrix of `rows` x `columns`.
  constexpr int64_t matrixBytes(int64_t rows, int64_t columns) const {
    return (rows + kPackedRows - 1) / kPackedRows * rowBlockBytes(columns);
  }

private:
  static constexpr int64_t paramBytes(ParamKind kind) {
    return kind == ParamKind::F16    ? kPackedRows * 2
           : kind == ParamKind::Byte ? kPackedRows
                                     : 0;
  }
};

/// The layout of `format`. Precondition: a weight format (not A8).
const PackedFormat &packedFormat(BlockFormat format);

/// Packs columns [kBegin, kEnd) of up to 16 rows into `dst`, which gets
/// rowBlockBytes(kEnd - kBegin) bytes. `rows` are pointers to the rows as
/// `format` encodes them, from column 0; nullptr, like a row past the
/// end of the span, is a padding row. Precondition: kBegin and kEnd are
/// multiples of superblockColumns(). Returns the place in `rows` of the first
/// row there that has a scale, a minimum or a number which is NaN or infinite;
/// -1 when all are finite.
int packRowBlock(BlockFormat format, std::span<const uint8_t *const> rows,
                 int64_t kBegin, int64_t kEnd, uint8_t *dst);

/// Decodes a packed row block of `columns` columns into `dst` (16, columns).
/// The numbers are those of dequantizeRow(), bit for bit; padding rows are
/// zero.
void unpackRowBlockToFloat(BlockFormat format, const uint8_t *packed,
                           int64_t columns, float *dst);

} // namespace quern

#endif // QUERN_CODEGEN_HOST_PACKEDLAYOUT_H

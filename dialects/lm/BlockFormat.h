// Block formats: how rows of weights and activations are stored as bytes, and
// what numbers the bytes mean. One table describes every format; no other file
// knows a GGUF type number or a block size. Free of MLIR, since importers,
// packers and tests need formats without a dialect.
#ifndef QUERN_DIALECTS_LM_BLOCKFORMAT_H
#define QUERN_DIALECTS_LM_BLOCKFORMAT_H

#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace quern {

/// A storage format of a row of numbers. All but E4M3 and A8 are GGUF tensor
/// types.
enum class BlockFormat : uint8_t {
  F32,
  F16,
  BF16,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q8_0,
  Q2_K,
  Q3_K,
  Q4_K,
  Q5_K,
  Q6_K,
  /// Weights and activations: codes are 8-bit floats of 4 exponent and 3
  /// mantissa bits (OCP "8-bit Floating Point Specification", E4M3: bias 7, no
  /// infinity, largest 448), scaled by a float32 of the row.
  E4M3,
  /// Quantized activations: blocks of 16, a float32 scale then 16 signed bytes.
  A8,
};

/// Number of formats, for tables and loops over all of them.
inline constexpr int kBlockFormatCount = static_cast<int>(BlockFormat::A8) + 1;

/// Facts of one format. A quantized element with code q, in a block with scale
/// d and minimum m, is
///
///   one level  (subGroup == blockElements): d * (q - zero) + minSign * m
///   two levels (subGroup <  blockElements): (d * sc) * (q - zero) + minSign *
///   (m * mc)
///   row scaled (rowScaleBytes > 0): d * e4m3ToF32(q), d being the row's
///
/// where sc and mc are the integer scale and minimum of the element's
/// sub-group. Every operation rounds to float32, in the order written, without
/// contraction.
struct BlockFormatInfo {
  BlockFormat format;
  /// Mnemonic in the IR and in messages: "q4_1".
  std::string_view name;
  /// Type number in GGUF's tensor infos, -1 when the format is not GGUF's.
  int32_t ggufType;
  /// Elements per block; a row's length is a multiple of it. 1 for float
  /// formats.
  int32_t blockElements;
  /// Bytes per block.
  int32_t blockBytes;
  /// Bits of a code, 0 for float formats.
  int32_t codeBits;
  /// The code that means zero.
  int32_t zero;
  /// Elements that share an (integer) scale; blockElements when there is one
  /// level.
  int32_t subGroup;
  /// Integer scales are int8, not uint8.
  bool subScaleSigned;
  /// 0 no minimum, +1 the minimum is added (Q4_1, Q5_1), -1 it is subtracted
  /// (K-quants).
  int32_t minSign;
  /// Bytes of the float32 scale in front of a row's blocks, 0 where scales are
  /// of blocks. Codes under such a scale are E4M3 numbers.
  int32_t rowScaleBytes = 0;

  /// A scale is the row's, so that a row is encoded as a whole.
  constexpr bool isRowScaled() const { return rowScaleBytes != 0; }
  constexpr bool isFloat() const { return codeBits == 0; }
  constexpr bool hasMin() const { return minSign != 0; }
  /// Scales of blocks are scaled again by integers per sub-group (K-quants).
  constexpr bool isTwoLevel() const { return subGroup != blockElements; }
  /// Bytes of a row of `n` elements, `n` a multiple of blockElements.
  constexpr int64_t rowBytes(int64_t n) const {
    return rowScaleBytes + n / blockElements * blockBytes;
  }
};

/// The table's row of `format`.
const BlockFormatInfo &blockFormatInfo(BlockFormat format);

/// All rows of the table, in the order of the enum.
std::span<const BlockFormatInfo> blockFormats();

/// The format whose mnemonic is `name`, such as "q4_1".
std::optional<BlockFormat> parseBlockFormat(std::string_view name);

/// The format of GGUF tensor type `type`; none when Quern does not support it.
std::optional<BlockFormat> blockFormatFromGguf(uint32_t type);

/// Decodes a row of `n` elements (a multiple of the block size), bit for bit as
/// the format's reference formulas give it in float32. Reads rowBytes(n) bytes,
/// with no alignment needed.
void dequantizeRow(BlockFormat format, const uint8_t *src, float *dst,
                   int64_t n);

/// Formats that quantizeRow() can produce: F32, F16, BF16, Q4_0, Q4_1, Q8_0,
/// E4M3 and A8.
bool canQuantize(BlockFormat format);

/// Encodes a row of `n` elements (a multiple of the block size), each to the
/// nearest code. The largest magnitude of a row of E4M3 becomes 448.
/// Precondition: canQuantize(format).
void quantizeRow(BlockFormat format, const float *src, uint8_t *dst, int64_t n);

/// Rounds `n` floats to int8 codes under one scale d, which it returns:
/// d = max|x| / 127, q = round(x * (127 / max|x|)), to even in a tie; both are
/// 0 where 127 / max|x| is not finite.
float quantizeToInt8(const float *src, int n, int8_t *codes);

/// One row of a quantized format taken apart: what the weight packer reads.
/// Reuse one object for many rows; its buffers are kept.
struct UnpackedBlockRow {
  /// Codes in element order (n). A Q8_0 byte q is stored as q + 128.
  std::vector<uint8_t> codes;
  /// The scale of a row-scaled format.
  float rowScale = 0;
  /// Block scales d as f16 bits (n / blockElements); empty when the row has
  /// one.
  std::vector<uint16_t> scales;
  /// Block minima m as f16 bits (n / blockElements); empty when the format has
  /// none.
  std::vector<uint16_t> mins;
  /// Integer scales (n / subGroup), two's complement when signed; empty when
  /// there is one level.
  std::vector<uint8_t> subScales;
  /// Integer minima (n / subGroup); empty when there are none.
  std::vector<uint8_t> subMins;
};

/// Takes elements [first, first + n) of the row at `src` apart. Precondition: a
/// quantized weight format (not F32, F16, BF16 or A8), `first` and `n`
/// multiples of its block size.
void unpackBlockRow(BlockFormat format, const uint8_t *src, int64_t first,
                    int64_t n, UnpackedBlockRow &row);

/// float32 of an E4M3 number, exact.
float e4m3ToF32(uint8_t code);
/// The nearest E4M3 number, ties to even, beyond the largest the largest. NaN
/// stays NaN.
uint8_t f32ToE4m3(float value);
/// The largest E4M3 number.
inline constexpr float kLargestE4m3 = 448.0f;
/// Whether an E4M3 number is NaN.
constexpr bool isE4m3Nan(uint8_t code) { return (code & 0x7f) == 0x7f; }

/// float32 from IEEE half-precision bits, exact (subnormals, infinities and NaN
/// included).
float f16ToF32(uint16_t bits);
/// IEEE half-precision bits, rounded to nearest even.
uint16_t f32ToF16(float value);
/// float32 from bfloat16 bits, exact.
inline float bf16ToF32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
/// bfloat16 bits, rounded to nearest even; NaN stays NaN.
uint16_t f32ToBf16(float value);

} // namespace quern

#endif // QUERN_DIALECTS_LM_BLOCKFORMAT_H

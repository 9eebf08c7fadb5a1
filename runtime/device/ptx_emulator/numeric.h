// The number formats of PTX, as bits. Names follow the PTX ISA: f16, bf16, tf32, e4m3, e5m2.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace quern::ptx {

/// Sixteen-bit and packed operands, told apart by type so that a table row can name them.
struct Half {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};
struct Half2 {
  uint16_t lo, hi;
};
struct Bf162 {
  uint16_t lo, hi;
};

/// Rounding modes: to nearest even, towards zero, down, up, to nearest with ties away (rna).
enum class Rounding : uint8_t { kNearest, kZero, kDown, kUp, kAway };

inline uint32_t BitsOf(float x) { return std::bit_cast<uint32_t>(x); }
inline float FloatOf(uint32_t bits) { return std::bit_cast<float>(bits); }

/// Shifts the exponent by a multiplication, which also handles subnormals. No branch: vectorises.
inline float HalfToFloat(uint16_t half) {
  const uint32_t magnitude = uint32_t{half & 0x7fffu} << 13;
  uint32_t bits = BitsOf(FloatOf(magnitude) * 0x1p112f);
  bits |= (half & 0x7c00u) == 0x7c00u ? 0x7f800000u | magnitude : 0;  // Infinity and NaN.
  return FloatOf(bits | (uint32_t{half & 0x8000u} << 16));
}

/// Round to nearest even; NaN becomes 0x7fff, as PTX defines. No branch: vectorises.
inline uint16_t FloatToHalf(float x) {
  const uint32_t bits = BitsOf(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  const uint32_t rebiased = magnitude - (112u << 23);
  const uint32_t normal = (rebiased + 0xfffu + ((rebiased >> 13) & 1)) >> 13;
  // The adder of float32 rounds at the right bit.
  const uint32_t subnormal = BitsOf(FloatOf(magnitude) + 0.5f) - BitsOf(0.5f);
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;
  half |= sign;
  return static_cast<uint16_t>(magnitude > 0x7f800000u ? 0x7fffu : half);
}

inline float Bf16ToFloat(uint16_t bits) { return FloatOf(uint32_t{bits} << 16); }

inline uint16_t FloatToBf16(float x) {
  const uint32_t bits = BitsOf(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

inline float ToFloat(Half x) { return HalfToFloat(x.bits); }
inline float ToFloat(Bf16 x) { return Bf16ToFloat(x.bits); }

/// Rounds to an integer by `mode`.
inline double RoundIntegral(double x, Rounding mode) {
  switch (mode) {
    case Rounding::kZero:
      return std::trunc(x);
    case Rounding::kDown:
      return std::floor(x);
    case Rounding::kUp:
      return std::ceil(x);
    case Rounding::kAway:
      return std::round(x);
    default:
      return std::nearbyint(x);
  }
}

/// A binary format with an implicit leading bit.
struct FloatFormat {
  int exponent_bits;
  int mantissa_bits;
  int bias;
  double largest;     ///< Largest finite value.
  bool has_infinity;  ///< e4m3 has none: its one NaN is all ones.
};
inline constexpr FloatFormat kFormatF16 = {5, 10, 15, 65504.0, true};
inline constexpr FloatFormat kFormatBf16 = {8, 7, 127, 0x1.fep127, true};
inline constexpr FloatFormat kFormatTf32 = {8, 10, 127, 0x1.ffcp127, true};
inline constexpr FloatFormat kFormatF32 = {8, 23, 127, 0x1.fffffep127, true};
inline constexpr FloatFormat kFormatE4m3 = {4, 3, 7, 448.0, false};
inline constexpr FloatFormat kFormatE5m2 = {5, 2, 15, 57344.0, true};

/// `x` rounded to `format` but still a double; overflow as `mode` has it, or to the largest finite
/// value with `saturate`. NaN stays NaN.
inline double RoundToFormat(double x, const FloatFormat& format, Rounding mode, bool saturate) {
  if (std::isnan(x) || x == 0) return x;
  const double magnitude = std::fabs(x);
  if (std::isinf(x)) return saturate ? std::copysign(format.largest, x) : x;
  const int exponent = std::max(std::ilogb(magnitude), 1 - format.bias);
  const double unit = std::ldexp(1.0, exponent - format.mantissa_bits);
  const double rounded = RoundIntegral(x / unit, mode) * unit;
  if (std::fabs(rounded) <= format.largest) return rounded;
  const bool towards_zero = mode == Rounding::kZero || (mode == Rounding::kDown && x > 0) ||
                            (mode == Rounding::kUp && x < 0);
  if (saturate || towards_zero) return std::copysign(format.largest, x);
  return std::copysign(INFINITY, x);
}

/// The bits of `x` in `format`, x being exactly representable, infinite or NaN.
inline uint32_t EncodeFormat(double x, const FloatFormat& format) {
  const int m = format.mantissa_bits, width = 1 + format.exponent_bits + m;
  const uint32_t sign = std::signbit(x) ? 1u << (width - 1) : 0;
  const uint32_t ones = (1u << (width - 1)) - 1;
  if (std::isnan(x)) return width == 32 ? 0x7fffffffu : ones;
  if (std::isinf(x)) return format.has_infinity ? sign | (ones >> m << m) : sign | ones;
  const double magnitude = std::fabs(x);
  if (magnitude == 0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), 1 - format.bias);
  const auto digits =
      static_cast<uint32_t>(std::ldexp(magnitude, m - exponent));  // With the leading bit, if any.
  if (digits < (1u << m)) return sign | digits;
  return sign | (static_cast<uint32_t>(exponent + format.bias) << m) | (digits & ((1u << m) - 1));
}

inline uint32_t ConvertToFormat(double x, const FloatFormat& format, Rounding mode, bool saturate) {
  return EncodeFormat(RoundToFormat(x, format, mode, saturate), format);
}

/// The value of `bits` in `format`.
inline double DecodeFormat(uint32_t bits, const FloatFormat& format) {
  const int m = format.mantissa_bits, width = 1 + format.exponent_bits + m;
  const bool negative = (bits >> (width - 1)) & 1;
  const auto exponent = static_cast<int>((bits >> m) & ((1u << format.exponent_bits) - 1));
  const uint32_t digits = bits & ((1u << m) - 1), top = (1u << format.exponent_bits) - 1;
  double value;
  if (exponent == static_cast<int>(top) && format.has_infinity) {
    value = digits ? NAN : INFINITY;
  } else if (exponent == static_cast<int>(top) && digits == (1u << m) - 1) {
    value = NAN;
  } else if (exponent == 0) {
    value = std::ldexp(digits, 1 - format.bias - m);
  } else {
    value = std::ldexp(digits + (1u << m), exponent - format.bias - m);
  }
  return negative ? -value : value;
}

/// e4m3 and e5m2 to float32 by table.
const float* E4m3Table();  // (256)
const float* E5m2Table();  // (256)

// ---- Minima

/// One operand NaN: the other one. -0 < +0.
template <class T>
T Minimum(T a, T b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
template <class T>
T Maximum(T a, T b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  return a > b || (a == b && std::signbit(b)) ? a : b;
}

}  // namespace quern::ptx

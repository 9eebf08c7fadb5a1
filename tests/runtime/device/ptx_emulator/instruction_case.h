// One arithmetic instruction against its definition in the PTX ISA, written in plain C++.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>

namespace quern::ptx {

using U = uint64_t;

/// `operands`: kinds of d, a, b, c. p: a predicate; h, w, l: integers of 16, 32, 64 bits; n: 32
/// bits, small; e, f, g: f16, f32, f64; x, y: f16x2, bf16x2; z: bf16.
struct Case {
  std::string instruction;
  std::string operands;
  std::function<U(U, U, U)> want;  ///< Of the bits of a, b, c; more bits than d has do not count.
  U tolerance = 0;                 ///< Units of the last place by which a float may differ.
};

/// Executes the instruction on 128 threads with values that find mistakes, and compares each
/// result, bit for bit but for the payloads of NaN.
void CheckCase(const Case& c);

// Bits and what they mean.
inline float F(U bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits)); }
inline U B(float x) { return std::bit_cast<uint32_t>(x); }
inline double D(U bits) { return std::bit_cast<double>(bits); }
inline U B(double x) { return std::bit_cast<U>(x); }
inline _Float16 H(U bits) { return std::bit_cast<_Float16>(static_cast<uint16_t>(bits)); }
inline U B(_Float16 x) { return std::bit_cast<uint16_t>(x); }
inline int32_t S(U bits) { return static_cast<int32_t>(bits); }
inline int64_t L(U bits) { return static_cast<int64_t>(bits); }
inline uint32_t W(U bits) { return static_cast<uint32_t>(bits); }

/// bfloat16 by rounding half to even at 8 digits.
U ToBf16(double x);
inline double FromBf16(U bits) { return F((bits & 0xffff) << 16); }

/// `one` of both halves.
template <class One>
U Each16(U a, U b, U c, One one) {
  return (one(a & 0xffff, b & 0xffff, c & 0xffff) & 0xffff) |
         one((a >> 16) & 0xffff, (b >> 16) & 0xffff, (c >> 16) & 0xffff) << 16;
}

}  // namespace quern::ptx

// Integer arithmetic, logic and shifts. PTX ISA 9.7.1, 9.7.2, 9.7.8.
#include <bit>
#include <cstdlib>

#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

template <class U>
constexpr int kBits = sizeof(U) * 8;

template <class U>
using Signed = std::make_signed_t<U>;

/// Twice as wide, for products.
template <class T>
using Wide = std::conditional_t<
    sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>>;

template <class T>
constexpr T High(T a, T b) {
  return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> kBits<T>);
}

/// Division by zero gives all ones, and the one overflowing quotient wraps, as on the hardware.
template <class T>
constexpr T Quotient(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if (std::is_signed_v<T> && b == static_cast<T>(-1))
    return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
  return static_cast<T>(a / b);
}
template <class T>
constexpr T Remainder(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
  return static_cast<T>(a % b);
}

/// What wraps the same for signed and unsigned, on `U`.
template <class U>
void AddWrapping(Rows& rows, const std::string& types) {
  rows.push_back(Lane("add" + types, [](U a, U b) { return static_cast<U>(a + b); }));
  rows.push_back(Lane("sub" + types, [](U a, U b) { return static_cast<U>(a - b); }));
  rows.push_back(Lane("mul.lo" + types, [](U a, U b) {
    return static_cast<U>(static_cast<Wide<U>>(a) * static_cast<Wide<U>>(b));
  }));
  rows.push_back(Lane("mad.lo" + types, [](U a, U b, U c) {
    return static_cast<U>(static_cast<Wide<U>>(a) * static_cast<Wide<U>>(b) + c);
  }));
}

/// What looks at the sign.
template <class T>
void AddSigned(Rows& rows, const std::string& type) {
  rows.push_back(Lane("mul.hi" + type, [](T a, T b) { return High(a, b); }));
  rows.push_back(Lane("mad.hi" + type, [](T a, T b, T c) {
    using U = std::make_unsigned_t<T>;
    return static_cast<T>(static_cast<U>(High(a, b)) + static_cast<U>(c));
  }));
  rows.push_back(Lane("div" + type, [](T a, T b) { return Quotient(a, b); }));
  rows.push_back(Lane("rem" + type, [](T a, T b) { return Remainder(a, b); }));
  rows.push_back(Lane("min" + type, [](T a, T b) { return std::min(a, b); }));
  rows.push_back(Lane("max" + type, [](T a, T b) { return std::max(a, b); }));
  rows.push_back(Lane("sad" + type, [](T a, T b, T c) {
    using U = std::make_unsigned_t<T>;
    const U difference =
        a < b ? static_cast<U>(b) - static_cast<U>(a) : static_cast<U>(a) - static_cast<U>(b);
    return static_cast<T>(difference + static_cast<U>(c));
  }));
  rows.push_back(Lane("shr" + type, [](T a, uint32_t n) {
    if (n >= static_cast<uint32_t>(kBits<T>)) return static_cast<T>(a < 0 ? -1 : 0);
    return static_cast<T>(a >> n);
  }));
  if constexpr (sizeof(T) < 8) {
    using Product = Wide<T>;
    rows.push_back(Lane("mul.wide" + type, [](T a, T b) { return Product{a} * Product{b}; }));
    rows.push_back(Lane("mad.wide" + type, [](T a, T b, Product c) {
      using U = std::make_unsigned_t<Product>;
      return static_cast<Product>(static_cast<U>(Product{a} * Product{b}) + static_cast<U>(c));
    }));
  }
  if constexpr (std::is_signed_v<T>) {
    const auto negate = [](T a) {
      return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
    };
    rows.push_back(Lane("neg" + type, negate));
    rows.push_back(Lane("abs" + type, [](T a) { return a < 0 ? decltype(negate){}(a) : a; }));
  }
}

template <class U>
void AddLogic(Rows& rows, const std::string& type) {
  rows.push_back(Lane("and" + type, [](U a, U b) { return static_cast<U>(a & b); }));
  rows.push_back(Lane("or" + type, [](U a, U b) { return static_cast<U>(a | b); }));
  rows.push_back(Lane("xor" + type, [](U a, U b) { return static_cast<U>(a ^ b); }));
  rows.push_back(Lane("not" + type, [](U a) { return static_cast<U>(~a); }));
  rows.push_back(Lane("cnot" + type, [](U a) { return static_cast<U>(a == 0); }));
  rows.push_back(Lane("shl" + type, [](U a, uint32_t n) {
    return static_cast<U>(n >= static_cast<uint32_t>(kBits<U>) ? 0 : a << n);
  }));
}

/// Bit fields and counts, of 32 and 64 bits.
template <class U>
void AddBits(Rows& rows, const std::string& bits) {
  rows.push_back(
      Lane("popc.b" + bits, [](U a) { return static_cast<uint32_t>(std::popcount(a)); }));
  rows.push_back(
      Lane("clz.b" + bits, [](U a) { return static_cast<uint32_t>(std::countl_zero(a)); }));
  rows.push_back(Lane("brev.b" + bits, [](U a) {
    U result = 0;
    for (int i = 0; i < kBits<U>; ++i) result |= ((a >> i) & 1) << (kBits<U> - 1 - i);
    return result;
  }));
  rows.push_back(Lane("bfind.u" + bits, [](U a) {
    return a ? static_cast<uint32_t>(kBits<U> - 1 - std::countl_zero(a)) : ~0u;
  }));
  rows.push_back(Lane("bfind.shiftamt.u" + bits,
                      [](U a) { return a ? static_cast<uint32_t>(std::countl_zero(a)) : ~0u; }));
  rows.push_back(Lane("bfind.s" + bits, [](U a) {
    const U magnitude = a >> (kBits<U> - 1) ? static_cast<U>(~a) : a;
    return magnitude ? static_cast<uint32_t>(kBits<U> - 1 - std::countl_zero(magnitude)) : ~0u;
  }));
  rows.push_back(Lane("bfe.u" + bits, [](U a, uint32_t b, uint32_t c) {
    const uint32_t position = b & 255, length = c & 255;
    if (position >= static_cast<uint32_t>(kBits<U>) || length == 0) return U{0};
    const U field = a >> position;
    return length >= static_cast<uint32_t>(kBits<U>)
               ? field
               : static_cast<U>(field & ((U{1} << length) - 1));
  }));
  rows.push_back(Lane("bfe.s" + bits, [](U a, uint32_t b, uint32_t c) {
    const int position = static_cast<int>(b & 255), length = static_cast<int>(c & 255);
    if (length == 0) return U{0};
    const int sign_at = std::min(position + length - 1, kBits<U> - 1);
    const U sign = (a >> sign_at) & 1 ? ~U{0} : U{0};
    U result = position >= kBits<U> ? sign : static_cast<U>(a >> position);
    const int kept = std::min(length, kBits<U> - position);
    if (position < kBits<U> && kept < kBits<U>)
      result = (result & ((U{1} << kept) - 1)) | (sign & ~((U{1} << kept) - 1));
    return result;
  }));
  rows.push_back(Lane("bfi.b" + bits, [](U a, U b, uint32_t c, uint32_t d) {
    const uint32_t position = c & 255, length = d & 255;
    if (position >= static_cast<uint32_t>(kBits<U>) || length == 0) return b;
    const U ones = length >= static_cast<uint32_t>(kBits<U>) ? ~U{0} : (U{1} << length) - 1;
    const U mask = static_cast<U>(ones << position);
    return static_cast<U>(((a << position) & mask) | (b & ~mask));
  }));
}

void AddFunnel(Rows& rows) {
  // shf d, lo, hi, n: shifts the 64-bit value hi:lo.
  rows.push_back(Lane("shf.l.wrap.b32", [](uint32_t lo, uint32_t hi, uint32_t n) {
    return static_cast<uint32_t>((((uint64_t{hi} << 32) | lo) << (n & 31)) >> 32);
  }));
  rows.push_back(Lane("shf.r.wrap.b32", [](uint32_t lo, uint32_t hi, uint32_t n) {
    return static_cast<uint32_t>(((uint64_t{hi} << 32) | lo) >> (n & 31));
  }));
  rows.push_back(Lane("shf.l.clamp.b32", [](uint32_t lo, uint32_t hi, uint32_t n) {
    return n >= 32 ? lo : static_cast<uint32_t>((((uint64_t{hi} << 32) | lo) << n) >> 32);
  }));
  rows.push_back(Lane("shf.r.clamp.b32", [](uint32_t lo, uint32_t hi, uint32_t n) {
    return n >= 32 ? hi : static_cast<uint32_t>(((uint64_t{hi} << 32) | lo) >> n);
  }));
}

uint32_t Permute(uint32_t a, uint32_t b, const std::array<uint32_t, 4>& selectors) {
  const uint64_t bytes = (uint64_t{b} << 32) | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<uint32_t>((bytes >> (8 * (selectors[i] & 7))) & 255) << (8 * i);
  return result;
}

void AddPermute(Rows& rows) {
  rows.push_back(Lane("prmt.b32", [](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result = Permute(a, b, {c, c >> 4, c >> 8, c >> 12});
    for (int i = 0; i < 4; ++i)  // Bit 3 of a selector: its byte's sign instead of the byte.
      if ((c >> (4 * i)) & 8) {
        const uint32_t sign = (result >> (8 * i + 7)) & 1 ? 255 : 0;
        result = (result & ~(255u << (8 * i))) | (sign << (8 * i));
      }
    return result;
  }));
  rows.push_back(Lane("prmt.b32.f4e", [](uint32_t a, uint32_t b, uint32_t c) {
    return Permute(a, b, {c & 3, (c & 3) + 1, (c & 3) + 2, (c & 3) + 3});
  }));
  rows.push_back(Lane("prmt.b32.b4e", [](uint32_t a, uint32_t b, uint32_t c) {
    return Permute(a, b, {c & 3, (c & 3) + 7, (c & 3) + 6, (c & 3) + 5});
  }));
  rows.push_back(Lane("prmt.b32.rc8", [](uint32_t a, uint32_t b, uint32_t c) {
    return Permute(a, b, {c & 3, c & 3, c & 3, c & 3});
  }));
  rows.push_back(Lane("prmt.b32.rc16", [](uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t half = (c & 1) * 2;
    return Permute(a, b, {half, half + 1, half, half + 1});
  }));
}

void RunLop3(Warp& warp, const Inst& inst, LaneMask mask) {
  uint32_t* d = warp.Lanes<uint32_t>(inst.operands[0]);
  const uint32_t* a = warp.Lanes<uint32_t>(inst.operands[1]);
  const uint32_t* b = warp.Lanes<uint32_t>(inst.operands[2]);
  const uint32_t* c = warp.Lanes<uint32_t>(inst.operands[3]);
  const auto table = static_cast<uint32_t>(inst.operands[4].value);
  uint32_t result[kLanes] = {};
  for (uint32_t term = 0; term < 8; ++term) {  // Sum of products.
    if (!((table >> term) & 1)) continue;
    const uint32_t na = term & 4 ? 0 : ~0u, nb = term & 2 ? 0 : ~0u, nc = term & 1 ? 0 : ~0u;
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      result[lane] |= (a[lane] ^ na) & (b[lane] ^ nb) & (c[lane] ^ nc);
  }
  ForLanes(mask, [&](uint32_t lane) { d[lane] = result[lane]; });
}

template <class A, class B>
int32_t Dot4(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t sum = c;
  for (int i = 0; i < 4; ++i)
    sum += static_cast<uint32_t>(static_cast<A>(a >> (8 * i)) * static_cast<B>(b >> (8 * i)));
  return static_cast<int32_t>(sum);
}

template <class A, class B, int kFirst>
int32_t Dot2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t sum = c;
  for (int i = 0; i < 2; ++i)
    sum += static_cast<uint32_t>(static_cast<A>(a >> (16 * i)) *
                                 static_cast<B>(b >> (8 * (i + kFirst))));
  return static_cast<int32_t>(sum);
}

template <class A16, class A8, class B8>
void AddDot(Rows& rows, const std::string& types) {
  rows.push_back(Lane("dp4a" + types,
                      [](uint32_t a, uint32_t b, uint32_t c) { return Dot4<A8, B8>(a, b, c); }));
  rows.push_back(Lane("dp2a.lo" + types, [](uint32_t a, uint32_t b, uint32_t c) {
    return Dot2<A16, B8, 0>(a, b, c);
  }));
  rows.push_back(Lane("dp2a.hi" + types, [](uint32_t a, uint32_t b, uint32_t c) {
    return Dot2<A16, B8, 2>(a, b, c);
  }));
}

Rows MakeRows() {
  Rows rows;
  AddWrapping<uint16_t>(rows, "(.u16|.s16)");
  AddWrapping<uint32_t>(rows, "(.u32|.s32)");
  AddWrapping<uint64_t>(rows, "(.u64|.s64)");
  AddSigned<uint16_t>(rows, ".u16");
  AddSigned<uint32_t>(rows, ".u32");
  AddSigned<uint64_t>(rows, ".u64");
  AddSigned<int16_t>(rows, ".s16");
  AddSigned<int32_t>(rows, ".s32");
  AddSigned<int64_t>(rows, ".s64");
  AddLogic<uint16_t>(rows, ".b16");
  AddLogic<uint32_t>(rows, ".b32");
  AddLogic<uint64_t>(rows, ".b64");
  for (const char* bits : {"16", "32", "64"}) {  // An untyped right shift brings in zeros.
    const std::string name = std::string("shr.b") + bits;
    for (size_t i = 0, n = rows.size(); i < n; ++i)
      if (rows[i].pattern == std::string("shr.u") + bits) {
        rows.push_back(rows[i]);
        rows.back().pattern = name;
      }
  }
  rows.push_back(Lane("and.pred", [](bool a, bool b) { return a && b; }));
  rows.push_back(Lane("or.pred", [](bool a, bool b) { return a || b; }));
  rows.push_back(Lane("xor.pred", [](bool a, bool b) { return a != b; }));
  rows.push_back(Lane("not.pred", [](bool a) { return !a; }));
  rows.push_back(Lane("add.sat.s32", [](int32_t a, int32_t b) {
    return static_cast<int32_t>(std::clamp<int64_t>(int64_t{a} + b, INT32_MIN, INT32_MAX));
  }));
  rows.push_back(Lane("sub.sat.s32", [](int32_t a, int32_t b) {
    return static_cast<int32_t>(std::clamp<int64_t>(int64_t{a} - b, INT32_MIN, INT32_MAX));
  }));
  AddBits<uint32_t>(rows, "32");
  AddBits<uint64_t>(rows, "64");
  AddFunnel(rows);
  AddPermute(rows);
  rows.push_back({"lop3.b32", "=w w w w i", RunLop3, nullptr});
  AddDot<uint16_t, uint8_t, uint8_t>(rows, ".u32.u32");
  AddDot<uint16_t, uint8_t, int8_t>(rows, ".u32.s32");
  AddDot<int16_t, int8_t, uint8_t>(rows, ".s32.u32");
  AddDot<int16_t, int8_t, int8_t>(rows, ".s32.s32");
  return rows;
}

}  // namespace

std::span<const Row> IntegerRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

}  // namespace quern::ptx

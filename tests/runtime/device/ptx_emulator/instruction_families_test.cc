// Families of instructions that differ in type and modifiers only: one definition each.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/runtime/device/ptx_emulator/instruction_case.h"

namespace quern::ptx {
namespace {

using V = unsigned __int128;
using S128 = __int128;

// ---- Integers

struct IntegerType {
  const char* name;
  int bits;
  bool is_signed;
  char kind() const { return bits == 16 ? 'h' : bits == 32 ? 'w' : 'l'; }
  /// The value of these bits, sign extended to 128.
  V Extend(U value) const {
    const V low = bits == 64 ? value : value & ((U{1} << bits) - 1);
    const bool negative = is_signed && (low >> (bits - 1) & 1);
    return negative ? low | ~V{0} << bits : low;
  }
};
constexpr IntegerType kIntegers[] = {{"u16", 16, false}, {"s16", 16, true},  {"u32", 32, false},
                                     {"s32", 32, true},  {"u64", 64, false}, {"s64", 64, true},
                                     {"b16", 16, false}, {"b32", 32, false}, {"b64", 64, false}};

/// Operands in 128 bits, and their type.
struct Args {
  V a, b, c;
  const IntegerType& type;
  bool Less(V x, V y) const {
    return type.is_signed ? static_cast<S128>(x) < static_cast<S128>(y) : x < y;
  }
};

/// `operands`: t, the type; d, twice as wide; n, a small count of 32 bits.
struct IntegerFamily {
  const char* name;  ///< "mul.hi"; the type comes behind it.
  const char* types;
  const char* operands;
  V (*want)(const Args&);
};

V Magnitude(V x) { return static_cast<S128>(x) < 0 ? 0 - x : x; }

constexpr const char* kAll = "u16 s16 u32 s32 u64 s64";
constexpr const char* kNarrow = "u16 s16 u32 s32";
constexpr const char* kSignedTypes = "s16 s32 s64";
constexpr const char* kBits = "b16 b32 b64";

const IntegerFamily kIntegerFamilies[] = {
    {"add", kAll, "ttt", [](const Args& x) { return x.a + x.b; }},
    {"sub", kAll, "ttt", [](const Args& x) { return x.a - x.b; }},
    {"mul.lo", kAll, "ttt", [](const Args& x) { return x.a * x.b; }},
    {"mul.hi", kAll, "ttt", [](const Args& x) { return (x.a * x.b) >> x.type.bits; }},
    {"mul.wide", kNarrow, "dtt", [](const Args& x) { return x.a * x.b; }},
    {"mad.lo", kAll, "tttt", [](const Args& x) { return x.a * x.b + x.c; }},
    {"mad.hi", kAll, "tttt", [](const Args& x) { return ((x.a * x.b) >> x.type.bits) + x.c; }},
    {"mad.wide", kNarrow, "dttd", [](const Args& x) { return x.a * x.b + x.c; }},
    // Division by zero: all ones, and the dividend.
    {"div", kAll, "ttt",
     [](const Args& x) {
       if (x.b == 0) return ~V{0};
       const V quotient = Magnitude(x.a) / Magnitude(x.b);
       return (static_cast<S128>(x.a) < 0) != (static_cast<S128>(x.b) < 0) ? 0 - quotient
                                                                           : quotient;
     }},
    {"rem", kAll, "ttt",
     [](const Args& x) {
       if (x.b == 0) return x.a;
       const V remainder = Magnitude(x.a) % Magnitude(x.b);
       return static_cast<S128>(x.a) < 0 ? 0 - remainder : remainder;
     }},
    {"min", kAll, "ttt", [](const Args& x) { return x.Less(x.a, x.b) ? x.a : x.b; }},
    {"max", kAll, "ttt", [](const Args& x) { return x.Less(x.a, x.b) ? x.b : x.a; }},
    {"sad", kAll, "tttt",
     [](const Args& x) { return (x.Less(x.a, x.b) ? x.b - x.a : x.a - x.b) + x.c; }},
    {"abs", kSignedTypes, "tt", [](const Args& x) { return Magnitude(x.a); }},
    {"neg", kSignedTypes, "tt", [](const Args& x) { return 0 - x.a; }},
    {"and", kBits, "ttt", [](const Args& x) { return x.a & x.b; }},
    {"or", kBits, "ttt", [](const Args& x) { return x.a | x.b; }},
    {"xor", kBits, "ttt", [](const Args& x) { return x.a ^ x.b; }},
    {"not", kBits, "tt", [](const Args& x) { return ~x.a; }},
    {"cnot", kBits, "tt", [](const Args& x) { return V{x.a == 0}; }},
    {"shl", kBits, "ttn", [](const Args& x) { return x.a << static_cast<int>(x.b); }},
    {"shr", kBits, "ttn", [](const Args& x) { return x.a >> static_cast<int>(x.b); }},
    {"shr", kAll, "ttn",
     [](const Args& x) { return static_cast<V>(static_cast<S128>(x.a) >> static_cast<int>(x.b)); }},
    {"selp", "b16 u16 s16 b32 u32 s32 b64 u64 s64", "tttp",
     [](const Args& x) { return x.c ? x.a : x.b; }},
};

/// Words of a list.
std::vector<std::string> Words(const std::string& text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

const IntegerType& TypeNamed(const std::string& name) {
  return *std::find_if(std::begin(kIntegers), std::end(kIntegers),
                       [&](const IntegerType& type) { return name == type.name; });
}

Case Expand(const IntegerFamily& family, const IntegerType& type) {
  Case c{std::string(family.name) + "." + type.name, "", nullptr};
  for (const char* kind = family.operands; *kind; ++kind)
    c.operands += *kind == 't' ? type.kind() : *kind == 'd' ? (type.bits == 16 ? 'w' : 'l') : *kind;
  const std::string kinds = family.operands;
  const IntegerType wide{"", 2 * type.bits, type.is_signed}, count{"", 32, false};
  c.want = [=, &family, &type](U a, U b, U d) {
    const auto extend = [&](size_t i, U value) {
      const char kind = i < kinds.size() ? kinds[i] : 'n';
      return kind == 't'   ? type.Extend(value)
             : kind == 'd' ? wide.Extend(value)
                           : count.Extend(value);
    };
    return static_cast<U>(family.want({extend(1, a), extend(2, b), extend(3, d), type}));
  };
  return c;
}

TEST(InstructionFamilies, Integers) {
  for (const IntegerFamily& family : kIntegerFamilies)
    for (const std::string& type : Words(family.types)) CheckCase(Expand(family, TypeNamed(type)));
}

TEST(InstructionFamilies, IntegerComparisons) {
  using Compare = bool (*)(const Args&);
  struct Order {
    const char* name;
    const char* types;
    Compare compare;
  };
  const Compare less = [](const Args& x) { return x.Less(x.a, x.b); };
  const Compare less_equal = [](const Args& x) { return !x.Less(x.b, x.a); };
  const Compare greater = [](const Args& x) { return x.Less(x.b, x.a); };
  const Compare greater_equal = [](const Args& x) { return !x.Less(x.a, x.b); };
  const Order orders[] = {
      {"eq", "b16 b32 b64 u16 s16 u32 s32 u64 s64", [](const Args& x) { return x.a == x.b; }},
      {"ne", "b16 b32 b64 u16 s16 u32 s32 u64 s64", [](const Args& x) { return x.a != x.b; }},
      {"lt", kAll, less},
      {"le", kAll, less_equal},
      {"gt", kAll, greater},
      {"ge", kAll, greater_equal},
      {"lo", "u16 u32 u64", less},
      {"ls", "u16 u32 u64", less_equal},
      {"hi", "u16 u32 u64", greater},
      {"hs", "u16 u32 u64", greater_equal}};
  for (const Order& order : orders)
    for (const std::string& name : Words(order.types)) {
      const IntegerType& type = TypeNamed(name);
      const std::string two(2, type.kind()), set = std::string("set.") + order.name;
      const auto holds = [&](U a, U b) {
        return U{order.compare({type.Extend(a), type.Extend(b), 0, type})};
      };
      const std::string setp = std::string("setp.") + order.name;
      CheckCase({setp + "." + name, "p" + two, [&](U a, U b, U) { return holds(a, b); }});
      CheckCase(
          {setp + ".and." + name, "p" + two + "p", [&](U a, U b, U c) { return holds(a, b) & c; }});
      CheckCase(
          {setp + ".or." + name, "p" + two + "p", [&](U a, U b, U c) { return holds(a, b) | c; }});
      CheckCase(
          {setp + ".xor." + name, "p" + two + "p", [&](U a, U b, U c) { return holds(a, b) ^ c; }});
      CheckCase({set + ".u32." + name, "w" + two, [&](U a, U b, U) { return 0 - holds(a, b); }});
      CheckCase({set + ".s32." + name, "w" + two, [&](U a, U b, U) { return 0 - holds(a, b); }});
      CheckCase({set + ".f32." + name, "w" + two,
                 [&](U a, U b, U) { return holds(a, b) ? B(1.0f) : U{0}; }});
    }
}

TEST(InstructionFamilies, BitFields) {
  for (const int bits : {32, 64}) {
    const std::string b = std::to_string(bits);
    const IntegerType& plain = TypeNamed("u" + b);
    const IntegerType& with_sign = TypeNamed("s" + b);
    const std::string kind(1, plain.kind());
    const auto bit = [](U a, U i) { return a >> i & 1; };
    const auto top = [=](U a) {  // The first set bit from above, or -1.
      for (int i = bits - 1; i >= 0; --i)
        if (bit(a, static_cast<U>(i))) return i;
      return -1;
    };
    const auto shift_amount = [=](int place) {
      return place < 0 ? ~U{0} : static_cast<U>(bits - 1 - place);
    };
    const auto without_sign = [=, &with_sign](U a) {
      return static_cast<S128>(with_sign.Extend(a)) < 0 ? ~a : a;
    };
    CheckCase({"bfind.u" + b, "w" + kind, [=](U a, U, U) { return static_cast<U>(top(a)); }});
    CheckCase({"bfind.s" + b, "w" + kind,
               [=](U a, U, U) { return static_cast<U>(top(without_sign(a))); }});
    CheckCase(
        {"bfind.shiftamt.u" + b, "w" + kind, [=](U a, U, U) { return shift_amount(top(a)); }});
    CheckCase({"brev.b" + b, kind + kind, [=](U a, U, U) {
                 U reversed = 0;
                 for (int i = 0; i < bits; ++i)
                   reversed |= bit(a, static_cast<U>(i)) << (bits - 1 - i);
                 return reversed;
               }});
    for (const bool is_signed : {false, true})
      CheckCase({(is_signed ? "bfe.s" : "bfe.u") + b, kind + kind + "nn", [=](U a, U at, U count) {
                   const U last = std::min<U>(at + count - 1, static_cast<U>(bits) - 1);
                   const U sign = is_signed && count ? bit(a, last) : 0;
                   U field = 0;
                   for (U i = 0; i < static_cast<U>(bits); ++i)
                     field |= (i < count && at + i < static_cast<U>(bits) ? bit(a, at + i) : sign)
                              << i;
                   return field;
                 }});
  }
}

// ---- Products of bytes

TEST(InstructionFamilies, DotProducts) {
  for (const bool a_signed : {false, true})
    for (const bool b_signed : {false, true}) {
      const std::string types =
          std::string(a_signed ? ".s32" : ".u32") + (b_signed ? ".s32" : ".u32");
      const auto byte = [](U x, int i, bool is_signed) {
        const auto value = static_cast<uint8_t>(x >> (8 * i));
        return is_signed ? int64_t{static_cast<int8_t>(value)} : int64_t{value};
      };
      const auto word = [](U x, int i, bool is_signed) {
        const auto value = static_cast<uint16_t>(x >> (16 * i));
        return is_signed ? int64_t{static_cast<int16_t>(value)} : int64_t{value};
      };
      CheckCase({"dp4a" + types, "wwww", [=](U a, U b, U c) {
                   for (int i = 0; i < 4; ++i)
                     c += static_cast<U>(byte(a, i, a_signed) * byte(b, i, b_signed));
                   return c;
                 }});
      for (const int high : {0, 1})
        CheckCase({(high ? "dp2a.hi" : "dp2a.lo") + types, "wwww", [=](U a, U b, U c) {
                     for (int i = 0; i < 2; ++i)
                       c += static_cast<U>(word(a, i, a_signed) * byte(b, 2 * high + i, b_signed));
                     return c;
                   }});
    }
}

TEST(InstructionFamilies, PermutationsOfBytes) {
  const auto byte = [](U a, U b, U i) { return ((b << 32 | W(a)) >> (8 * (i & 7))) & 255; };
  const auto four = [=](U a, U b, U i0, U i1, U i2, U i3) {
    return byte(a, b, i0) | byte(a, b, i1) << 8 | byte(a, b, i2) << 16 | byte(a, b, i3) << 24;
  };
  CheckCase({"prmt.b32.f4e", "wwww",
             [=](U a, U b, U c) { return c &= 3, four(a, b, c, c + 1, c + 2, c + 3); }});
  CheckCase({"prmt.b32.b4e", "wwww",
             [=](U a, U b, U c) { return c &= 3, four(a, b, c, c + 7, c + 6, c + 5); }});
  CheckCase(
      {"prmt.b32.rc8", "wwww", [=](U a, U b, U c) { return c &= 3, four(a, b, c, c, c, c); }});
  CheckCase({"prmt.b32.rc16", "wwww",
             [=](U a, U b, U c) { return c = c & 1 ? 2 : 0, four(a, b, c, c + 1, c, c + 1); }});
}

TEST(InstructionFamilies, SaturatingIntegers) {
  CheckCase({"sub.sat.s32", "www", [](U a, U b, U) {
               return static_cast<U>(
                   std::clamp<int64_t>(int64_t{S(a)} - S(b), INT32_MIN, INT32_MAX));
             }});
}

// ---- Floats

float Flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

/// One of two NaN: the other; -0 before +0.
template <class T>
T Least(T a, T b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <class T>
T Greatest(T a, T b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}
template <class T>
T OrNan(T a, T b, T value) {
  return std::isnan(a) || std::isnan(b) ? std::numeric_limits<T>::quiet_NaN() : value;
}

struct FloatFamily {
  const char* name;
  const char* operands;  ///< Kinds of f32.
  float (*want)(float a, float b, float c);
  bool saturates = false;  ///< There is a .sat.
};

const FloatFamily kFloatFamilies[] = {
    {"add", "fff", [](float a, float b, float) { return a + b; }, true},
    {"add.rn", "fff", [](float a, float b, float) { return a + b; }, true},
    {"sub", "fff", [](float a, float b, float) { return a - b; }, true},
    {"sub.rn", "fff", [](float a, float b, float) { return a - b; }, true},
    {"mul", "fff", [](float a, float b, float) { return a * b; }, true},
    {"mul.rn", "fff", [](float a, float b, float) { return a * b; }, true},
    {"fma.rn", "ffff", [](float a, float b, float c) { return std::fma(a, b, c); }, true},
    {"mad.rn", "ffff", [](float a, float b, float c) { return std::fma(a, b, c); }, true},
    {"div.rn", "fff", [](float a, float b, float) { return a / b; }},
    {"div.full", "fff", [](float a, float b, float) { return a / b; }},
    {"div.approx", "fff", [](float a, float b, float) { return a / b; }},
    {"rcp.rn", "ff", [](float a, float, float) { return 1 / a; }},
    {"rcp.approx", "ff", [](float a, float, float) { return 1 / a; }},
    {"sqrt.rn", "ff", [](float a, float, float) { return std::sqrt(a); }},
    {"sqrt.approx", "ff", [](float a, float, float) { return std::sqrt(a); }},
    {"abs", "ff", [](float a, float, float) { return std::fabs(a); }},
    {"neg", "ff", [](float a, float, float) { return -a; }},
    {"min", "fff", [](float a, float b, float) { return Least(a, b); }},
    {"max", "fff", [](float a, float b, float) { return Greatest(a, b); }},
};

TEST(InstructionFamilies, Floats) {
  for (const FloatFamily& family : kFloatFamilies)
    for (const bool flush : {false, true})
      for (const bool saturate : {false, true}) {
        if (saturate && !family.saturates) continue;
        const auto want = [=, &family](U a, U b, U c) {
          const auto in = [=](U x) { return flush ? Flushed(F(x)) : F(x); };
          float result = family.want(in(a), in(b), in(c));
          if (flush) result = Flushed(result);
          if (saturate) result = std::isnan(result) ? 0.0f : std::clamp(result, 0.0f, 1.0f);
          return saturate && result == 0 ? U{0} : B(result);
        };
        CheckCase(
            {std::string(family.name) + (flush ? ".ftz" : "") + (saturate ? ".sat" : "") + ".f32",
             family.operands, want});
      }
}

/// The bounds of the ISA are wider; the emulator gives the nearest float, or its neighbour.
TEST(InstructionFamilies, ApproximateFloats) {
  struct Approximation {
    const char* name;
    double (*want)(double);
    bool flushes;  ///< There is a .ftz.
  };
  for (const Approximation& each :
       {Approximation{"sin", [](double x) { return std::sin(x); }, true},
        {"cos", [](double x) { return std::cos(x); }, true},
        {"lg2", [](double x) { return std::log2(x); }, true},
        {"ex2", [](double x) { return std::exp2(x); }, true},
        {"rsqrt", [](double x) { return 1 / std::sqrt(x); }, true},
        {"tanh", [](double x) { return std::tanh(x); }, false}})
    for (const bool flush : {false, true}) {
      if (flush && !each.flushes) continue;
      Case c{std::string(each.name) + ".approx" + (flush ? ".ftz" : "") + ".f32", "ff", nullptr};
      c.tolerance = 1;
      c.want = [=](U a, U, U) {
        const float result = static_cast<float>(each.want(flush ? Flushed(F(a)) : F(a)));
        return B(flush ? Flushed(result) : result);
      };
      CheckCase(c);
    }
}

TEST(InstructionFamilies, MinimaThatKeepNan) {
  for (const bool flush : {false, true}) {
    const auto in = [=](U x) { return flush ? Flushed(F(x)) : F(x); };
    const std::string type = std::string(flush ? ".ftz" : "") + ".NaN.f32";
    CheckCase({"min" + type, "fff",
               [=](U a, U b, U) { return B(OrNan(in(a), in(b), Least(in(a), in(b)))); }});
    CheckCase({"max" + type, "fff",
               [=](U a, U b, U) { return B(OrNan(in(a), in(b), Greatest(in(a), in(b)))); }});
  }
}

TEST(InstructionFamilies, Doubles) {
  struct Family {
    const char* name;
    const char* operands;
    double (*want)(double a, double b, double c);
  };
  for (const Family& family :
       {Family{"add", "ggg", [](double a, double b, double) { return a + b; }},
        {"add.rn", "ggg", [](double a, double b, double) { return a + b; }},
        {"sub", "ggg", [](double a, double b, double) { return a - b; }},
        {"sub.rn", "ggg", [](double a, double b, double) { return a - b; }},
        {"mul", "ggg", [](double a, double b, double) { return a * b; }},
        {"mul.rn", "ggg", [](double a, double b, double) { return a * b; }},
        {"fma.rn", "gggg", [](double a, double b, double c) { return std::fma(a, b, c); }},
        {"mad.rn", "gggg", [](double a, double b, double c) { return std::fma(a, b, c); }},
        {"div.rn", "ggg", [](double a, double b, double) { return a / b; }},
        {"rcp.rn", "gg", [](double a, double, double) { return 1 / a; }},
        {"sqrt.rn", "gg", [](double a, double, double) { return std::sqrt(a); }},
        {"abs", "gg", [](double a, double, double) { return std::fabs(a); }},
        {"neg", "gg", [](double a, double, double) { return -a; }},
        {"min", "ggg", [](double a, double b, double) { return Least(a, b); }},
        {"max", "ggg", [](double a, double b, double) { return Greatest(a, b); }},
        {"copysign", "ggg", [](double a, double b, double) { return std::copysign(b, a); }}})
    CheckCase({std::string(family.name) + ".f64", family.operands,
               [&](U a, U b, U c) { return B(family.want(D(a), D(b), D(c))); }});
}

TEST(InstructionFamilies, PropertiesOfFloats) {
  struct Property {
    const char* name;
    bool (*want)(double x, int kind);  ///< `kind`: std::fpclassify of the operand's own type.
  };
  for (const Property& property :
       {Property{"finite", [](double x, int) { return std::isfinite(x); }},
        {"infinite", [](double x, int) { return std::isinf(x); }},
        {"number", [](double x, int) { return !std::isnan(x); }},
        {"notanumber", [](double x, int) { return std::isnan(x); }},
        {"normal", [](double, int kind) { return kind == FP_NORMAL; }},
        {"subnormal", [](double, int kind) { return kind == FP_SUBNORMAL; }}}) {
    const std::string name = std::string("testp.") + property.name;
    CheckCase({name + ".f32", "pf",
               [&](U a, U, U) { return U{property.want(F(a), std::fpclassify(F(a)))}; }});
    CheckCase({name + ".f64", "pg",
               [&](U a, U, U) { return U{property.want(D(a), std::fpclassify(D(a)))}; }});
  }
}

// ---- Halves

/// f16 or bf16.
struct HalfType {
  const char* name;
  char kind, packed;
  double (*decode)(U bits);
  U (*encode)(double value);  ///< Rounds once.
};

/// f16 of a double, rounded once: through float by rounding to odd.
U ToHalf(double x) {
  auto near = static_cast<float>(x);
  if (std::isfinite(near) && static_cast<double>(near) != x) {
    if (std::fabs(static_cast<double>(near)) > std::fabs(x)) near = F(B(near) - 1);
    near = F(B(near) | 1);
  }
  return B(static_cast<_Float16>(near));
}

constexpr HalfType kHalves[] = {
    {"f16", 'e', 'x', [](U bits) { return static_cast<double>(H(bits)); }, ToHalf},
    {"bf16", 'z', 'y', [](U bits) { return FromBf16(bits); }, ToBf16}};

TEST(InstructionFamilies, Halves) {
  struct Family {
    const char* name;
    size_t sources;
    double (*want)(double a, double b, double c);
  };
  for (const Family& family :
       {Family{"add", 2, [](double a, double b, double) { return a + b; }},
        {"add.rn", 2, [](double a, double b, double) { return a + b; }},
        {"sub", 2, [](double a, double b, double) { return a - b; }},
        {"sub.rn", 2, [](double a, double b, double) { return a - b; }},
        {"mul", 2, [](double a, double b, double) { return a * b; }},
        {"mul.rn", 2, [](double a, double b, double) { return a * b; }},
        {"fma.rn", 3, [](double a, double b, double c) { return a * b + c; }},
        {"fma.rn.relu", 3,
         [](double a, double b, double c) {
           const double sum = a * b + c;
           return std::isnan(sum) ? sum : std::max(sum, 0.0);
         }},
        {"fma.rn.sat", 3,
         [](double a, double b, double c) {
           const double sum = a * b + c;
           return std::isnan(sum) ? 0.0 : std::clamp(sum, 0.0, 1.0);
         }},
        {"min", 2, [](double a, double b, double) { return Least(a, b); }},
        {"max", 2, [](double a, double b, double) { return Greatest(a, b); }},
        {"min.NaN", 2, [](double a, double b, double) { return OrNan(a, b, Least(a, b)); }},
        {"max.NaN", 2, [](double a, double b, double) { return OrNan(a, b, Greatest(a, b)); }},
        {"neg", 1, [](double a, double, double) { return -a; }},
        {"abs", 1, [](double a, double, double) { return std::fabs(a); }}})
    for (const HalfType& type : kHalves) {
      const auto one = [&](U a, U b, U c) {
        return type.encode(family.want(type.decode(a), type.decode(b), type.decode(c)));
      };
      const std::string name = std::string(family.name) + "." + type.name;
      CheckCase({name, std::string(family.sources + 1, type.kind), one});
      CheckCase({name + "x2", std::string(family.sources + 1, type.packed),
                 [&](U a, U b, U c) { return Each16(a, b, c, one); }});
    }
}

TEST(InstructionFamilies, ApproximateHalves) {
  const HalfType &half = kHalves[0], &bf16 = kHalves[1];
  struct Approximation {
    std::string name;
    const HalfType& type;
    double (*want)(double);
  };
  for (const Approximation& each :
       {Approximation{"tanh.approx.f16", half, [](double x) { return std::tanh(x); }},
        {"tanh.approx.bf16", bf16, [](double x) { return std::tanh(x); }},
        {"ex2.approx.f16", half, [](double x) { return std::exp2(x); }},
        {"ex2.approx.ftz.bf16", bf16, [](double x) { return std::exp2(x); }}}) {
    const auto one = [&](U a, U, U) { return each.type.encode(each.want(each.type.decode(a))); };
    CheckCase({each.name, std::string(2, each.type.kind), one, 1});
    CheckCase({each.name + "x2", std::string(2, each.type.packed),
               [&](U a, U b, U c) { return Each16(a, b, c, one); }, 1});
  }
}

// ---- Comparisons of floats

TEST(InstructionFamilies, FloatComparisons) {
  struct Order {
    const char* name;
    bool (*compare)(double a, double b);
    bool unordered;  ///< Of a NaN.
  };
  struct Type {
    const char* name;
    char kind;
    double (*decode)(U bits, bool flush);
    bool flushes;  ///< There is a .ftz.
  };
  const auto equal = [](double a, double b) { return a == b; };
  const auto differ = [](double a, double b) { return a != b; };
  const auto less = [](double a, double b) { return a < b; };
  const auto less_equal = [](double a, double b) { return a <= b; };
  const auto greater = [](double a, double b) { return a > b; };
  const auto greater_equal = [](double a, double b) { return a >= b; };
  const Order orders[] = {{"eq", equal, false},
                          {"ne", differ, false},
                          {"lt", less, false},
                          {"le", less_equal, false},
                          {"gt", greater, false},
                          {"ge", greater_equal, false},
                          {"equ", equal, true},
                          {"neu", differ, true},
                          {"ltu", less, true},
                          {"leu", less_equal, true},
                          {"gtu", greater, true},
                          {"geu", greater_equal, true},
                          {"num", [](double, double) { return true; }, false},
                          {"nan", [](double, double) { return false; }, true}};
  const Type types[] = {
      {"f32", 'f',
       [](U x, bool flush) { return static_cast<double>(flush ? Flushed(F(x)) : F(x)); }, true},
      {"f64", 'g', [](U x, bool) { return D(x); }, false},
      {"f16", 'e',
       [](U x, bool flush) { return flush && (x & 0x7c00) == 0 ? 0.0 : static_cast<double>(H(x)); },
       true},
      {"bf16", 'z', [](U x, bool) { return FromBf16(x); }, false}};
  for (const Type& type : types)
    for (const Order& order : orders)
      for (const bool flush : {false, true}) {
        if (flush && !type.flushes) continue;
        const auto holds = [&](U a, U b) {
          const double x = type.decode(a, flush), y = type.decode(b, flush);
          return U{std::isnan(x) || std::isnan(y) ? order.unordered : order.compare(x, y)};
        };
        const std::string two(2, type.kind), name = order.name;
        const std::string ftz = flush ? ".ftz." : ".", behind = ftz + type.name;
        CheckCase({"setp." + name + behind, "p" + two, [&](U a, U b, U) { return holds(a, b); }});
        CheckCase({"setp." + name + ".and" + behind, "p" + two + "p",
                   [&](U a, U b, U c) { return holds(a, b) & c; }});
        CheckCase({"setp." + name + ".or" + behind, "p" + two + "p",
                   [&](U a, U b, U c) { return holds(a, b) | c; }});
        CheckCase({"setp." + name + ".xor" + behind, "p" + two + "p",
                   [&](U a, U b, U c) { return holds(a, b) ^ c; }});
        CheckCase({"set." + name + ftz + "u32." + type.name, "w" + two,
                   [&](U a, U b, U) { return 0 - holds(a, b); }});
        CheckCase({"set." + name + ftz + "s32." + type.name, "w" + two,
                   [&](U a, U b, U) { return 0 - holds(a, b); }});
        CheckCase({"set." + name + ftz + "f32." + type.name, "w" + two,
                   [&](U a, U b, U) { return holds(a, b) ? B(1.0f) : U{0}; }});
      }
}

}  // namespace
}  // namespace quern::ptx

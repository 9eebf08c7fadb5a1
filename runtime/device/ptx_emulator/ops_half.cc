// Arithmetic of f16, bf16 and their packed pairs. PTX ISA 9.7.4. Results are rounded once.
#include <cmath>

#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

/// To float32 by rounding to odd, so that rounding again to 11 or 8 bits rounds once. Of what is
/// too large it makes the largest number, which rounds to infinity. No branch: vectorises.
float RoundToOdd(double x) {
  const auto near = static_cast<float>(x);
  const double rounded = near;
  const uint32_t above = std::fabs(rounded) > std::fabs(x), inexact = rounded != x;
  return FloatOf((BitsOf(near) - above) | inexact);
}

template <class T>
T Narrow(float x) {
  if constexpr (std::is_same_v<T, Half>)
    return {FloatToHalf(x)};
  else
    return {FloatToBf16(x)};
}

/// f16 and f16x2, or bf16 and bf16x2.
struct HalfFormat {
  using One = Half;
  using Two = Half2;
};
struct Bf16Format {
  using One = Bf16;
  using Two = Bf162;
};

// The lambdas below are inlined by force: left to itself the compiler calls them lane by lane, and
// no loop over lanes is vectorised.

template <class Format, class F>
void AddUnary(Rows& rows, const std::string& name, const std::string& type, F) {
  using One = typename Format::One;
  using Two = typename Format::Two;
  rows.push_back(Lane(name + type, [](One a) __attribute__((always_inline)) {
    return Narrow<One>(F{}(ToFloat(a)));
  }));
  rows.push_back(Lane(name + type + "x2", [](Two a) __attribute__((always_inline)) {
    return Two{Narrow<One>(F{}(ToFloat(One{a.lo}))).bits,
               Narrow<One>(F{}(ToFloat(One{a.hi}))).bits};
  }));
}

template <class Format, class F>
void AddBinary(Rows& rows, const std::string& name, const std::string& type, F) {
  using One = typename Format::One;
  using Two = typename Format::Two;
  rows.push_back(Lane(name + type, [](One a, One b) __attribute__((always_inline)) {
    return Narrow<One>(F{}(ToFloat(a), ToFloat(b)));
  }));
  rows.push_back(Lane(name + type + "x2", [](Two a, Two b) __attribute__((always_inline)) {
    return Two{Narrow<One>(F{}(ToFloat(One{a.lo}), ToFloat(One{b.lo}))).bits,
               Narrow<One>(F{}(ToFloat(One{a.hi}), ToFloat(One{b.hi}))).bits};
  }));
}

template <class Format, class F>
void AddTernary(Rows& rows, const std::string& name, const std::string& type, F) {
  using One = typename Format::One;
  using Two = typename Format::Two;
  rows.push_back(Lane(name + type, [](One a, One b, One c) __attribute__((always_inline)) {
    return Narrow<One>(F{}(ToFloat(a), ToFloat(b), ToFloat(c)));
  }));
  rows.push_back(Lane(name + type + "x2", [](Two a, Two b, Two c) __attribute__((always_inline)) {
    return Two{Narrow<One>(F{}(ToFloat(One{a.lo}), ToFloat(One{b.lo}), ToFloat(One{c.lo}))).bits,
               Narrow<One>(F{}(ToFloat(One{a.hi}), ToFloat(One{b.hi}), ToFloat(One{c.hi}))).bits};
  }));
}

float Fma(float a, float b, float c) { return RoundToOdd(static_cast<double>(a) * b + c); }

/// Sums and products of halves with f32, in f32. PTX ISA 9.7.5.
template <class Format>
void AddMixed(Rows& rows, const std::string& type) {
  using One = typename Format::One;
  rows.push_back(Lane("add[.rn].f32" + type, [](One a, float c) { return ToFloat(a) + c; }));
  rows.push_back(Lane("sub[.rn].f32" + type, [](One a, float c) { return ToFloat(a) - c; }));
  rows.push_back(Lane("fma.rn.f32" + type,
                      [](One a, One b, float c) { return std::fma(ToFloat(a), ToFloat(b), c); }));
}

template <class Format>
void AddFormat(Rows& rows, const std::string& type) {
  AddBinary<Format>(rows, "add[.rn]", type, [](float a, float b) { return a + b; });
  AddBinary<Format>(rows, "sub[.rn]", type, [](float a, float b) { return a - b; });
  AddBinary<Format>(rows, "mul[.rn]", type, [](float a, float b) { return a * b; });
  AddTernary<Format>(rows, "fma.rn", type, [](float a, float b, float c) { return Fma(a, b, c); });
  AddTernary<Format>(rows, "fma.rn.relu", type, [](float a, float b, float c) {
    const float sum = Fma(a, b, c);
    return sum > 0 || std::isnan(sum) ? sum : 0.0f;
  });
  AddTernary<Format>(rows, "fma.rn.sat", type, [](float a, float b, float c) {
    const float sum = Fma(a, b, c);
    return sum > 0 ? std::min(sum, 1.0f) : 0.0f;
  });
  AddBinary<Format>(rows, "min", type, [](float a, float b) { return Minimum(a, b); });
  AddBinary<Format>(rows, "max", type, [](float a, float b) { return Maximum(a, b); });
  AddBinary<Format>(rows, "min.NaN", type, [](float a, float b) {
    return std::isnan(a) || std::isnan(b) ? NAN : Minimum(a, b);
  });
  AddBinary<Format>(rows, "max.NaN", type, [](float a, float b) {
    return std::isnan(a) || std::isnan(b) ? NAN : Maximum(a, b);
  });
  AddUnary<Format>(rows, "tanh.approx", type, [](float a) { return std::tanh(a); });
}

void AddSigns(Rows& rows) {
  for (const char* type : {"f16", "bf16"}) {
    const std::string one = std::string(".") + type, two = one + "x2";
    rows.push_back(Lane("neg" + one, [](uint16_t a) { return static_cast<uint16_t>(a ^ 0x8000); }));
    rows.push_back(Lane("abs" + one, [](uint16_t a) { return static_cast<uint16_t>(a & 0x7fff); }));
    rows.push_back(Lane("neg" + two, [](uint32_t a) { return a ^ 0x80008000u; }));
    rows.push_back(Lane("abs" + two, [](uint32_t a) { return a & 0x7fff7fffu; }));
  }
}

Rows MakeRows() {
  Rows rows;
  AddFormat<HalfFormat>(rows, ".f16");
  AddFormat<Bf16Format>(rows, ".bf16");
  AddMixed<HalfFormat>(rows, ".f16");
  AddMixed<Bf16Format>(rows, ".bf16");
  AddUnary<HalfFormat>(rows, "ex2.approx", ".f16", [](float a) { return std::exp2(a); });
  AddUnary<Bf16Format>(rows, "ex2.approx.ftz", ".bf16", [](float a) { return std::exp2(a); });
  AddSigns(rows);
  return rows;
}

}  // namespace

std::span<const Row> HalfRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

}  // namespace quern::ptx

// Arithmetic of f32 and f64. PTX ISA 9.7.3. Approximate instructions give the nearest float32 of
// the exact value, which their error bounds allow. Rounding modes other than .rn are refused.
#include <cmath>

#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

constexpr float kNan = std::bit_cast<float>(0x7fffffffu);  // The NaN that PTX generates.

/// Subnormals become zeros of the same sign.
float Flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
/// .sat: to [0, 1], NaN to 0.
float Saturate(float x) { return x > 0.0f ? std::min(x, 1.0f) : 0.0f; }

/// Rows of `name`[.ftz][.sat].f32 for a function of floats.
template <class F, class... Args>
void AddVariants(Rows& rows, const std::string& name, bool saturating, F,
                 float (F::*)(Args...) const) {
  rows.push_back(Lane(name + ".f32", [](Args... args) { return F{}(args...); }));
  rows.push_back(Lane(name + ".ftz.f32", [](Args... args) { return Flush(F{}(Flush(args)...)); }));
  if (!saturating) return;
  rows.push_back(Lane(name + ".sat.f32", [](Args... args) { return Saturate(F{}(args...)); }));
  rows.push_back(
      Lane(name + ".ftz.sat.f32", [](Args... args) { return Saturate(F{}(Flush(args)...)); }));
}
template <class F>
void Add32(Rows& rows, const std::string& name, F f, bool saturating = false) {
  AddVariants(rows, name, saturating, f, &F::operator());
}

/// d, a, b [, c]: min and max of three exist from sm_100 on.
template <float (*kPick)(float, float), bool kFlush>
void RunPick(Warp& warp, const Inst& inst, LaneMask mask) {
  const auto operand = [&](int i) { return warp.Lanes<float>(inst.operands[i]); };
  const auto read = [](float x) { return kFlush ? Flush(x) : x; };
  float* d = operand(0);
  const float *a = operand(1), *b = operand(2);
  const float* c = inst.operands[3].kind == Operand::Kind::kNone ? nullptr : operand(3);
  ForLanes(mask, [&](uint32_t lane) {
    const float two = kPick(read(a[lane]), read(b[lane]));
    d[lane] = c ? kPick(two, read(c[lane])) : two;
  });
}

template <float (*kPick)(float, float)>
void AddPick(Rows& rows, const std::string& name, const std::string& nan) {
  constexpr const char* kOperands = "=w w w w?";
  rows.push_back({name + nan + ".f32", kOperands, RunPick<kPick, false>, nullptr});
  rows.push_back({name + ".ftz" + nan + ".f32", kOperands, RunPick<kPick, true>, nullptr});
}

float SmallerOrNan(float a, float b) {
  return std::isnan(a) || std::isnan(b) ? kNan : Minimum(a, b);
}
float LargerOrNan(float a, float b) {
  return std::isnan(a) || std::isnan(b) ? kNan : Maximum(a, b);
}

void AddMinMax(Rows& rows) {
  AddPick<Minimum<float>>(rows, "min", "");
  AddPick<Maximum<float>>(rows, "max", "");
  AddPick<SmallerOrNan>(rows, "min", ".NaN");
  AddPick<LargerOrNan>(rows, "max", ".NaN");
  rows.push_back(Lane("min.f64", [](double a, double b) { return Minimum(a, b); }));
  rows.push_back(Lane("max.f64", [](double a, double b) { return Maximum(a, b); }));
}

void AddArithmetic32(Rows& rows) {
  Add32(rows, "add[.rn]", [](float a, float b) { return a + b; }, true);
  Add32(rows, "sub[.rn]", [](float a, float b) { return a - b; }, true);
  Add32(rows, "mul[.rn]", [](float a, float b) { return a * b; }, true);
  Add32(rows, "fma.rn", [](float a, float b, float c) { return std::fma(a, b, c); }, true);
  Add32(rows, "mad.rn", [](float a, float b, float c) { return std::fma(a, b, c); }, true);
  Add32(rows, "div(.rn|.full|.approx)", [](float a, float b) { return a / b; });
  Add32(rows, "rcp(.rn|.approx)", [](float a) { return 1.0f / a; });
  Add32(rows, "sqrt(.rn|.approx)", [](float a) { return std::sqrt(a); });
  Add32(rows, "rsqrt.approx",
        [](float a) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a))); });
  Add32(rows, "sin.approx", [](float a) { return std::sin(a); });
  Add32(rows, "cos.approx", [](float a) { return std::cos(a); });
  Add32(rows, "lg2.approx", [](float a) { return std::log2(a); });
  Add32(rows, "ex2.approx", [](float a) { return std::exp2(a); });
  Add32(rows, "abs", [](float a) { return std::fabs(a); });
  Add32(rows, "neg", [](float a) { return FloatOf(BitsOf(a) ^ 0x80000000u); });
  rows.push_back(Lane("tanh.approx.f32", [](float a) { return std::tanh(a); }));
  rows.push_back(Lane("copysign.f32", [](float a, float b) { return std::copysign(b, a); }));
}

void AddArithmetic64(Rows& rows) {
  rows.push_back(Lane("add[.rn].f64", [](double a, double b) { return a + b; }));
  rows.push_back(Lane("sub[.rn].f64", [](double a, double b) { return a - b; }));
  rows.push_back(Lane("mul[.rn].f64", [](double a, double b) { return a * b; }));
  rows.push_back(
      Lane("fma.rn.f64", [](double a, double b, double c) { return std::fma(a, b, c); }));
  rows.push_back(
      Lane("mad.rn.f64", [](double a, double b, double c) { return std::fma(a, b, c); }));
  rows.push_back(Lane("div.rn.f64", [](double a, double b) { return a / b; }));
  rows.push_back(Lane("rcp.rn.f64", [](double a) { return 1.0 / a; }));
  rows.push_back(Lane("sqrt.rn.f64", [](double a) { return std::sqrt(a); }));
  rows.push_back(Lane("abs.f64", [](double a) { return std::fabs(a); }));
  rows.push_back(Lane("neg.f64", [](double a) { return -a; }));
  rows.push_back(Lane("copysign.f64", [](double a, double b) { return std::copysign(b, a); }));
}

template <class T>
void AddTests(Rows& rows, const std::string& type) {
  rows.push_back(Lane("testp.finite" + type, [](T a) -> bool { return std::isfinite(a); }));
  rows.push_back(Lane("testp.infinite" + type, [](T a) -> bool { return std::isinf(a); }));
  rows.push_back(Lane("testp.number" + type, [](T a) -> bool { return !std::isnan(a); }));
  rows.push_back(Lane("testp.notanumber" + type, [](T a) -> bool { return std::isnan(a); }));
  rows.push_back(Lane("testp.normal" + type, [](T a) -> bool { return std::isnormal(a); }));
  rows.push_back(Lane("testp.subnormal" + type,
                      [](T a) -> bool { return std::fpclassify(a) == FP_SUBNORMAL; }));
}

Rows MakeRows() {
  Rows rows;
  AddArithmetic32(rows);
  AddMinMax(rows);
  AddArithmetic64(rows);
  AddTests<float>(rows, ".f32");
  AddTests<double>(rows, ".f64");
  return rows;
}

}  // namespace

std::span<const Row> FloatRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

}  // namespace quern::ptx

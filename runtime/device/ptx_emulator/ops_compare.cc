// Comparison and selection. PTX ISA 9.7.6, 9.7.7.
#include <cmath>

#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

enum Comparison { kEq, kNe, kLt, kLe, kGt, kGe, kNum, kNan };

struct ComparisonName {
  std::string_view name;
  Comparison comparison;
  bool unordered;
};
constexpr ComparisonName kComparisons[] = {
    {".eq", kEq, false},   {".ne", kNe, false},  {".lt", kLt, false}, {".le", kLe, false},
    {".gt", kGt, false},   {".ge", kGe, false},  {".lo", kLt, false}, {".ls", kLe, false},
    {".hi", kGt, false},   {".hs", kGe, false},  {".equ", kEq, true}, {".neu", kNe, true},
    {".ltu", kLt, true},   {".leu", kLe, true},  {".gtu", kGt, true}, {".geu", kGe, true},
    {".num", kNum, false}, {".nan", kNan, true},
};

/// What is compared; with `flush` subnormals of f16 and f32 are zeros.
template <class T>
auto Comparable(T x, bool flush) {
  if constexpr (std::is_same_v<T, Half>)
    return flush && (x.bits & 0x7c00) == 0 ? 0.0f : ToFloat(x);
  else if constexpr (std::is_same_v<T, Bf16>)
    return ToFloat(x);
  else if constexpr (std::is_same_v<T, float>)
    return flush && std::fabs(x) < 0x1p-126f ? 0.0f : x;
  else
    return x;
}

template <class V>
bool Unordered(V a, V b) {
  if constexpr (std::is_floating_point_v<V>)
    return std::isnan(a) || std::isnan(b);
  else
    return false;
}

template <class V>
bool Compare(Comparison comparison, bool unordered, V a, V b) {
  if (Unordered(a, b)) return unordered;
  switch (comparison) {
    case kEq:
      return a == b;
    case kNe:
      return a != b;
    case kLt:
      return a < b;
    case kLe:
      return a <= b;
    case kGt:
      return a > b;
    case kGe:
      return a >= b;
    case kNum:
      return true;
    case kNan:
      return false;
  }
  return false;
}

enum Combination { kPlain, kAnd, kOr, kXor };
enum Data { kComparison, kUnordered, kCombination, kYes, kFlush };

template <class T>
LaneMask CompareLanes(Warp& warp, const Inst& inst, LaneMask mask) {
  LaneView<T> a(warp, inst.operands[2]), b(warp, inst.operands[3]);
  const auto comparison = static_cast<Comparison>(inst.data[kComparison]);
  const bool unordered = inst.data[kUnordered], flush = inst.data[kFlush];
  LaneMask result = 0;
  ForLanes(mask, [&](uint32_t lane) {
    result |= LaneMask{Compare(comparison, unordered, Comparable(a.Get(lane), flush),
                               Comparable(b.Get(lane), flush))}
              << lane;
  });
  return result;
}

/// setp d|q, a, b [, c]: d = (a ? b) op c, q = !(a ? b) op c.
template <class T>
void RunSetp(Warp& warp, const Inst& inst, LaneMask mask) {
  const LaneMask result = CompareLanes<T>(warp, inst, mask);
  const auto combine = [&](LaneMask bits) {
    const LaneMask c = warp.Predicate(inst.operands[4]);
    switch (static_cast<Combination>(inst.data[kCombination])) {
      case kAnd:
        return bits & c;
      case kOr:
        return bits | c;
      case kXor:
        return bits ^ c;
      default:
        return bits;
    }
  };
  const LaneMask p = combine(result), q = combine(~result);
  warp.SetPredicate(inst.operands[0], p, mask);
  if (inst.operands[1].kind == Operand::Kind::kPredicate)
    warp.SetPredicate(inst.operands[1], q, mask);
}

/// set d, a, b: all ones or zero (an integer), 1.0 or 0.0 (a float).
template <class T>
void RunSet(Warp& warp, const Inst& inst, LaneMask mask) {
  Inst shifted = inst;
  shifted.operands[2] = inst.operands[1];
  shifted.operands[3] = inst.operands[2];
  const LaneMask result = CompareLanes<T>(warp, shifted, mask);
  const auto yes = static_cast<uint32_t>(inst.data[kYes]);
  ForLanes(mask, [&](uint32_t lane) {
    warp.SetValue(inst.operands[0], lane, (result >> lane) & 1 ? yes : 0);
  });
}

std::string BindComparison(const Match& match, const Code&, Inst& inst) {
  for (const ComparisonName& row : kComparisons)
    if (match.groups[0] == row.name) {
      inst.data[kComparison] = row.comparison;
      inst.data[kUnordered] = row.unordered;
    }
  inst.data[kFlush] = match.Has(".ftz");
  return "";
}

std::string BindSetp(const Match& match, const Code& code, Inst& inst) {
  inst.data[kCombination] = match.Has(".and")   ? kAnd
                            : match.Has(".or")  ? kOr
                            : match.Has(".xor") ? kXor
                                                : kPlain;
  return BindComparison(match, code, inst);
}

std::string BindSet(const Match& match, const Code& code, Inst& inst) {
  inst.data[kYes] = match.Has(".f32") ? static_cast<int32_t>(BitsOf(1.0f)) : -1;
  return BindComparison(match, code, inst);
}

constexpr const char* kBitOrders = "(.eq|.ne)";
constexpr const char* kSignedOrders = "(.eq|.ne|.lt|.le|.gt|.ge)";
constexpr const char* kUnsignedOrders = "(.eq|.ne|.lt|.le|.gt|.ge|.lo|.ls|.hi|.hs)";
constexpr const char* kFloatOrders =
    "(.eq|.ne|.lt|.le|.gt|.ge|.equ|.neu|.ltu|.leu|.gtu|.geu|.num|.nan)";

template <class T>
void AddType(Rows& rows, const std::string& type, const std::string& orders,
             const std::string& ftz = "") {
  const std::string width = std::string(1, ClassOf<T>());
  const std::string operands = width + " " + width;
  rows.push_back({"setp" + orders + ftz + type, "=p|p " + operands, RunSetp<T>, BindSetp});
  rows.push_back({"setp" + orders + "(.and|.or|.xor)" + ftz + type, "=p|p " + operands + " p",
                  RunSetp<T>, BindSetp});
  rows.push_back(
      {"set" + orders + ftz + "(.u32|.s32|.f32)" + type, "=w " + operands, RunSet<T>, BindSet});
}

/// setp.f16x2 p|q: a comparison of each half.
void RunSetpHalf2(Warp& warp, const Inst& inst, LaneMask mask) {
  LaneView<Half2> a(warp, inst.operands[2]), b(warp, inst.operands[3]);
  LaneMask low = 0, high = 0;
  const auto comparison = static_cast<Comparison>(inst.data[kComparison]);
  const auto compare = [&](uint16_t x, uint16_t y) {
    return LaneMask{Compare(comparison, inst.data[kUnordered] != 0,
                            Comparable(Half{x}, inst.data[kFlush]),
                            Comparable(Half{y}, inst.data[kFlush]))};
  };
  ForLanes(mask, [&](uint32_t lane) {
    const Half2 x = a.Get(lane), y = b.Get(lane);
    low |= compare(x.lo, y.lo) << lane;
    high |= compare(x.hi, y.hi) << lane;
  });
  warp.SetPredicate(inst.operands[0], low, mask);
  if (inst.operands[1].kind == Operand::Kind::kPredicate)
    warp.SetPredicate(inst.operands[1], high, mask);
}

Rows MakeRows() {
  Rows rows;
  AddType<uint16_t>(rows, ".b16", kBitOrders);
  AddType<uint16_t>(rows, ".u16", kUnsignedOrders);
  AddType<int16_t>(rows, ".s16", kSignedOrders);
  AddType<uint32_t>(rows, ".b32", kBitOrders);
  AddType<uint32_t>(rows, ".u32", kUnsignedOrders);
  AddType<int32_t>(rows, ".s32", kSignedOrders);
  AddType<uint64_t>(rows, ".b64", kBitOrders);
  AddType<uint64_t>(rows, ".u64", kUnsignedOrders);
  AddType<int64_t>(rows, ".s64", kSignedOrders);
  AddType<float>(rows, ".f32", kFloatOrders, "[.ftz]");
  AddType<double>(rows, ".f64", kFloatOrders);
  AddType<Half>(rows, ".f16", kFloatOrders, "[.ftz]");
  AddType<Bf16>(rows, ".bf16", kFloatOrders);
  rows.push_back(
      {std::string("setp") + kFloatOrders + "[.ftz].f16x2", "=p|p w w", RunSetpHalf2, BindSetp});
  rows.push_back(Lane("selp(.b16|.u16|.s16|.f16|.bf16)",
                      [](uint16_t a, uint16_t b, bool c) { return c ? a : b; }));
  rows.push_back(Lane("selp(.b32|.u32|.s32|.f32|.f16x2|.bf16x2)",
                      [](uint32_t a, uint32_t b, bool c) { return c ? a : b; }));
  rows.push_back(
      Lane("selp(.b64|.u64|.s64|.f64)", [](uint64_t a, uint64_t b, bool c) { return c ? a : b; }));
  rows.push_back(Lane("slct(.b32|.u32|.s32|.f32).s32",
                      [](uint32_t a, uint32_t b, int32_t c) { return c >= 0 ? a : b; }));
  return rows;
}

}  // namespace

std::span<const Row> CompareRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

}  // namespace quern::ptx

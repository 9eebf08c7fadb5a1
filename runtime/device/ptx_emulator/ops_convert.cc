// cvt. PTX ISA 9.7.9.22. The conversions of inner loops have rows of their own; the general row
// goes through a 64-bit integer or a double, which holds every source exactly.
#include <cmath>
#include <optional>

#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

enum class Class : uint8_t { kUnsigned, kSigned, kFloat };
struct Type {
  std::string_view name;
  Class kind;
  int bits;
  const FloatFormat* format;
};
constexpr Type kTypes[] = {
    {".u8", Class::kUnsigned, 8, nullptr},    {".u16", Class::kUnsigned, 16, nullptr},
    {".u32", Class::kUnsigned, 32, nullptr},  {".u64", Class::kUnsigned, 64, nullptr},
    {".s8", Class::kSigned, 8, nullptr},      {".s16", Class::kSigned, 16, nullptr},
    {".s32", Class::kSigned, 32, nullptr},    {".s64", Class::kSigned, 64, nullptr},
    {".f16", Class::kFloat, 16, &kFormatF16}, {".bf16", Class::kFloat, 16, &kFormatBf16},
    {".f32", Class::kFloat, 32, &kFormatF32}, {".f64", Class::kFloat, 64, nullptr},
};
int TypeIndex(std::string_view name) {
  for (size_t i = 0; i < std::size(kTypes); ++i)
    if (kTypes[i].name == name) return static_cast<int>(i);
  return -1;
}

enum Data { kTo, kFrom, kMode, kIntegral, kFtz, kSat, kRelu };

uint64_t LowBits(uint64_t value, int bits) {
  return bits == 64 ? value : value & ((uint64_t{1} << bits) - 1);
}
int64_t SignExtend(uint64_t value, int bits) {
  return static_cast<int64_t>(value << (64 - bits)) >> (64 - bits);
}

double DecodeFloat(uint64_t bits, const Type& type) {
  switch (type.bits) {
    case 64:
      return std::bit_cast<double>(bits);
    case 32:
      return FloatOf(static_cast<uint32_t>(bits));
    default:
      return type.format == &kFormatF16 ? HalfToFloat(static_cast<uint16_t>(bits))
                                        : Bf16ToFloat(static_cast<uint16_t>(bits));
  }
}

/// Integer of `bits` bits to `type`.
uint64_t IntegerTo(const Type& type, const Type& from, uint64_t bits, bool saturate) {
  const __int128 value = from.kind == Class::kSigned
                             ? static_cast<__int128>(SignExtend(bits, from.bits))
                             : static_cast<__int128>(LowBits(bits, from.bits));
  if (!saturate) return LowBits(static_cast<uint64_t>(value), type.bits);
  const bool is_signed = type.kind == Class::kSigned;
  const __int128 one = 1;
  const __int128 low = is_signed ? -(one << (type.bits - 1)) : 0;
  const __int128 high = (one << (type.bits - (is_signed ? 1 : 0))) - 1;
  return LowBits(static_cast<uint64_t>(std::clamp(value, low, high)), type.bits);
}

/// Clamps always; NaN becomes 0 (or 2^63 for 64-bit results, as the hardware has it).
uint64_t FloatToInteger(double value, const Type& type, Rounding mode) {
  if (std::isnan(value)) return type.bits == 64 ? uint64_t{1} << 63 : 0;
  const double rounded = RoundIntegral(value, mode);
  if (type.kind == Class::kSigned) {
    const double limit = std::ldexp(1.0, type.bits - 1);
    if (rounded >= limit) return LowBits((uint64_t{1} << (type.bits - 1)) - 1, type.bits);
    if (rounded < -limit) return uint64_t{1} << (type.bits - 1);
    return LowBits(static_cast<uint64_t>(static_cast<int64_t>(rounded)), type.bits);
  }
  if (rounded >= std::ldexp(1.0, type.bits)) return LowBits(~uint64_t{0}, type.bits);
  return rounded <= 0 ? 0 : static_cast<uint64_t>(rounded);
}

uint64_t EncodeFloat(double value, const Type& type, Rounding mode) {
  if (type.bits == 64) return std::bit_cast<uint64_t>(value);
  return ConvertToFormat(value, *type.format, mode, false);
}

/// A 64-bit integer need not fit a double: rounds it to the format's digits as an integer.
uint64_t IntegerToFloat(uint64_t bits, const Type& from, const Type& to, Rounding mode) {
  const bool negative = from.kind == Class::kSigned && SignExtend(bits, from.bits) < 0;
  uint64_t magnitude = from.kind == Class::kSigned
                           ? static_cast<uint64_t>(SignExtend(bits, from.bits))
                           : LowBits(bits, from.bits);
  if (negative) magnitude = 0 - magnitude;
  const int digits = 1 + (to.bits == 64 ? 52 : to.format->mantissa_bits);
  const int excess = std::max(64 - std::countl_zero(magnitude | 1) - digits, 0);
  uint64_t kept = magnitude >> excess;
  if (excess > 0) {
    const uint64_t rest = magnitude - (kept << excess), half = uint64_t{1} << (excess - 1);
    const bool away = mode == (negative ? Rounding::kDown : Rounding::kUp);
    if (away ? rest > 0
             : mode == Rounding::kNearest && (rest > half || (rest == half && (kept & 1))))
      ++kept;
  }
  const double value = std::ldexp(static_cast<double>(kept), excess);
  return EncodeFloat(negative ? -value : value, to, mode);
}

uint64_t ConvertOne(uint64_t bits, const Inst& inst) {
  const Type& to = kTypes[inst.data[kTo]];
  const Type& from = kTypes[inst.data[kFrom]];
  const auto mode = static_cast<Rounding>(inst.data[kMode]);
  const bool saturate = inst.data[kSat];
  if (from.kind != Class::kFloat)
    return to.kind == Class::kFloat ? IntegerToFloat(bits, from, to, mode)
                                    : IntegerTo(to, from, bits, saturate);
  double value = DecodeFloat(bits, from);
  if (inst.data[kFtz] && from.bits == 32 && std::fabs(value) < 0x1p-126)
    value = std::copysign(0.0, value);
  if (to.kind != Class::kFloat) return FloatToInteger(value, to, mode);
  if (inst.data[kIntegral]) value = RoundIntegral(value, mode);
  if (saturate) value = value > 0 ? std::min(value, 1.0) : 0.0;
  if (inst.data[kRelu] && !(value > 0) && !std::isnan(value)) value = 0.0;
  uint64_t result = EncodeFloat(value, to, mode);
  if (inst.data[kFtz] && to.bits == 32 && (result & 0x7f800000u) == 0) result &= 0x80000000u;
  return result;
}

void RunConvert(Warp& warp, const Inst& inst, LaneMask mask) {
  const Type& to = kTypes[inst.data[kTo]];
  const bool extend = to.kind == Class::kSigned && to.bits < 8 * inst.operands[0].bytes;
  ForLanes(mask, [&](uint32_t lane) {
    uint64_t value = ConvertOne(warp.Value(inst.operands[1], lane), inst);
    if (extend) value = static_cast<uint64_t>(SignExtend(value, to.bits));
    warp.SetValue(inst.operands[0], lane, value);
  });
}

constexpr std::pair<std::string_view, Rounding> kModes[] = {
    {".rn", Rounding::kNearest}, {".rz", Rounding::kZero},  {".rm", Rounding::kDown},
    {".rp", Rounding::kUp},      {".rna", Rounding::kAway}, {".rni", Rounding::kNearest},
    {".rzi", Rounding::kZero},   {".rmi", Rounding::kDown}, {".rpi", Rounding::kUp}};

void BindModifiers(const Match& match, Inst& inst) {
  for (const auto& [name, mode] : kModes)
    if (match.Has(name)) {
      inst.data[kMode] = static_cast<int32_t>(mode);
      inst.data[kIntegral] = name.size() == 4 && name.back() == 'i';
    }
  inst.data[kFtz] = match.Has(".ftz");
  inst.data[kSat] = match.Has(".sat") || match.Has(".satfinite");
  inst.data[kRelu] = match.Has(".relu");
}

std::string BindConvert(const Match& match, const Code&, Inst& inst) {
  const size_t n = match.groups.size();
  inst.data[kTo] = TypeIndex(match.groups[n - 2]);
  inst.data[kFrom] = TypeIndex(match.groups[n - 1]);
  BindModifiers(match, inst);
  const Type& to = kTypes[inst.data[kTo]];
  const Type& from = kTypes[inst.data[kFrom]];
  if (from.kind == Class::kFloat && to.kind != Class::kFloat && !inst.data[kIntegral])
    return "float to integer needs .rni, .rzi, .rmi or .rpi";
  if (8 * inst.operands[0].bytes < to.bits) return "the destination is too narrow";
  if (!inst.operands[1].constant && 8 * inst.operands[1].bytes < from.bits)
    return "the source is too narrow";
  return "";
}

// ---- Packed conversions: d's halves from two f32, or from a pair

const FloatFormat* PackedFormat(int32_t index) {
  static constexpr const FloatFormat* kFormats[] = {&kFormatF16, &kFormatBf16, &kFormatE4m3,
                                                    &kFormatE5m2, &kFormatTf32};
  return kFormats[index];
}
int32_t PackedIndex(std::string_view name) {
  if (name == ".f16x2") return 0;
  if (name == ".bf16x2") return 1;
  if (name == ".e4m3x2") return 2;
  return name == ".e5m2x2" ? 3 : 4;
}

double Relu(const Inst& inst, double value) {
  return inst.data[kRelu] && !(value > 0) && !std::isnan(value) ? 0.0 : value;
}

/// cvt.rn.f16x2.f32 d, a, b: a becomes the upper half.
void RunPack(Warp& warp, const Inst& inst, LaneMask mask) {
  const FloatFormat& format = *PackedFormat(inst.data[kTo]);
  const int width = 1 + format.exponent_bits + format.mantissa_bits;
  LaneView<float> a(warp, inst.operands[1]), b(warp, inst.operands[2]);
  const auto mode = static_cast<Rounding>(inst.data[kMode]);
  ForLanes(mask, [&](uint32_t lane) {
    const auto one = [&](float x) {
      return ConvertToFormat(Relu(inst, x), format, mode, inst.data[kSat] != 0);
    };
    warp.SetValue(inst.operands[0], lane, (one(a.Get(lane)) << width) | one(b.Get(lane)));
  });
}

/// cvt.rn.f16x2.e4m3x2 d, a and cvt.rn.satfinite.e4m3x2.f16x2 d, a.
void RunRepack(Warp& warp, const Inst& inst, LaneMask mask) {
  const FloatFormat& to = *PackedFormat(inst.data[kTo]);
  const FloatFormat& from = *PackedFormat(inst.data[kFrom]);
  const int wide = 1 + to.exponent_bits + to.mantissa_bits;
  const int narrow = 1 + from.exponent_bits + from.mantissa_bits;
  ForLanes(mask, [&](uint32_t lane) {
    const auto bits = static_cast<uint32_t>(warp.Value(inst.operands[1], lane));
    const auto one = [&](uint32_t half) {
      const uint32_t source = half & ((1u << narrow) - 1);
      return ConvertToFormat(Relu(inst, DecodeFormat(source, from)), to, Rounding::kNearest,
                             inst.data[kSat] != 0);
    };
    warp.SetValue(inst.operands[0], lane, (one(bits >> narrow) << wide) | one(bits));
  });
}

void RunTf32(Warp& warp, const Inst& inst, LaneMask mask) {
  const auto mode = static_cast<Rounding>(inst.data[kMode]);
  LaneView<float> a(warp, inst.operands[1]);
  ForLanes(mask, [&](uint32_t lane) {
    const double rounded =
        RoundToFormat(Relu(inst, a.Get(lane)), kFormatTf32, mode, inst.data[kSat] != 0);
    warp.SetValue(inst.operands[0], lane, BitsOf(static_cast<float>(rounded)));
  });
}

std::string BindPack(const Match& match, const Code&, Inst& inst) {
  const size_t n = match.groups.size();
  inst.data[kTo] = PackedIndex(match.groups[n - 2]);
  inst.data[kFrom] = PackedIndex(match.groups[n - 1]);
  BindModifiers(match, inst);
  return "";
}

// ---- Rows

void AddFastRows(Rows& rows) {
  rows.push_back(Lane("cvt.f32.f16", [](Half a) { return HalfToFloat(a.bits); }));
  rows.push_back(Lane("cvt.f32.bf16", [](Bf16 a) { return Bf16ToFloat(a.bits); }));
  rows.push_back(Lane("cvt.rn.f16.f32", [](float a) { return Half{FloatToHalf(a)}; }));
  rows.push_back(Lane("cvt.rn.bf16.f32", [](float a) { return Bf16{FloatToBf16(a)}; }));
  rows.push_back(Lane("cvt.rn.f16x2.f32",
                      [](float a, float b) { return Half2{FloatToHalf(b), FloatToHalf(a)}; }));
  rows.push_back(Lane("cvt.rn.bf16x2.f32",
                      [](float a, float b) { return Bf162{FloatToBf16(b), FloatToBf16(a)}; }));
  rows.push_back(Lane("cvt.u64.u32", [](uint32_t a) { return uint64_t{a}; }));
  rows.push_back(Lane("cvt.s64.s32", [](int32_t a) { return int64_t{a}; }));
  rows.push_back(Lane("cvt.rn.f32.s32", [](int32_t a) { return static_cast<float>(a); }));
  rows.push_back(Lane("cvt.rn.f32.u32", [](uint32_t a) { return static_cast<float>(a); }));
}

Rows MakeRows() {
  Rows rows;
  AddFastRows(rows);
  const std::string types =
      "(.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f16|.bf16|.f32|.f64)"
      "(.u8|.u16|.u32|.u64|.s8|.s16|.s32|.s64|.f16|.bf16|.f32|.f64)";
  rows.push_back({"cvt[.rn|.rz|.rm|.rp|.rni|.rzi|.rmi|.rpi][.relu][.ftz][.sat]" + types, "=x x",
                  RunConvert, BindConvert});
  rows.push_back(
      {"cvt(.rn|.rz)[.relu][.satfinite](.f16x2|.bf16x2)(.f32)", "=w w w", RunPack, BindPack});
  rows.push_back(
      {"cvt(.rn)[.satfinite][.relu](.e4m3x2|.e5m2x2)(.f32)", "=h w w", RunPack, BindPack});
  rows.push_back({"cvt(.rn)[.satfinite][.relu](.e4m3x2|.e5m2x2)(.f16x2|.bf16x2)", "=h w", RunRepack,
                  BindPack});
  rows.push_back({"cvt(.rn)[.relu](.f16x2|.bf16x2)(.e4m3x2|.e5m2x2)", "=w h", RunRepack, BindPack});
  rows.push_back({"cvt(.rna|.rn|.rz)[.satfinite][.relu](.tf32)(.f32)", "=w w", RunTf32, BindPack});
  return rows;
}

}  // namespace

std::span<const Row> ConvertRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

const float* E4m3Table() {
  static const auto kTable = [] {
    std::array<float, 256> table;
    for (uint32_t i = 0; i < 256; ++i) table[i] = static_cast<float>(DecodeFormat(i, kFormatE4m3));
    return table;
  }();
  return kTable.data();
}

const float* E5m2Table() {
  static const auto kTable = [] {
    std::array<float, 256> table;
    for (uint32_t i = 0; i < 256; ++i) table[i] = static_cast<float>(DecodeFormat(i, kFormatE5m2));
    return table;
  }();
  return kTable.data();
}

}  // namespace quern::ptx

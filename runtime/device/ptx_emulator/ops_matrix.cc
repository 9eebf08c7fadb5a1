// ldmatrix, stmatrix and mma.sync. PTX ISA 9.7.15.
//
// Sums of floats are float32, one product after the other along k, each rounded to nearest. The
// ISA leaves order and rounding open: hardware adds a few products at a time and drops what lies
// far below the largest, and keeps fewer bits of sums of fp8 products than float32 has. So results
// agree within a bound of the sum of magnitudes, not bit for bit.
#include <algorithm>
#include <cstring>

#include "runtime/device/ptx_emulator/elements.h"
#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

const Operand& Element(const Warp& warp, const Operand& vector, uint32_t i) {
  return vector.kind == Operand::Kind::kVector
             ? warp.cta().context().code->elements[vector.first + i]
             : vector;
}

/// Rows of 16 bytes; lane 8 i + r gives the address of row r of matrix i. A lane holds elements
/// (row lane / 4, columns 2 (lane % 4), + 1), or of the transpose.
void MoveMatrices(Warp& warp, const Inst& inst, LaneMask mask, bool load) {
  if (!warp.NeedAll(mask, load ? "ldmatrix" : "stmatrix")) return;
  const Operand& registers = inst.operands[load ? 0 : 1];
  const Operand& address = inst.operands[load ? 1 : 0];
  const auto count = static_cast<uint32_t>(inst.data[0]);
  const bool transposed = inst.data[1];
  uint8_t* rows[32];
  for (uint32_t lane = 0; lane < 8 * count; ++lane) {
    const uint64_t at = warp.Address(address, lane);
    rows[lane] = inst.data[2]
                     ? warp.Access(Space::kGeneric, at, 16, 16, lane,
                                   load ? AccessKind::kRead : AccessKind::kWrite)
                     : warp.Shared(at, 16, 16, lane, load ? AccessKind::kRead : AccessKind::kWrite);
    if (!rows[lane]) return;
  }
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t* values = warp.Lanes<uint32_t>(Element(warp, registers, i));
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t major = lane / 4, minor = lane % 4 * 2 + half;
        const uint32_t row = transposed ? minor : major, column = transposed ? major : minor;
        uint8_t* element = rows[8 * i + row] + 2 * column;
        auto* place = reinterpret_cast<uint8_t*>(&values[lane]) + 2 * half;
        if (load)
          std::memcpy(place, element, 2);
        else
          std::memcpy(element, place, 2);
      }
  }
}

void RunLdmatrix(Warp& warp, const Inst& inst, LaneMask mask) {
  MoveMatrices(warp, inst, mask, true);
}
void RunStmatrix(Warp& warp, const Inst& inst, LaneMask mask) {
  MoveMatrices(warp, inst, mask, false);
}

std::string BindMoveMatrices(const Match& match, const Code& code, Inst& inst) {
  inst.data[0] = match.Has(".x4") ? 4 : match.Has(".x2") ? 2 : 1;
  inst.data[1] = match.Has(".trans");
  inst.data[2] = !match.Has(".shared") && !match.Has(".shared::cta");
  for (const Operand& operand : inst.operands) {
    if (operand.kind == Operand::Kind::kLanes && (inst.data[0] != 1 || operand.bytes != 4))
      return "expected a vector of 32-bit registers";
    if (operand.kind != Operand::Kind::kVector) continue;
    if (operand.count != static_cast<uint32_t>(inst.data[0])) return "a vector of wrong length";
    for (uint32_t i = 0; i < operand.count; ++i)
      if (code.elements[operand.first + i].bytes != 4) return "expected 32-bit registers";
  }
  return "";
}

/// movmatrix.sync.aligned.m8n8.trans.b16 d, a: the transpose, across lanes.
void RunMovmatrix(Warp& warp, const Inst& inst, LaneMask mask) {
  if (!warp.NeedAll(mask, "movmatrix")) return;
  uint32_t* d = warp.Lanes<uint32_t>(inst.operands[0]);
  const uint32_t* a = warp.Lanes<uint32_t>(inst.operands[1]);
  uint32_t result[kLanes];
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    const auto at = [&](uint32_t row, uint32_t column) {
      return (a[row * 4 + column / 2] >> (16 * (column % 2))) & 0xffff;
    };
    const uint32_t row = lane / 4, column = lane % 4 * 2;
    result[lane] = at(column, row) | at(column + 1, row) << 16;
  }
  std::memcpy(d, result, sizeof result);
}

// ---- mma.sync.m16n8kK

enum Data { kDepth, kTypeA, kTypeB, kAccumulator, kSaturate };
enum Accumulator { kFloat, kHalf, kInteger };

constexpr uint32_t kRows = 16, kColumns = 8, kMostDepth = 32;

/// Registers hold runs of `per` = 32 / bits elements along k. Register 2 b + h of A: row
/// lane / 4 + 8 h, k = 4 per b + (lane % 4) per + i. Register b of B: the same k, column lane / 4.
template <class T, class TypeA, class TypeB>
void LoadFragmentsOf(TypeA type_a, TypeB type_b, Warp& warp, const Inst& inst, T* a, T* b) {
  const auto depth = static_cast<uint32_t>(inst.data[kDepth]);
  const uint32_t per = 4 / MatrixTypeBytes(type_a), blocks = depth / (4 * per);
  for (uint32_t block = 0; block < blocks; ++block) {
    const uint32_t* low = warp.Lanes<uint32_t>(Element(warp, inst.operands[1], 2 * block));
    const uint32_t* high = warp.Lanes<uint32_t>(Element(warp, inst.operands[1], 2 * block + 1));
    const uint32_t* column = warp.Lanes<uint32_t>(Element(warp, inst.operands[2], block));
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const uint32_t group = lane / 4, k = 4 * per * block + lane % 4 * per;
      for (uint32_t i = 0; i < per; ++i) {
        a[group * depth + k + i] = static_cast<T>(MatrixElement(type_a, low[lane], i));
        a[(group + 8) * depth + k + i] = static_cast<T>(MatrixElement(type_a, high[lane], i));
        b[(k + i) * kColumns + group] = static_cast<T>(MatrixElement(type_b, column[lane], i));
      }
    }
  }
}

/// Element i of the accumulator of `lane`: row lane / 4 + 8 (i / 2), column 2 (lane % 4) + i % 2.
constexpr uint32_t AccumulatorIndex(uint32_t lane, uint32_t i) {
  return (lane / 4 + 8 * (i / 2)) * kColumns + lane % 4 * 2 + i % 2;
}

/// Accumulators: float32, or int32 computed with 64 bits and then wrapped or saturated.
template <class T>
T FromWord(uint32_t word) {
  if constexpr (std::is_same_v<T, float>)
    return FloatOf(word);
  else
    return static_cast<int32_t>(word);
}
template <class T>
uint32_t ToWord(T value, bool saturate) {
  if constexpr (std::is_same_v<T, float>)
    return BitsOf(value);
  else
    return static_cast<uint32_t>(saturate ? std::clamp<T>(value, INT32_MIN, INT32_MAX) : value);
}

/// The commonest type is a constant: the loops need not ask for it.
template <class T>
void LoadFragments(Warp& warp, const Inst& inst, T* a, T* b) {
  using F16 = std::integral_constant<MatrixType, MatrixType::kF16>;
  const auto type_a = static_cast<MatrixType>(inst.data[kTypeA]);
  const auto type_b = static_cast<MatrixType>(inst.data[kTypeB]);
  if (type_a == MatrixType::kF16)  // Then both are: BindMma sees to it.
    LoadFragmentsOf(F16(), F16(), warp, inst, a, b);
  else
    LoadFragmentsOf(type_a, type_b, warp, inst, a, b);
}

template <class T>
void RunMma(Warp& warp, const Inst& inst, LaneMask mask) {
  if (!warp.NeedAll(mask, "mma.sync")) return;
  T a[kRows * kMostDepth], b[kMostDepth * kColumns], c[kRows * kColumns];
  LoadFragments(warp, inst, a, b);
  const bool half = inst.data[kAccumulator] == kHalf;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t* from = warp.Lanes<uint32_t>(Element(warp, inst.operands[3], half ? i / 2 : i));
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      c[AccumulatorIndex(lane, i)] =
          half ? static_cast<T>(HalfToFloat(static_cast<uint16_t>(from[lane] >> (16 * (i % 2)))))
               : FromWord<T>(from[lane]);
  }
  MultiplyAdd(a, b, c, kRows, kColumns, static_cast<uint32_t>(inst.data[kDepth]));
  for (uint32_t i = 0; i < 4; ++i) {
    uint32_t* to = warp.Lanes<uint32_t>(Element(warp, inst.operands[0], half ? i / 2 : i));
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const T value = c[AccumulatorIndex(lane, i)];
      if (!half) {
        to[lane] = ToWord(value, inst.data[kSaturate] != 0);
      } else {
        const uint32_t bits = FloatToHalf(static_cast<float>(value));
        to[lane] = i % 2 ? (to[lane] & 0xffff) | bits << 16 : (to[lane] & 0xffff0000) | bits;
      }
    }
  }
}

std::string CheckRegisters(const Code& code, const Operand& operand, uint32_t count) {
  if (operand.kind != Operand::Kind::kVector && count != 1) return "expected a vector of registers";
  if (operand.kind == Operand::Kind::kVector && operand.count != count)
    return "a vector of " + std::to_string(operand.count) + " registers; " + std::to_string(count) +
           " are wanted";
  for (uint32_t i = 0; i < operand.count; ++i)
    if (code.elements[operand.first + i].bytes != 4) return "expected 32-bit registers";
  return "";
}

/// Groups: shape, [satfinite], type of d, a, b, c.
std::string BindMma(const Match& match, const Code& code, Inst& inst) {
  const size_t n = match.groups.size();
  inst.data[kDepth] = std::stoi(std::string(match.groups[0].substr(match.groups[0].find('k') + 1)));
  const std::string_view d = match.groups[n - 4], c = match.groups[n - 1];
  const MatrixType a = MatrixTypeOf(match.groups[n - 3]), b = MatrixTypeOf(match.groups[n - 2]);
  if (c != d) return "accumulators of two types";
  inst.data[kTypeA] = static_cast<int32_t>(a);
  inst.data[kTypeB] = static_cast<int32_t>(b);
  inst.data[kAccumulator] = d == ".s32" ? kInteger : d == ".f16" ? kHalf : kFloat;
  const bool integer = a == MatrixType::kS8 || a == MatrixType::kU8;
  if (integer != (d == ".s32")) return "operands and accumulator do not go together";
  if (d == ".f16" && (a == MatrixType::kBf16 || a == MatrixType::kTf32))
    return "this type needs .f32 accumulators";
  const uint32_t bytes = MatrixTypeBytes(a), depth = static_cast<uint32_t>(inst.data[kDepth]);
  if (MatrixTypeBytes(b) != bytes || (bytes != 1 && a != b)) return "operands of two types";
  const uint32_t blocks = depth * bytes / 16;
  if (blocks != 1 && blocks != 2) return "this shape does not go with this type";
  inst.data[kSaturate] = match.Has(".satfinite");
  inst.execute = integer ? RunMma<int64_t> : RunMma<float>;
  const uint32_t accumulators = inst.data[kAccumulator] == kHalf ? 2 : 4;
  for (const auto& [operand, count] :
       {std::pair(0, accumulators), {1, 2 * blocks}, {2, blocks}, {3, accumulators}}) {
    const std::string problem = CheckRegisters(code, inst.operands[operand], count);
    if (!problem.empty()) return problem;
  }
  return "";
}

}  // namespace

std::span<const Row> MatrixRows() {
  static const Rows kRows = [] {
    Rows rows;
    rows.push_back({"ldmatrix.sync.aligned.m8n8(.x1|.x2|.x4)[.trans][.shared|.shared::cta].b16",
                    "=m a", RunLdmatrix, BindMoveMatrices});
    rows.push_back({"stmatrix.sync.aligned.m8n8(.x1|.x2|.x4)[.trans][.shared|.shared::cta].b16",
                    "a m", RunStmatrix, BindMoveMatrices});
    rows.push_back({"movmatrix.sync.aligned.m8n8.trans.b16", "=w w", RunMovmatrix, nullptr});
    rows.push_back(
        {"mma.sync.aligned(.m16n8k4|.m16n8k8|.m16n8k16|.m16n8k32).row.col[.satfinite]"
         "(.f32|.f16|.s32)(.f16|.bf16|.tf32|.e4m3|.e5m2|.s8|.u8)"
         "(.f16|.bf16|.tf32|.e4m3|.e5m2|.s8|.u8)(.f32|.f16|.s32)",
         "=m m m m", RunMma<float>, BindMma});
    return rows;
  }();
  return kRows;
}

}  // namespace quern::ptx

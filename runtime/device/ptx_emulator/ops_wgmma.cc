// wgmma: matrix products of a warpgroup, from shared memory or registers. PTX ISA 9.7.15.5. Each
// warp of the group computes its own 16 rows, when it waits for them.
#include <algorithm>
#include <cstring>

#include "runtime/device/ptx_emulator/elements.h"
#include "runtime/device/ptx_emulator/matrix_descriptor.h"
#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

enum Data { kColumns, kDepth, kTypeA, kTypeB, kHalfAccumulator, kTransposeA, kTransposeB, kNegate };
constexpr uint32_t kRows = 16;

const Operand& Element(const Code& code, const Operand& vector, uint32_t i) {
  return code.elements[vector.first + i];
}

/// A fragment in registers: register r holds rows lane / 4 + 8 (r % 2), as mma.sync has it.
void RegisterA(Warp& warp, const Inst& inst, float* a) {
  const Code& code = *warp.cta().context().code;
  const auto type = static_cast<MatrixType>(inst.data[kTypeA]);
  const auto depth = static_cast<uint32_t>(inst.data[kDepth]);
  const uint32_t per = 4 / MatrixTypeBytes(type);
  for (uint32_t r = 0; r < 4; ++r) {
    const uint32_t* from = warp.Lanes<uint32_t>(Element(code, inst.operands[1], r));
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      for (uint32_t i = 0; i < per; ++i)
        a[(lane / 4 + 8 * (r % 2)) * depth + r / 2 * 4 * per + lane % 4 * per + i] =
            MatrixElement(type, from[lane], i);
  }
}

/// Element i of the accumulator of `lane`: row lane / 4 + 8 (i / 2 % 2), column
/// 8 (i / 4) + 2 (lane % 4) + i % 2.
uint32_t AccumulatorIndex(uint32_t lane, uint32_t i, uint32_t columns) {
  return (lane / 4 + 8 * (i / 2 % 2)) * columns + i / 4 * 8 + lane % 4 * 2 + i % 2;
}

void MoveAccumulators(Warp& warp, const Inst& inst, float* c, bool load) {
  const Code& code = *warp.cta().context().code;
  const auto columns = static_cast<uint32_t>(inst.data[kColumns]);
  const bool half = inst.data[kHalfAccumulator];
  for (uint32_t i = 0; i < columns / 2; ++i) {
    uint32_t* lanes = warp.Lanes<uint32_t>(Element(code, inst.operands[0], half ? i / 2 : i));
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      float& value = c[AccumulatorIndex(lane, i, columns)];
      const uint32_t shift = half ? 16 * (i % 2) : 0;
      if (load)
        value =
            half ? HalfToFloat(static_cast<uint16_t>(lanes[lane] >> shift)) : FloatOf(lanes[lane]);
      else if (!half)
        lanes[lane] = BitsOf(value);
      else
        lanes[lane] = (lanes[lane] & ~(0xffffu << shift)) | uint32_t{FloatToHalf(value)} << shift;
    }
  }
}

void Perform(Warp& warp, const PendingWgmma& pending) {
  const Inst& inst = *pending.inst;
  const auto columns = static_cast<uint32_t>(inst.data[kColumns]);
  const auto depth = static_cast<uint32_t>(inst.data[kDepth]);
  thread_local std::vector<float> a, b, c;
  a.resize(kRows * depth), b.resize(size_t{depth} * columns);
  c.assign(kRows * columns, 0.0f);
  const bool from_registers = inst.operands[1].kind == Operand::Kind::kVector;
  if (from_registers) {
    RegisterA(warp, inst, a.data());
  } else {
    const SharedMatrix matrix(pending.a, static_cast<MatrixType>(inst.data[kTypeA]),
                              inst.data[kTransposeA] != 0);
    matrix.Read(warp.cta().shared.data(), warp.id() % 4 * kRows, kRows, depth, a.data(), depth, 1);
  }
  const SharedMatrix matrix(pending.b, static_cast<MatrixType>(inst.data[kTypeB]),
                            inst.data[kTransposeB] != 0);
  matrix.Read(warp.cta().shared.data(), 0, columns, depth, b.data(), 1, columns);
  if (inst.data[kNegate])
    for (float& x : a) x = -x;
  if (pending.accumulate) MoveAccumulators(warp, inst, c.data(), true);
  MultiplyAdd(a.data(), b.data(), c.data(), kRows, columns, depth);
  MoveAccumulators(warp, inst, c.data(), false);
}

/// Faults unless the matrix lies in shared memory; notes what the async proxy reads.
bool CheckShared(Warp& warp, uint64_t descriptor, MatrixType type, bool transposed, uint32_t first,
                 uint32_t rows, uint32_t depth) {
  const SharedMatrix matrix(descriptor, type, transposed);
  if (!matrix.problem().empty()) return warp.Fault(matrix.problem()), false;
  bool inside = true;
  matrix.ForEachUnit(first, rows, depth, [&](uint32_t address, uint32_t, uint32_t) {
    inside =
        inside && warp.Shared(address, 16, 16, kLanes, AccessKind::kRead, RaceCheck::Proxy::kAsync);
  });
  return inside;
}

void CheckFence(Warp& warp, const Inst& inst) {
  RaceCheck* races = warp.cta().races.get();
  if (!races) return;
  if (!warp.wgmma_fenced)
    races->Report("missing-fence", inst.line, 0,
                  "the wgmma of line " + std::to_string(inst.line) +
                      " needs a wgmma.fence before the first one");
  const Code& code = *warp.cta().context().code;
  for (int i : {0, 1}) {
    const Operand& operand = inst.operands[i];
    if (operand.kind != Operand::Kind::kVector) continue;
    for (uint32_t e = 0; e < operand.count; ++e) {
      const auto slot = static_cast<uint32_t>(Element(code, operand, e).slot) / 128;
      if (warp.wgmma_dirty[slot])
        races->Report("missing-fence", inst.line, warp.wgmma_dirty[slot],
                      "register " + code.register_names[slot] + " of the wgmma of line " +
                          std::to_string(inst.line) + " was used at line " +
                          std::to_string(warp.wgmma_dirty[slot]) + " with no wgmma.fence between");
    }
  }
}

void RunWgmma(Warp& warp, const Inst& inst, LaneMask mask) {
  if (!warp.NeedAll(mask, "wgmma")) return;
  CheckFence(warp, inst);
  const bool from_registers = inst.operands[1].kind == Operand::Kind::kVector;
  const uint64_t a = from_registers ? 0 : warp.Value(inst.operands[1], 0);
  const uint64_t b = warp.Value(inst.operands[2], 0);
  const auto depth = static_cast<uint32_t>(inst.data[kDepth]);
  if (!from_registers &&
      !CheckShared(warp, a, static_cast<MatrixType>(inst.data[kTypeA]), inst.data[kTransposeA] != 0,
                   warp.id() % 4 * kRows, kRows, depth))
    return;
  if (!CheckShared(warp, b, static_cast<MatrixType>(inst.data[kTypeB]), inst.data[kTransposeB] != 0,
                   0, static_cast<uint32_t>(inst.data[kColumns]), depth))
    return;
  const bool accumulate = warp.Predicate(inst.operands[3]) & 1;
  warp.wgmmas.push_back({&inst, a, b, accumulate, warp.wgmma_groups, 0});
}

void RunFence(Warp& warp, const Inst&, LaneMask mask) {
  if (!warp.NeedAll(mask, "wgmma.fence")) return;
  warp.wgmma_fenced = true;
  std::fill(warp.wgmma_dirty.begin(), warp.wgmma_dirty.end(), 0);
}

void RunCommit(Warp& warp, const Inst&, LaneMask mask) {
  if (!warp.NeedAll(mask, "wgmma.commit_group")) return;
  ++warp.wgmma_groups;
  warp.wgmma_times.push_back(warp.cta().races ? warp.cta().races->now() : 0);
  ++warp.cluster().events;
}

/// The four warps of a warpgroup compute together: when one has waited for a group, the group's
/// reads by the others are over too. False: one of them has not issued it yet.
bool WarpgroupDone(Warp& warp, uint32_t groups) {
  const auto& warps = warp.cta().warps;
  const size_t first = warp.id() / 4 * 4;
  for (size_t i = first; i < std::min(first + 4, warps.size()); ++i)
    if (warps[i]->wgmma_groups < groups) return false;
  if (RaceCheck* races = warp.cta().races.get(); races && groups > 0)
    for (size_t i = first; i < std::min(first + 4, warps.size()); ++i)
      races->Order(warp.id(), static_cast<uint32_t>(i), warps[i]->wgmma_times[groups - 1]);
  return true;
}

void RunWait(Warp& warp, const Inst& inst, LaneMask mask) {
  if (!warp.NeedAll(mask, "wgmma.wait_group")) return;
  const auto allowed = static_cast<uint32_t>(inst.operands[0].value);
  const uint32_t done = warp.wgmma_groups - std::min(warp.wgmma_groups, allowed);
  if (!WarpgroupDone(warp, done)) {
    warp.retry = true;
    return warp.Yield("the other warps of the warpgroup to issue wgmma group", done);
  }
  while (!warp.wgmmas.empty() && warp.wgmmas.front().group < done) {
    Perform(warp, warp.wgmmas.front());
    warp.wgmmas.pop_front();
  }
}

/// Groups: shape, type of d, a, b. Operands: d, a, b, scale-d, imm-scale-a,
/// imm-scale-b [, [trans-a,] trans-b].
std::string BindWgmma(const Match& match, const Code& code, Inst& inst) {
  const std::string shape(match.groups[0]);
  const size_t n = shape.find('n'), k = shape.find('k'), last = match.groups.size();
  const MatrixType a = MatrixTypeOf(match.groups[last - 2]),
                   b = MatrixTypeOf(match.groups[last - 1]);
  const std::string_view d = match.groups[last - 3];
  inst.data[kColumns] = std::stoi(shape.substr(n + 1));
  inst.data[kDepth] = std::stoi(shape.substr(k + 1));
  inst.data[kTypeA] = static_cast<int32_t>(a);
  inst.data[kTypeB] = static_cast<int32_t>(b);
  inst.data[kHalfAccumulator] = d == ".f16";
  const uint32_t bytes = MatrixTypeBytes(a);
  if (MatrixTypeBytes(b) != bytes || (bytes != 1 && a != b)) return "operands of two types";
  if (static_cast<uint32_t>(inst.data[kDepth]) * bytes != 32)
    return "this shape does not go with this type";
  const bool from_registers = inst.operands[1].kind == Operand::Kind::kVector;
  const uint32_t wanted = static_cast<uint32_t>(inst.data[kColumns]) / (d == ".f16" ? 4 : 2);
  for (const auto& [operand, count] : {std::pair(0, wanted), {1, 4u}}) {
    const Operand& vector = inst.operands[operand];
    if (operand == 1 && !from_registers) continue;
    if (vector.kind != Operand::Kind::kVector || vector.count != count)
      return "expected a vector of " + std::to_string(count) + " registers";
    for (uint32_t i = 0; i < count; ++i)
      if (Element(code, vector, i).bytes != 4) return "expected 32-bit registers";
  }
  if (!from_registers && inst.operands[1].bytes != 8) return "expected a 64-bit matrix descriptor";
  for (int i : {4, 5}) {
    const auto scale = static_cast<int64_t>(inst.operands[i].value);
    if (scale != 1 && scale != -1) return "imm-scale must be 1 or -1";
    if (scale == -1) inst.data[kNegate] ^= 1;
  }
  const size_t transposes = bytes == 2 ? (from_registers ? 1 : 2) : 0;
  for (size_t i = 0; i < 2; ++i) {
    const Operand& operand = inst.operands[6 + i];
    if ((i < transposes) != (operand.kind != Operand::Kind::kNone))
      return "wrong number of transpose operands";
    if (i >= transposes) continue;
    const bool is_b = i + 1 == transposes;
    inst.data[is_b ? kTransposeB : kTransposeA] = operand.value != 0;
  }
  return "";
}

std::string Shapes() {
  std::string shapes = "(";
  for (const char* depth : {"k8", "k16", "k32"})
    for (int n = 8; n <= 256; n += 8)
      shapes += (shapes.size() > 1 ? "|.m64n" : ".m64n") + std::to_string(n) + depth;
  return shapes + ")";
}

}  // namespace

std::span<const Row> WgmmaRows() {
  static const Rows kRows = {
      {"wgmma.mma_async.sync.aligned" + Shapes() +
           "(.f32|.f16)(.f16|.bf16|.tf32|.e4m3|.e5m2)(.f16|.bf16|.tf32|.e4m3|.e5m2)",
       "=m m l p i i i? i?", RunWgmma, BindWgmma},
      {"wgmma.fence.sync.aligned", "", RunFence, nullptr},
      {"wgmma.commit_group.sync.aligned", "", RunCommit, nullptr},
      {"wgmma.wait_group.sync.aligned", "i", RunWait, nullptr},
  };
  return kRows;
}

}  // namespace quern::ptx

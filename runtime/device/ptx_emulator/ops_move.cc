// mov, and address arithmetic between state spaces. PTX ISA 9.7.9.
#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

/// mov.b32 %r, {%h0, %h1} packs, the reverse unpacks.
void RunMove(Warp& warp, const Inst& inst, LaneMask mask) {
  const Operand& d = inst.operands[0];
  const Operand& a = inst.operands[1];
  const auto* elements = warp.cta().context().code->elements.data();
  const uint32_t width = static_cast<uint32_t>(inst.data[0]);  // Bytes of the whole.
  if (d.kind == Operand::Kind::kVector) {
    const uint32_t bits = 8 * width / d.count;
    ForLanes(mask, [&](uint32_t lane) {
      const uint64_t value = warp.Value(a, lane);
      for (uint32_t i = 0; i < d.count; ++i)
        warp.SetValue(elements[d.first + i], lane,
                      (value >> (bits * i)) & ((uint64_t{1} << bits) - 1));
    });
  } else if (a.kind == Operand::Kind::kVector) {
    const uint32_t bits = 8 * width / a.count;
    ForLanes(mask, [&](uint32_t lane) {
      uint64_t value = 0;
      for (uint32_t i = 0; i < a.count; ++i)
        value |= (warp.Value(elements[a.first + i], lane) & ((uint64_t{1} << bits) - 1))
                 << (bits * i);
      warp.SetValue(d, lane, value);
    });
  } else if (d.bytes == 4) {
    uint32_t* to = warp.Lanes<uint32_t>(d);
    const uint32_t* from = warp.Lanes<uint32_t>(a);  // Little-endian: also the low half of 64 bits.
    if (a.bytes == 8)
      ForLanes(mask, [&](uint32_t lane) { to[lane] = static_cast<uint32_t>(warp.Value(a, lane)); });
    else
      ForLanes(mask, [&](uint32_t lane) { to[lane] = from[lane]; });
  } else {
    ForLanes(mask, [&](uint32_t lane) { warp.SetValue(d, lane, warp.Value(a, lane)); });
  }
}

std::string BindMove(const Match& match, const Code& code, Inst& inst) {
  const auto width = static_cast<uint32_t>(TypeBytes(match.Last()));
  inst.data[0] = static_cast<int32_t>(width);
  for (int i : {0, 1}) {
    const Operand& operand = inst.operands[i];
    if (operand.kind == Operand::Kind::kVector) {
      if (operand.count < 2 || width % operand.count) return "a vector of wrong length";
      for (uint32_t e = 0; e < operand.count; ++e)
        if (code.elements[operand.first + e].bytes < width / operand.count)
          return "elements of the wrong width";
    } else if (!operand.constant && operand.bytes < width) {
      return "operands of the wrong width";
    }
  }
  return "";
}

uint64_t WindowOf(std::string_view space) {
  if (space.starts_with(".shared")) return kSharedWindow;
  if (space == ".local") return kLocalWindow;
  return space.starts_with(".param") ? kParamWindow : 0;
}

/// data[0]: the top byte of the window; data[1]: to the space, not from it.
void RunCvta(Warp& warp, const Inst& inst, LaneMask mask) {
  const uint64_t window = static_cast<uint64_t>(inst.data[0]) << 56;
  ForLanes(mask, [&](uint32_t lane) {
    uint64_t address = warp.Value(inst.operands[1], lane);
    if (inst.data[1])
      address &= window ? ~kWindowMask : ~uint64_t{0};
    else
      address |= window;
    warp.SetValue(inst.operands[0], lane, address);
  });
}

std::string BindCvta(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = static_cast<int32_t>(WindowOf(match.groups[1]) >> 56);
  inst.data[1] = match.Has(".to");
  return "";
}

void RunIsspacep(Warp& warp, const Inst& inst, LaneMask mask) {
  LaneMask result = 0;
  ForLanes(mask, [&](uint32_t lane) {
    const uint64_t window = warp.Value(inst.operands[1], lane) & kWindowMask;
    result |= LaneMask{window == static_cast<uint64_t>(inst.data[0]) << 56} << lane;
  });
  warp.SetPredicate(inst.operands[0], result, mask);
}

std::string BindIsspacep(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = static_cast<int32_t>(WindowOf(match.groups[0]) >> 56);
  return "";
}

/// mapa d, a, rank: the address of CTA `rank`'s copy of the shared variable at a.
void RunMapa(Warp& warp, const Inst& inst, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) {
    const uint64_t address = warp.Value(inst.operands[1], lane);
    const uint64_t rank = warp.Value(inst.operands[2], lane);
    if (rank >= warp.cluster().ctas.size())
      return warp.Fault("no CTA of rank " + std::to_string(rank) + " in the cluster", lane);
    const uint64_t offset = address & ((uint64_t{1} << kSharedRankShift) - 1);
    warp.SetValue(inst.operands[0], lane,
                  (address & kWindowMask) | ((rank + 1) << kSharedRankShift) | offset);
  });
}

void RunGetctarank(Warp& warp, const Inst& inst, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) {
    const uint64_t rank = (warp.Value(inst.operands[1], lane) & ~kWindowMask) >> kSharedRankShift;
    warp.SetValue(inst.operands[0], lane, rank ? rank - 1 : warp.cta().rank());
  });
}

void RunZero(Warp& warp, const Inst& inst, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) { warp.SetValue(inst.operands[0], lane, 0); });
}

Rows MakeRows() {
  Rows rows;
  rows.push_back(
      {"mov(.b16|.u16|.s16|.f16|.bf16|.b32|.u32|.s32|.f32|.f16x2|.bf16x2|.b64|.u64|.s64|.f64)",
       "=m m", RunMove, BindMove});
  rows.push_back(Lane("mov.pred", [](bool a) { return a; }));
  rows.push_back(
      {"cvta[.to](.global|.shared|.shared::cta|.shared::cluster|.local|.const|.param|"
       ".param::entry)(.u64|.u32)",
       "=x x", RunCvta, BindCvta});
  rows.push_back(
      {"isspacep(.global|.shared|.shared::cta|.local|.param)", "=p l", RunIsspacep, BindIsspacep});
  rows.push_back({"mapa[.shared::cluster](.u32|.u64)", "=x x w", RunMapa, nullptr});
  rows.push_back({"getctarank[.shared::cluster](.u32|.u64)", "=w x", RunGetctarank, nullptr});
  // Cache policies are hints: any value will do.
  rows.push_back(
      {"createpolicy.fractional(.L2::evict_last|.L2::evict_first|.L2::evict_normal|"
       ".L2::evict_unchanged)[.L2::evict_unchanged|.L2::evict_first].b64",
       "=l x?", RunZero, nullptr});
  return rows;
}

}  // namespace

std::span<const Row> MoveRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

}  // namespace quern::ptx

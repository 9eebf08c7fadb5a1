// Instructions that exchange values between the lanes of a warp. PTX ISA 9.7.9, 9.7.14.
#include <bit>

#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

/// The lanes that take part: those the operand names. All of them must be here.
bool Members(Warp& warp, const Operand& operand, LaneMask mask, LaneMask& members) {
  members =
      static_cast<LaneMask>(warp.Value(operand, static_cast<uint32_t>(std::countr_zero(mask))));
  const LaneMask missing = members & warp.live & ~mask;
  if (missing) {
    warp.Fault("the member mask names lane " + std::to_string(std::countr_zero(missing)) +
               ", which has not come here");
    return false;
  }
  if (mask & ~members) {
    const LaneMask outside = mask & ~members;
    warp.Fault("lane " + std::to_string(std::countr_zero(outside)) +
               " executes it but is not in the member mask");
    return false;
  }
  return true;
}

enum Shuffle { kUp, kDown, kBfly, kIdx };

/// shfl.sync d|p, a, b, c, members. Segment and clamp as the ISA defines them.
void RunShuffle(Warp& warp, const Inst& inst, LaneMask mask) {
  LaneMask members;
  if (!Members(warp, inst.operands[5], mask, members)) return;
  const uint32_t* a = warp.Lanes<uint32_t>(inst.operands[2]);
  const uint32_t* b = warp.Lanes<uint32_t>(inst.operands[3]);
  const uint32_t* c = warp.Lanes<uint32_t>(inst.operands[4]);
  uint32_t result[kLanes];
  LaneMask valid = 0;
  ForLanes(mask, [&](uint32_t lane) {
    const auto at = static_cast<int32_t>(lane);
    const int32_t step = static_cast<int32_t>(b[lane] & 31);
    const uint32_t segment = (c[lane] >> 8) & 31, clamp = c[lane] & 31;
    const auto most = static_cast<int32_t>((lane & segment) | (clamp & ~segment));
    const auto least = static_cast<int32_t>(lane & segment);
    int32_t from = at;
    bool inside = false;
    switch (inst.data[0]) {
      case kUp:
        from = at - step, inside = from >= most;
        break;
      case kDown:
        from = at + step, inside = from <= most;
        break;
      case kBfly:
        from = at ^ step, inside = from <= most;
        break;
      default:
        from = least | (step & static_cast<int32_t>(~segment)), inside = from <= most;
        break;
    }
    if (!inside) from = at;
    if (!((mask >> from) & 1))
      return warp.Fault("shfl reads lane " + std::to_string(from) + ", which does not take part",
                        lane);
    result[lane] = a[from];
    valid |= LaneMask{inside} << lane;
  });
  if (warp.Faulted()) return;
  uint32_t* d = warp.Lanes<uint32_t>(inst.operands[0]);
  ForLanes(mask, [&](uint32_t lane) { d[lane] = result[lane]; });
  if (inst.operands[1].kind == Operand::Kind::kPredicate)
    warp.SetPredicate(inst.operands[1], valid, mask);
}

std::string BindShuffle(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = match.Has(".up")     ? kUp
                 : match.Has(".down") ? kDown
                 : match.Has(".bfly") ? kBfly
                                      : kIdx;
  return "";
}

enum Vote { kAll, kAny, kUni, kBallot };

void RunVote(Warp& warp, const Inst& inst, LaneMask mask) {
  LaneMask members;
  if (!Members(warp, inst.operands[2], mask, members)) return;
  const LaneMask bits = warp.Predicate(inst.operands[1]) & mask;
  if (inst.data[0] == kBallot) {
    uint32_t* d = warp.Lanes<uint32_t>(inst.operands[0]);
    return ForLanes(mask, [&](uint32_t lane) { d[lane] = bits; });
  }
  const bool result = inst.data[0] == kAll   ? bits == mask
                      : inst.data[0] == kAny ? bits != 0
                                             : bits == 0 || bits == mask;
  warp.SetPredicate(inst.operands[0], result ? kAllLanes : 0, mask);
}

std::string BindVote(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = match.Has(".all")   ? kAll
                 : match.Has(".any") ? kAny
                 : match.Has(".uni") ? kUni
                                     : kBallot;
  return "";
}

enum Reduction { kAdd, kMin, kMax, kAnd, kOr, kXor };

/// data[0]: Reduction; data[1]: signed; data[2]: float with |x| (1: .abs) ; data[3]: float.
void RunRedux(Warp& warp, const Inst& inst, LaneMask mask) {
  LaneMask members;
  if (!Members(warp, inst.operands[2], mask, members)) return;
  const uint32_t* a = warp.Lanes<uint32_t>(inst.operands[1]);
  bool first = true;
  uint32_t result = 0;
  const auto less = [&](uint32_t x, uint32_t y) {
    return inst.data[1] ? static_cast<int32_t>(x) < static_cast<int32_t>(y) : x < y;
  };
  ForLanes(mask, [&](uint32_t lane) {
    const uint32_t x = a[lane];
    if (first)
      result = x;
    else
      switch (inst.data[0]) {
        case kAdd:
          result += x;
          break;
        case kMin:
          result = less(x, result) ? x : result;
          break;
        case kMax:
          result = less(result, x) ? x : result;
          break;
        case kAnd:
          result &= x;
          break;
        case kOr:
          result |= x;
          break;
        default:
          result ^= x;
          break;
      }
    first = false;
  });
  uint32_t* d = warp.Lanes<uint32_t>(inst.operands[0]);
  ForLanes(mask, [&](uint32_t lane) { d[lane] = result; });
}

std::string BindRedux(const Match& match, const Code&, Inst& inst) {
  constexpr std::string_view kNames[] = {".add", ".min", ".max", ".and", ".or", ".xor"};
  for (int i = 0; i < 6; ++i)
    if (match.Has(kNames[i])) inst.data[0] = i;
  inst.data[1] = match.Has(".s32");
  if (match.Has(".b32") != (inst.data[0] >= kAnd)) return "operation and type do not go together";
  return "";
}

/// match.any: the lanes that hold the same value. match.all: the members, if all agree.
void RunMatch(Warp& warp, const Inst& inst, LaneMask mask) {
  const bool all = inst.data[0];
  LaneMask members;
  if (!Members(warp, inst.operands[3], mask, members)) return;
  uint32_t* d = warp.Lanes<uint32_t>(inst.operands[0]);
  LaneMask same[kLanes] = {};
  ForLanes(mask, [&](uint32_t i) {
    ForLanes(mask, [&](uint32_t j) {
      if (warp.Value(inst.operands[2], i) == warp.Value(inst.operands[2], j)) same[i] |= 1u << j;
    });
  });
  const bool agree = same[std::countr_zero(mask)] == mask;
  ForLanes(mask, [&](uint32_t lane) { d[lane] = all ? (agree ? mask : 0) : same[lane]; });
  if (inst.operands[1].kind == Operand::Kind::kPredicate)
    warp.SetPredicate(inst.operands[1], agree ? kAllLanes : 0, mask);
}

std::string BindMatch(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = match.Has(".all");
  return "";
}

void RunActivemask(Warp& warp, const Inst& inst, LaneMask mask) {
  uint32_t* d = warp.Lanes<uint32_t>(inst.operands[0]);
  ForLanes(mask, [&](uint32_t lane) { d[lane] = mask; });
}

/// elect.sync d|p, members: one lane, the lowest here, gets true.
void RunElect(Warp& warp, const Inst& inst, LaneMask mask) {
  LaneMask members;
  if (!Members(warp, inst.operands[2], mask, members)) return;
  const auto leader = static_cast<uint32_t>(std::countr_zero(mask));
  uint32_t* d = warp.Lanes<uint32_t>(inst.operands[0]);
  ForLanes(mask, [&](uint32_t lane) { d[lane] = leader; });
  if (inst.operands[1].kind == Operand::Kind::kPredicate)
    warp.SetPredicate(inst.operands[1], LaneMask{1} << leader, mask);
}

void RunWarpBarrier(Warp& warp, const Inst& inst, LaneMask mask) {
  LaneMask members;
  Members(warp, inst.operands[0], mask, members);
}

void RunNanosleep(Warp& warp, const Inst&, LaneMask) { warp.Yield("nanosleep", 0); }

void RunTrap(Warp& warp, const Inst&, LaneMask mask) {
  warp.Fault("trap", static_cast<uint32_t>(std::countr_zero(mask)));
}

/// Registers of a thread at launch: the CTA has all of an SM's 65536, in steps of 8 a thread.
uint32_t LaunchRegisters(const Cta& cta) {
  const auto threads = static_cast<uint32_t>(cta.warps.size()) * kLanes;
  return std::min(65536 / threads / 8 * 8, 256u);
}

/// What warps give up goes to a pool of the CTA; one that wants more waits until the pool has it.
void RunSetmaxnreg(Warp& warp, const Inst& inst, LaneMask mask) {
  if (!warp.NeedAll(mask, "setmaxnreg")) return;
  const auto count = static_cast<uint32_t>(inst.operands[0].value);
  if (count < 24 || count > 256 || count % 8)
    return warp.Fault("setmaxnreg of " + std::to_string(count) +
                      "; it must be a multiple of 8 in 24..256");
  Cta& cta = warp.cta();
  if (warp.registers == 0) warp.registers = LaunchRegisters(cta);
  const bool increase = inst.data[0];
  if (increase ? count < warp.registers : count > warp.registers)
    return warp.Fault(std::string("setmaxnreg.") + (increase ? "inc" : "dec") + " to " +
                      std::to_string(count) + " registers of a warp that has " +
                      std::to_string(warp.registers));
  if (increase && (count - warp.registers) * kLanes > cta.free_registers) {
    warp.retry = true;
    return warp.Yield("registers in the CTA's pool", (count - warp.registers) * kLanes);
  }
  cta.free_registers += (warp.registers - count) * kLanes;
  warp.registers = count;
  ++warp.cluster().events;
}

std::string BindSetmaxnreg(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = match.Has(".inc");
  return "";
}

Rows MakeRows() {
  Rows rows;
  rows.push_back({"shfl.sync(.up|.down|.bfly|.idx).b32", "=w|p w w w w", RunShuffle, BindShuffle});
  rows.push_back({"vote.sync(.all|.any|.uni).pred", "=p p w", RunVote, BindVote});
  rows.push_back({"vote.sync(.ballot).b32", "=w p w", RunVote, BindVote});
  rows.push_back(
      {"redux.sync(.add|.min|.max|.and|.or|.xor)(.u32|.s32|.b32)", "=w w w", RunRedux, BindRedux});
  rows.push_back({"match(.any|.all).sync.b32", "=w|p w w", RunMatch, BindMatch});
  rows.push_back({"match(.any|.all).sync.b64", "=w|p l w", RunMatch, BindMatch});
  rows.push_back({"activemask.b32", "=w", RunActivemask, nullptr});
  rows.push_back({"elect.sync", "=w|p w", RunElect, nullptr});
  rows.push_back({"bar.warp.sync", "w", RunWarpBarrier, nullptr});
  rows.push_back({"nanosleep.u32", "w", RunNanosleep, nullptr});
  rows.push_back({"trap", "", RunTrap, nullptr});
  rows.push_back({"brkpt", "", RunTrap, nullptr});
  rows.push_back({"setmaxnreg(.inc|.dec).sync.aligned.u32", "i", RunSetmaxnreg, BindSetmaxnreg});
  rows.push_back({"griddepcontrol(.launch_dependents|.wait)", "", Nothing, nullptr});
  rows.push_back({"pmevent", "i", Nothing, nullptr});
  return rows;
}

}  // namespace

std::span<const Row> WarpRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

}  // namespace quern::ptx

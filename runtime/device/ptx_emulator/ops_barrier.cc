// Barriers and fences. PTX ISA 9.7.13.
#include <bit>

#include "runtime/device/ptx_emulator/ops.h"
#include "runtime/device/ptx_emulator/sync.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

enum BarrierKind { kSync, kArrive, kRed };
enum BarrierReduction { kAnd, kOr, kPopc };

void Release(Cta& cta, Barrier& barrier) {
  for (const Barrier::Waiter& waiter : barrier.waiters) {
    waiter.warp->Unblock(waiter.mask);
    if (cta.races) cta.races->Acquire(waiter.warp->id(), barrier.gathered);
    if (!waiter.reduction) continue;
    const Operand& d = waiter.reduction->operands[0];
    if (waiter.reduction->data[1] == kPopc) {
      ForLanes(waiter.mask, [&](uint32_t lane) { waiter.warp->SetValue(d, lane, barrier.count); });
    } else {
      const bool value = waiter.reduction->data[1] == kAnd ? barrier.all : barrier.any;
      waiter.warp->SetPredicate(d, value ? kAllLanes : 0, waiter.mask);
    }
  }
  barrier = Barrier();
  ++cta.cluster().events;
}

/// Operands: [d,] a (barrier) [, b (threads)] [, p].
void RunBarrier(Warp& warp, const Inst& inst, LaneMask mask) {
  const auto kind = static_cast<BarrierKind>(inst.data[0]);
  const bool aligned = inst.data[2];
  if (aligned && mask != warp.live)
    return warp.Fault("an aligned barrier needs all lanes of the warp, but only " +
                      std::to_string(std::popcount(mask)) + " of " +
                      std::to_string(std::popcount(warp.live)) + " are here");
  const size_t first = kind == kRed ? 1 : 0;
  const auto lane = static_cast<uint32_t>(std::countr_zero(mask));
  const uint64_t id = warp.Value(inst.operands[first], lane);
  Cta& cta = warp.cta();
  const auto all = static_cast<uint32_t>(cta.warps.size()) * kLanes;
  const Operand& count = inst.operands[first + 1];
  const uint64_t expected = count.kind == Operand::Kind::kLanes ? warp.Value(count, lane) : all;
  if (id >= kBarriers) return warp.Fault("barrier " + std::to_string(id) + " of 16");
  if (expected == 0 || expected % kLanes || expected > all)
    return warp.Fault("a barrier of " + std::to_string(expected) + " threads in a CTA of " +
                      std::to_string(all));
  Barrier& barrier = cta.barriers[id];
  if (barrier.expected == 0) {
    barrier.expected = static_cast<uint32_t>(expected);
    barrier.line = inst.line;
  } else if (barrier.expected != expected) {
    return warp.Fault("barrier " + std::to_string(id) + " waits for " + std::to_string(expected) +
                      " threads here, but for " + std::to_string(barrier.expected) + " at line " +
                      std::to_string(barrier.line));
  }
  barrier.arrived += mask == warp.live ? kLanes : static_cast<uint32_t>(std::popcount(mask));
  if (barrier.arrived > barrier.expected)
    return warp.Fault("more than " + std::to_string(expected) + " threads arrive at barrier " +
                      std::to_string(id));
  if (cta.races) cta.races->Release(warp.id(), barrier.gathered);
  if (kind == kRed) {
    const LaneMask bits = warp.Predicate(inst.operands[3]) & mask;
    barrier.any |= bits != 0;
    barrier.all &= bits == mask;
    barrier.count += static_cast<uint32_t>(std::popcount(bits));
  }
  if (kind != kArrive) {
    barrier.waiters.push_back({&warp, mask, kind == kRed ? &inst : nullptr});
    warp.Block(mask, "barrier", id);
  }
  ++cta.cluster().events;
  if (barrier.arrived == barrier.expected) Release(cta, barrier);
}

std::string BindBarrier(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = match.Has(".arrive") ? kArrive : match.Has(".red") ? kRed : kSync;
  inst.data[1] = match.Has(".and") ? kAnd : match.Has(".or") ? kOr : kPopc;
  inst.data[2] = match.Has(".aligned");
  return "";
}
/// `bar` is `barrier.aligned`.
std::string BindBar(const Match& match, const Code& code, Inst& inst) {
  BindBarrier(match, code, inst);
  inst.data[2] = 1;
  return "";
}

/// bar.red d, a, p without a count: the predicate comes third.
void ShiftReduction(Inst& inst) {
  if (inst.operands[2].kind != Operand::Kind::kPredicate) return;
  inst.operands[3] = inst.operands[2];
  inst.operands[2] = Operand();
}

// ---- barrier.cluster

void RunClusterArrive(Warp& warp, const Inst&, LaneMask mask) {
  Cluster& cluster = warp.cluster();
  if (mask != warp.live) return warp.Fault("barrier.cluster needs all lanes of the warp");
  if (warp.cluster_phase_arrived > cluster.cluster_phase)
    return warp.Fault("barrier.cluster.arrive twice without a wait");
  warp.cluster_phase_arrived = cluster.cluster_phase + 1;
  uint32_t warps = 0;
  for (const auto& cta : cluster.ctas) warps += static_cast<uint32_t>(cta->warps.size());
  if (warp.cta().races)
    warp.cta().races->Release(warp.id(), cluster.cluster_gathered[warp.cta().rank()]);
  ++cluster.events;
  if (++cluster.cluster_arrived < warps) return;
  cluster.cluster_arrived = 0;
  ++cluster.cluster_phase;
  for (auto& [waiter, lanes] : cluster.cluster_waiters) {
    waiter->Unblock(lanes);
    Cta& cta = waiter->cta();
    if (cta.races) cta.races->Acquire(waiter->id(), cluster.cluster_gathered[cta.rank()]);
  }
  cluster.cluster_waiters.clear();
}

void RunClusterWait(Warp& warp, const Inst&, LaneMask mask) {
  Cluster& cluster = warp.cluster();
  if (warp.cluster_phase_arrived == 0) return warp.Fault("barrier.cluster.wait without an arrive");
  if (warp.cluster_phase_arrived <= cluster.cluster_phase) {
    if (warp.cta().races)
      warp.cta().races->Acquire(warp.id(), cluster.cluster_gathered[warp.cta().rank()]);
    return;
  }
  cluster.cluster_waiters.emplace_back(&warp, mask);
  warp.Block(mask, "the cluster's barrier, phase", cluster.cluster_phase);
}

// ---- Fences

void RunFence(Warp& warp, const Inst&, LaneMask) {
  Synchronize(warp, Space::kGlobal, 0, true, true);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void RunProxyFence(Warp& warp, const Inst&, LaneMask) {
  if (warp.cta().races) warp.cta().races->ProxyFence(warp.id());
}

Rows MakeRows() {
  Rows rows;
  rows.push_back({"bar[.cta](.sync|.arrive)", "w w?", RunBarrier, BindBar});
  rows.push_back({"barrier[.cta](.sync|.arrive)[.aligned]", "w w?", RunBarrier, BindBarrier});
  const Binder bind_red = [](const Match& match, const Code& code, Inst& inst) {
    ShiftReduction(inst);
    return BindBarrier(match, code, inst);
  };
  const Binder bind_bar_red = [](const Match& match, const Code& code, Inst& inst) {
    ShiftReduction(inst);
    return BindBar(match, code, inst);
  };
  rows.push_back({"bar[.cta](.red)(.and|.or).pred", "=p w y p?", RunBarrier, bind_bar_red});
  rows.push_back({"bar[.cta](.red)(.popc).u32", "=w w y p?", RunBarrier, bind_bar_red});
  rows.push_back(
      {"barrier[.cta](.red)(.and|.or)[.aligned].pred", "=p w y p?", RunBarrier, bind_red});
  rows.push_back({"barrier[.cta](.red)(.popc)[.aligned].u32", "=w w y p?", RunBarrier, bind_red});
  rows.push_back(
      {"barrier.cluster.arrive[.release|.relaxed][.aligned]", "", RunClusterArrive, nullptr});
  rows.push_back({"barrier.cluster.wait[.acquire][.aligned]", "", RunClusterWait, nullptr});
  rows.push_back(
      {"fence[.sc|.acq_rel|.acquire|.release][.cta|.cluster|.gpu|.sys]", "", RunFence, nullptr});
  rows.push_back({"membar(.cta|.gl|.sys)", "", RunFence, nullptr});
  rows.push_back({"fence.mbarrier_init.release.cluster", "", Nothing, nullptr});
  rows.push_back(
      {"fence.proxy(.async)[.global|.shared::cta|.shared::cluster]", "", RunProxyFence, nullptr});
  rows.push_back({"fence.proxy.alias", "", Nothing, nullptr});
  rows.push_back(
      {"fence.proxy.tensormap::generic.acquire(.cta|.cluster|.gpu|.sys)", "a i", Nothing, nullptr});
  rows.push_back(
      {"fence.proxy.tensormap::generic.release(.cta|.cluster|.gpu|.sys)", "", Nothing, nullptr});
  return rows;
}

}  // namespace

std::span<const Row> BarrierRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

}  // namespace quern::ptx

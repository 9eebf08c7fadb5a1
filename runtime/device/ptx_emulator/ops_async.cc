// cp.async: copies of a thread from global to shared memory. PTX ISA 9.7.9.25. They happen when
// the thread waits for them, not before.
#include <algorithm>
#include <bit>
#include <cstring>

#include "runtime/device/ptx_emulator/ops.h"
#include "runtime/device/ptx_emulator/sync.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

/// cp.async [dst], [src], bytes [, source bytes | ignore] [, policy]
void RunCopy(Warp& warp, const Inst& inst, LaneMask mask) {
  const auto bytes = static_cast<uint32_t>(inst.operands[2].value);
  const Operand& extra = inst.operands[3];
  ForLanes(mask, [&](uint32_t lane) {
    uint32_t source_bytes = bytes;
    if (extra.kind == Operand::Kind::kPredicate && ((warp.Predicate(extra) >> lane) & 1))
      source_bytes = 0;
    if (extra.kind == Operand::Kind::kLanes && (extra.constant || extra.bytes == 4))
      source_bytes = static_cast<uint32_t>(warp.Value(extra, lane));
    if (source_bytes > bytes)
      return warp.Fault("a source of " + std::to_string(source_bytes) + " bytes for a copy of " +
                            std::to_string(bytes),
                        lane);
    const uint64_t source = warp.Address(inst.operands[1], lane);
    const uint64_t destination = warp.Address(inst.operands[0], lane);
    if ((destination & ~kWindowMask) >> kSharedRankShift)
      return warp.Fault("cp.async writes the CTA's own shared memory; the address names another",
                        lane);
    // The hardware may write at once: check, and note the write, here.
    if (!warp.Shared(destination, bytes, bytes, lane, AccessKind::kWrite)) return;
    if (source_bytes && !warp.Global(source, source_bytes, bytes, lane)) return;
    warp.copies.push_back({lane, static_cast<uint32_t>(destination & ~kWindowMask), bytes,
                           source_bytes, warp.copy_groups[lane], inst.line, 0, source});
  });
}

std::string BindCopy(const Match& match, const Code&, Inst& inst) {
  const uint64_t bytes = inst.operands[2].value;
  if (bytes != 4 && bytes != 8 && bytes != 16)
    return "a copy of " + std::to_string(bytes) + " bytes";
  if (match.Has(".cg") && bytes != 16) return ".cg copies 16 bytes";
  return "";
}

void Apply(Warp& warp, const PendingCopy& copy) {
  uint8_t* to = warp.cta().shared.data() + (copy.destination - kSharedBase);
  const uint8_t* from =
      copy.source_bytes ? warp.Global(copy.source, copy.source_bytes, 1, copy.lane) : nullptr;
  if (from) std::memcpy(to, from, copy.source_bytes);
  std::memset(to + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

void RunCommit(Warp& warp, const Inst&, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) { ++warp.copy_groups[lane]; });
}

/// All but the last N groups of each lane are complete.
void RunWait(Warp& warp, const Inst& inst, LaneMask mask) {
  const bool all = inst.data[0];
  const auto allowed = all ? 0 : static_cast<uint32_t>(inst.operands[0].value);
  auto& copies = warp.copies;
  const auto done = [&](const PendingCopy& copy) {
    if (!((mask >> copy.lane) & 1)) return false;
    const uint32_t groups = warp.copy_groups[copy.lane];
    if (!all && (copy.group == groups || groups - copy.group <= allowed)) return false;
    Apply(warp, copy);
    return true;
  };
  std::erase_if(copies, done);
  ++warp.cluster().events;
}

std::string BindWait(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = match.Has(".wait_all");
  return "";
}

/// The mbarrier is told when the lane's earlier copies are complete. Without .noinc the pending
/// count grows by the arrival that will follow.
void RunArriveOnCopies(Warp& warp, const Inst& inst, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) {
    Cta* owner = nullptr;
    const uint64_t address = warp.Address(inst.operands[0], lane);
    Mbarrier* now = MbarrierAt(warp, address, lane, &owner);
    if (!now) return;
    if (!inst.data[0]) ++now->pending;
    const auto place = static_cast<uint32_t>(address & ((uint64_t{1} << kSharedRankShift) - 1));
    VectorClock clock;
    if (warp.cta().races) warp.cta().races->Release(warp.id(), clock);
    std::vector<PendingCopy> mine;
    std::erase_if(warp.copies, [&](const PendingCopy& copy) {
      if (copy.lane != lane) return false;
      mine.push_back(copy);
      return true;
    });
    warp.cluster().async.push_back({&warp, inst.line, [=, &warp, mine = std::move(mine)] {
                                      for (const PendingCopy& copy : mine) Apply(warp, copy);
                                      ArriveAsync(warp, *owner, place, clock,
                                                  "cp.async.mbarrier.arrive", inst.line);
                                    }});
  });
}

std::string BindArrive(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = match.Has(".noinc");
  return "";
}

}  // namespace

std::span<const Row> AsyncCopyRows() {
  static const Rows kRows = {
      {"cp.async(.ca|.cg)(.shared|.shared::cta).global[.L2::cache_hint][.L2::64B|.L2::128B|.L2::"
       "256B]",
       "a a i y? l?", RunCopy, BindCopy},
      {"cp.async.commit_group", "", RunCommit, nullptr},
      {"cp.async(.wait_group)", "i", RunWait, BindWait},
      {"cp.async(.wait_all)", "", RunWait, BindWait},
      {"cp.async.mbarrier.arrive[.noinc][.shared|.shared::cta].b64", "a", RunArriveOnCopies,
       BindArrive},
  };
  return kRows;
}

}  // namespace quern::ptx

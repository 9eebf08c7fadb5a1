// mbarrier objects. PTX ISA 9.7.13.15. They are kept beside shared memory, by address; the 8 bytes
// themselves stay opaque, and a state token is the number of completed phases.
#include "runtime/device/ptx_emulator/ops.h"
#include "runtime/device/ptx_emulator/sync.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

constexpr uint32_t kMaxCount = (1u << 20) - 1;
constexpr int64_t kMaxTx = (1 << 20) - 1;

void RunInit(Warp& warp, const Inst& inst, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) {
    const uint64_t address = warp.Address(inst.operands[0], lane);
    const uint64_t count = warp.Value(inst.operands[1], lane);
    if (!warp.Shared(address, 8, 8, lane, AccessKind::kWrite)) return;
    if (count == 0 || count > kMaxCount)
      return warp.Fault(
          "an mbarrier of " + std::to_string(count) + " arrivals; 1 to 1048575 are possible", lane);
    Mbarrier mbarrier;
    mbarrier.expected = static_cast<uint32_t>(count);
    mbarrier.pending = static_cast<int64_t>(count);
    warp.cta().mbarriers[static_cast<uint32_t>(address & ~kWindowMask)] = mbarrier;
  });
}

void RunInval(Warp& warp, const Inst& inst, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) {
    const uint64_t address = warp.Address(inst.operands[0], lane);
    if (!MbarrierAt(warp, address, lane)) return;
    warp.Shared(address, 8, 8, lane, AccessKind::kWrite);
    warp.cta().mbarriers.erase(static_cast<uint32_t>(address & ~kWindowMask));
  });
}

enum Data { kExpectTx, kDrop };

/// arrive state, [address] [, count or bytes]
void RunArrive(Warp& warp, const Inst& inst, LaneMask mask) {
  const Operand& amount = inst.operands[2];
  const bool given = amount.kind == Operand::Kind::kLanes;
  ForLanes(mask, [&](uint32_t lane) {
    Cta* owner = nullptr;
    Mbarrier* mbarrier = MbarrierAt(warp, warp.Address(inst.operands[1], lane), lane, &owner);
    if (!mbarrier) return;
    warp.SetValue(inst.operands[0], lane, mbarrier->phase);
    uint64_t count = 1;
    if (inst.data[kExpectTx]) {
      mbarrier->tx += static_cast<uint32_t>(warp.Value(amount, lane));
      if (mbarrier->tx > kMaxTx)
        return warp.Fault("more than 1048575 transaction bytes expected", lane);
    } else if (given) {
      count = warp.Value(amount, lane);
    }
    if (inst.data[kDrop]) mbarrier->expected -= static_cast<uint32_t>(count);
    Arrive(warp, *owner, *mbarrier, static_cast<uint32_t>(count), lane);
  });
}

void RunTx(Warp& warp, const Inst& inst, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) {
    Cta* owner = nullptr;
    Mbarrier* mbarrier = MbarrierAt(warp, warp.Address(inst.operands[0], lane), lane, &owner);
    if (!mbarrier) return;
    const auto bytes =
        static_cast<int64_t>(static_cast<uint32_t>(warp.Value(inst.operands[1], lane)));
    CompleteTransaction(*owner, *mbarrier, inst.data[kExpectTx] ? -bytes : bytes);
  });
}

/// test_wait and try_wait: whether the phase of the state token, or of that parity, is over.
void RunWait(Warp& warp, const Inst& inst, LaneMask mask) {
  LaneMask done = 0;
  const uint64_t events = warp.cluster().events;
  ForLanes(mask, [&](uint32_t lane) {
    Cta* owner = nullptr;
    const uint64_t address = warp.Address(inst.operands[1], lane);
    Mbarrier* mbarrier = MbarrierAt(warp, address, lane, &owner);
    if (!mbarrier) return;
    const uint64_t value = warp.Value(inst.operands[2], lane);
    const bool over =
        inst.data[0] ? (mbarrier->phase & 1) != (value & 1) : mbarrier->phase != value;
    done |= LaneMask{over} << lane;
    if (over && owner->races && owner == &warp.cta())
      owner->races->Acquire(warp.id(), mbarrier->published);
    if (!over) warp.Yield("the mbarrier at shared offset", (address & ~kWindowMask) - kSharedBase);
  });
  warp.cluster().events = events;
  warp.SetPredicate(inst.operands[0], done, mask);
}

std::string BindArrive(const Match& match, const Code&, Inst& inst) {
  inst.data[kExpectTx] = match.Has(".expect_tx");
  inst.data[kDrop] = match.Has(".arrive_drop");
  return "";
}
std::string BindTx(const Match& match, const Code&, Inst& inst) {
  inst.data[kExpectTx] = match.Has(".expect_tx");
  return "";
}
std::string BindWait(const Match& match, const Code&, Inst& inst) {
  inst.data[0] = match.Has(".parity");
  return "";
}

}  // namespace

std::span<const Row> MbarrierRows() {
  static const Rows kRows = [] {
    const std::string order = "[.release|.relaxed][.cta|.cluster]";
    const std::string shared = "[.shared|.shared::cta|.shared::cluster].b64";
    const std::string wait = "[.acquire|.relaxed][.cta|.cluster][.shared|.shared::cta].b64";
    Rows rows;
    rows.push_back({"mbarrier.init[.shared|.shared::cta].b64", "a w", RunInit, nullptr});
    rows.push_back({"mbarrier.inval[.shared|.shared::cta].b64", "a", RunInval, nullptr});
    rows.push_back({"mbarrier(.arrive|.arrive_drop)[.noComplete|.expect_tx]" + order + shared,
                    "=l a w?", RunArrive, BindArrive});
    rows.push_back(
        {"mbarrier(.expect_tx|.complete_tx)[.relaxed][.cta|.cluster]"
         "[.shared|.shared::cta|.shared::cluster].b64",
         "a w", RunTx, BindTx});
    rows.push_back({"mbarrier.test_wait[.parity]" + wait, "=p a x", RunWait, BindWait});
    rows.push_back({"mbarrier.try_wait[.parity]" + wait, "=p a x w?", RunWait, BindWait});
    return rows;
  }();
  return kRows;
}

}  // namespace quern::ptx

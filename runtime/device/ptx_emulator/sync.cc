#include "runtime/device/ptx_emulator/sync.h"

#include <algorithm>

namespace quern::ptx {

void Synchronize(Warp& warp, Space space, uint64_t address, bool acquire, bool release) {
  RaceCheck* races = warp.cta().races.get();
  if (!races) return;
  if (space == Space::kGeneric) space = Warp::SpaceOfGeneric(address);
  const uint32_t place =
      space == Space::kShared ? static_cast<uint32_t>(address & ~kWindowMask) : ~0u;
  VectorClock& clock = warp.cta().sync[place];
  if (acquire) races->Acquire(warp.id(), clock);
  if (release) races->Release(warp.id(), clock);
}

Mbarrier* Cta::FindMbarrier(uint32_t address) {
  const auto found = mbarriers.find(address);
  return found == mbarriers.end() ? nullptr : &found->second;
}

Mbarrier* MbarrierAt(Warp& warp, uint64_t address, uint32_t lane, Cta** owner) {
  if ((address & kWindowMask) == kSharedWindow) address &= ~kWindowMask;
  Cta* cta = &warp.cta();
  const uint64_t rank = address >> kSharedRankShift;
  if (rank > 0 && rank <= warp.cluster().ctas.size()) {
    cta = warp.cluster().ctas[rank - 1].get();
    address &= (1u << kSharedRankShift) - 1;
  }
  if (owner) *owner = cta;
  Mbarrier* mbarrier = cta->FindMbarrier(static_cast<uint32_t>(address));
  if (!mbarrier)
    warp.Fault("no mbarrier was initialised at shared offset " +
                   std::to_string(static_cast<int64_t>(address) - int64_t{kSharedBase}),
               lane);
  return mbarrier;
}

void Cta::UpdateMbarrier(Mbarrier& mbarrier) {
  ++cluster_->events;
  if (mbarrier.pending != 0 || mbarrier.tx != 0) return;
  ++mbarrier.phase;
  mbarrier.pending = mbarrier.expected;
  mbarrier.published = std::move(mbarrier.gathered);
  mbarrier.gathered.clear();
}

bool Arrive(Warp& warp, Cta& owner, Mbarrier& mbarrier, uint32_t count, uint32_t lane) {
  if (count > mbarrier.pending) {
    warp.Fault("mbarrier: " + std::to_string(count) + " arrivals, but the phase has " +
                   std::to_string(mbarrier.pending) + " of " + std::to_string(mbarrier.expected) +
                   " left",
               lane);
    return false;
  }
  mbarrier.pending -= count;
  if (owner.races && &owner == &warp.cta()) owner.races->Release(warp.id(), mbarrier.gathered);
  owner.UpdateMbarrier(mbarrier);
  return true;
}

void ArriveAsync(Warp& issuer, Cta& owner, uint32_t place, const VectorClock& clock,
                 const char* what, uint32_t line) {
  Mbarrier* mbarrier = owner.FindMbarrier(place);
  if (!mbarrier || mbarrier->pending == 0)
    return issuer.Fault(std::string(what) + " of line " + std::to_string(line) +
                        ": its mbarrier expects no arrival");
  --mbarrier->pending;
  auto& gathered = mbarrier->gathered;
  gathered.resize(std::max(gathered.size(), clock.size()), 0);
  for (size_t v = 0; v < clock.size(); ++v) gathered[v] = std::max(gathered[v], clock[v]);
  owner.UpdateMbarrier(*mbarrier);
}

void CompleteTransaction(Cta& owner, Mbarrier& mbarrier, int64_t bytes) {
  mbarrier.tx -= bytes;
  owner.UpdateMbarrier(mbarrier);
}

}  // namespace quern::ptx

// Orders between warps, and the objects that make them.
#pragma once

#include "runtime/device/ptx_emulator/machine.h"

namespace quern::ptx {

/// An ordered access at `address`: the warp learns what was released there, and releases what it
/// did. Global memory counts as one place.
void Synchronize(Warp& warp, Space space, uint64_t address, bool acquire, bool release);

/// The mbarrier that `address` names, in whichever CTA; null after a fault. `owner`: its CTA.
Mbarrier* MbarrierAt(Warp& warp, uint64_t address, uint32_t lane, Cta** owner = nullptr);

/// `count` arrivals. False after a fault: more arrivals than the phase has left.
bool Arrive(Warp& warp, Cta& owner, Mbarrier& mbarrier, uint32_t count, uint32_t lane);

/// The arrival by which an asynchronous operation of `line` reports its end, at the mbarrier at
/// offset `place` of `owner`. `clock`: what its waiters are ordered behind. `what`: its name.
void ArriveAsync(Warp& issuer, Cta& owner, uint32_t place, const VectorClock& clock,
                 const char* what, uint32_t line);

/// `bytes` of a transaction have arrived. `issuer` is who issued the copy.
void CompleteTransaction(Cta& owner, Mbarrier& mbarrier, int64_t bytes);

}  // namespace quern::ptx

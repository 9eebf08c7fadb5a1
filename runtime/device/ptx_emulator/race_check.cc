#include "runtime/device/ptx_emulator/race_check.h"

#include <algorithm>

namespace quern::ptx {

RaceCheck::RaceCheck(uint32_t warps, uint32_t shared_bytes)
    : known_(warps, VectorClock(warps, 0)),
      proxy_fence_(warps, 0),
      cells_((shared_bytes + 3) / 4) {}

template <class Body>
void RaceCheck::ForCells(uint32_t offset, uint32_t bytes, Body body) {
  const uint32_t end = offset + bytes;
  for (uint32_t cell = offset / 4; cell * 4 < end; ++cell) {
    const uint32_t low = std::max(offset, cell * 4) - cell * 4;
    const uint32_t high = std::min(end, cell * 4 + 4) - cell * 4;
    body(cells_[cell], static_cast<uint8_t>(((1u << high) - 1) & ~((1u << low) - 1)), cell * 4);
  }
}

void RaceCheck::Conflict(const Access& before, const char* before_what, uint32_t warp,
                         const char* what, uint32_t offset) {
  Report("race", line_, before.line,
         std::string("shared memory at ") + std::to_string(offset) + ": " + what + " by warp " +
             std::to_string(warp) + " at line " + std::to_string(line_) +
             " is not ordered behind the " + before_what + " by warp " +
             std::to_string(before.warp) + " at line " + std::to_string(before.line));
}

void RaceCheck::CheckProxy(const Access& write, uint32_t warp, const char* what, uint32_t offset) {
  if (write.proxy != Proxy::kGeneric) return;
  if (proxy_fence_[write.warp] >= write.time || proxy_fence_[warp] >= write.time) return;
  Report("missing-fence", line_, write.line,
         std::string("shared memory at ") + std::to_string(offset) + ": " + what +
             " by the async proxy at line " + std::to_string(line_) +
             " needs fence.proxy.async behind the store at line " + std::to_string(write.line));
}

void RaceCheck::Read(uint32_t warp, uint32_t offset, uint32_t bytes, Proxy proxy) {
  ForCells(offset, bytes, [&](Cell& cell, uint8_t mask, uint32_t at) {
    const Access& write = cell.write;
    if (write.time && (write.mask & mask)) {
      if (!Ordered(write, warp))
        Conflict(write, "write", warp, "a read", at);
      else if (proxy == Proxy::kAsync)
        CheckProxy(write, warp, "a read", at);
    }
    // Replace this warp's read, a free place, one that is ordered before this, or the oldest.
    Access* place = nullptr;
    for (Access& read : cell.reads)
      if (read.time && read.warp == warp && read.mask == mask) place = &read;
    for (Access& read : cell.reads)
      if (!place && (read.time == 0 || Ordered(read, warp))) place = &read;
    if (!place)
      place = &*std::min_element(cell.reads.begin(), cell.reads.end(),
                                 [](auto& a, auto& b) { return a.time < b.time; });
    *place = {now_, line_, static_cast<uint8_t>(warp), mask, proxy};
  });
}

void RaceCheck::Write(uint32_t warp, uint32_t offset, uint32_t bytes, Proxy proxy, bool same) {
  ForCells(offset, bytes, [&](Cell& cell, uint8_t mask, uint32_t at) {
    const Access& write = cell.write;
    const bool together = write.time == now_ && write.warp == warp;  // Lanes of one instruction.
    if (write.time && (write.mask & mask) && !same) {
      if (together)
        Report("race", line_, line_, LanesText(warp, at));
      else if (!Ordered(write, warp))
        Conflict(write, "write", warp, "a write", at);
      else if (proxy == Proxy::kAsync)
        CheckProxy(write, warp, "a write", at);
    }
    for (Access& read : cell.reads) {
      if (!read.time || !(read.mask & mask)) continue;
      if (!Ordered(read, warp)) Conflict(read, "read", warp, "a write", at);
      read.time = 0;
    }
    cell.write = {now_, line_, static_cast<uint8_t>(warp),
                  static_cast<uint8_t>(together ? write.mask | mask : mask), proxy};
  });
}

std::string RaceCheck::LanesText(uint32_t warp, uint32_t offset) const {
  return "shared memory at " + std::to_string(offset) + ": lanes of warp " + std::to_string(warp) +
         " store different values to the same byte at line " + std::to_string(line_);
}

void RaceCheck::Release(uint32_t warp, VectorClock& into) const {
  const VectorClock& known = known_[warp];
  if (into.size() < known.size()) into.resize(known.size(), 0);
  for (size_t v = 0; v < known.size(); ++v) into[v] = std::max(into[v], known[v]);
  into[warp] = std::max(into[warp], now_);
}

void RaceCheck::Acquire(uint32_t warp, const VectorClock& from) {
  VectorClock& known = known_[warp];
  for (size_t v = 0; v < std::min(known.size(), from.size()); ++v)
    known[v] = std::max(known[v], from[v]);
}

void RaceCheck::Report(const char* kind, uint32_t line, uint32_t other_line, std::string message) {
  Finding& finding = findings_[Key(kind, line, other_line)];
  if (finding.count++ > 0) return;
  finding.kind = kind;
  finding.line = line;
  finding.message = std::move(message);
}

}  // namespace quern::ptx

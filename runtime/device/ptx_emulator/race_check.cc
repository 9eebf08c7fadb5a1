#include "runtime/device/ptx_emulator/race_check.h"

#include <algorithm>

namespace quern::ptx {

RaceCheck::RaceCheck(uint32_t warps, uint32_t shared_bytes, bool tensor_memory)
    : warps_(warps), tensor_base_((shared_bytes + 3) / 4 * 4) {
  const uint32_t agents = tensor_memory ? 2 * warps : warps;
  known_.assign(agents, VectorClock(agents, 0));
  if (tensor_memory) fenced_ = known_;
  proxy_fence_.assign(agents, 0);
  cells_.resize(tensor_base_ / 4 + (tensor_memory ? kTensorColumns : 0));
}

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
         PlaceText(offset) + ": " + what + " by " + WarpText(warp) + " at line " +
             std::to_string(line_) + " is not ordered behind the " + before_what + " by " +
             WarpText(before.warp) + " at line " + std::to_string(before.line) +
             (before.warp >= warps_ ? "; wait for its tcgen05.commit" : ""));
}

std::string RaceCheck::PlaceText(uint32_t offset) const {
  if (offset < tensor_base_) return "shared memory at " + std::to_string(offset);
  return "tensor memory column " + std::to_string((offset - tensor_base_) / 4);
}

void RaceCheck::CheckProxy(const Access& write, uint32_t warp, const char* what, uint32_t offset) {
  if (write.proxy != Proxy::kGeneric) return;
  if (proxy_fence_[write.warp] >= write.time || proxy_fence_[warp] >= write.time) return;
  Report("missing-fence", line_, write.line,
         std::string("shared memory at ") + std::to_string(offset) + ": " + what +
             " by the async proxy at line " + std::to_string(line_) +
             " needs fence.proxy.async behind the store at line " + std::to_string(write.line));
}

void RaceCheck::CheckTensorFence(const Access& before, uint32_t agent, const char* what,
                                 uint32_t offset) {
  if (before.warp % warps_ == agent % warps_) return;  // Its own, in the order of the program.
  if (fenced_[agent][before.warp] >= before.time) return;
  Report("missing-fence", line_, before.line,
         PlaceText(offset) + ": " + what + " by " + WarpText(agent) + " at line " +
             std::to_string(line_) +
             " needs tcgen05.fence::after_thread_sync behind the wait for " +
             WarpText(before.warp) + ", which touched it at line " + std::to_string(before.line));
}

void RaceCheck::ReadCell(Cell& cell, uint8_t mask, uint32_t at, uint32_t agent, Proxy proxy) {
  const Access& write = cell.write;
  if (write.time && (write.mask & mask)) {
    if (!Ordered(write, agent))
      Conflict(write, "write", agent, "a read", at);
    else if (proxy == Proxy::kAsync)
      CheckProxy(write, agent, "a read", at);
    else if (proxy == Proxy::kTensor)
      CheckTensorFence(write, agent, "a read", at);
  }
  // Replace this agent's read, a free place, one that is ordered before this, or the oldest.
  Access* place = nullptr;
  for (Access& read : cell.reads)
    if (read.time && read.warp == agent && read.mask == mask) place = &read;
  for (Access& read : cell.reads)
    if (!place && (read.time == 0 || Ordered(read, agent))) place = &read;
  if (!place)
    place = &*std::min_element(cell.reads.begin(), cell.reads.end(),
                               [](auto& a, auto& b) { return a.time < b.time; });
  *place = {now_, line_, static_cast<uint8_t>(agent), mask, proxy};
}

void RaceCheck::WriteCell(Cell& cell, uint8_t mask, uint32_t at, uint32_t agent, Proxy proxy,
                          bool same) {
  const Access& write = cell.write;
  const bool together = write.time == now_ && write.warp == agent;  // Lanes of one instruction.
  if (write.time && (write.mask & mask) && !same) {
    if (together)
      Report("race", line_, line_, LanesText(agent, at));
    else if (!Ordered(write, agent))
      Conflict(write, "write", agent, "a write", at);
    else if (proxy == Proxy::kAsync)
      CheckProxy(write, agent, "a write", at);
    else if (proxy == Proxy::kTensor)
      CheckTensorFence(write, agent, "a write", at);
  }
  for (Access& read : cell.reads) {
    if (!read.time || !(read.mask & mask)) continue;
    if (!Ordered(read, agent))
      Conflict(read, "read", agent, "a write", at);
    else if (proxy == Proxy::kTensor)
      CheckTensorFence(read, agent, "a write", at);
    read.time = 0;
  }
  cell.write = {now_, line_, static_cast<uint8_t>(agent),
                static_cast<uint8_t>(together ? write.mask | mask : mask), proxy};
}

void RaceCheck::Read(uint32_t warp, uint32_t offset, uint32_t bytes, Proxy proxy) {
  ForCells(offset, bytes,
           [&](Cell& cell, uint8_t mask, uint32_t at) { ReadCell(cell, mask, at, warp, proxy); });
}

void RaceCheck::Write(uint32_t warp, uint32_t offset, uint32_t bytes, Proxy proxy, bool same) {
  ForCells(offset, bytes, [&](Cell& cell, uint8_t mask, uint32_t at) {
    WriteCell(cell, mask, at, warp, proxy, same);
  });
}

void RaceCheck::StartProduct(uint32_t warp) {
  const uint32_t agent = AgentOf(warp);
  Acquire(agent, known_[warp]);
  known_[agent][warp] = now_;
  fenced_[agent] = fenced_[warp];
  proxy_fence_[agent] = std::max(proxy_fence_[agent], proxy_fence_[warp]);
}

void RaceCheck::ReadTensor(uint32_t agent, uint32_t first, uint32_t count, uint8_t windows) {
  for (uint32_t at = tensor_base_ + 4 * first; count > 0; at += 4, --count)
    ReadCell(cells_[at / 4], windows, at, agent, Proxy::kTensor);
}

void RaceCheck::WriteTensor(uint32_t agent, uint32_t first, uint32_t count, uint8_t windows) {
  for (uint32_t at = tensor_base_ + 4 * first; count > 0; at += 4, --count)
    WriteCell(cells_[at / 4], windows, at, agent, Proxy::kTensor, /*same=*/false);
}

void RaceCheck::FreeTensor(uint32_t warp, uint32_t first, uint32_t count) {
  constexpr uint8_t kAllWindows = 15;
  for (uint32_t at = tensor_base_ + 4 * first; count > 0; at += 4, --count) {
    WriteCell(cells_[at / 4], kAllWindows, at, warp, Proxy::kGeneric, /*same=*/false);
    cells_[at / 4] = Cell();
  }
}

std::string RaceCheck::LanesText(uint32_t warp, uint32_t offset) const {
  return "shared memory at " + std::to_string(offset) + ": lanes of " + WarpText(warp) +
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

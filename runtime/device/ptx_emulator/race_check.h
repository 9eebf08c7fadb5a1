// Races on shared memory and missing proxy fences, found with vector clocks.
//
// Every instruction of a CTA has a time. `known[w][v]` is the latest time of warp v that warp w is
// ordered behind, through barriers, mbarriers and atomics; an access by v at time t happens before
// what w does now exactly if known[w][v] >= t. The shadow remembers for every 4 bytes the last
// write and the last few reads. Lanes of one warp count as ordered, except within one store.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/device/ptx_emulator/emulator.h"

namespace quern::ptx {

/// Latest known time per warp.
using VectorClock = std::vector<uint32_t>;

class RaceCheck {
 public:
  RaceCheck(uint32_t warps, uint32_t shared_bytes);

  enum class Proxy : uint8_t { kGeneric, kAsync };

  /// Time passes: one instruction of the CTA, at `line`.
  void Step(uint32_t line) { ++now_, line_ = line; }
  uint32_t now() const { return now_; }

  /// Warp `warp` touches bytes [offset, offset + bytes) of shared memory now.
  void Read(uint32_t warp, uint32_t offset, uint32_t bytes, Proxy proxy);
  /// `same`: the bytes do not change by it; two unordered writes of the same value are no race.
  void Write(uint32_t warp, uint32_t offset, uint32_t bytes, Proxy proxy, bool same = false);

  /// Publishes what `warp` did and knows.
  void Release(uint32_t warp, VectorClock& into) const;
  void Acquire(uint32_t warp, const VectorClock& from);
  /// Orders `warp` behind what `other` did up to `time`.
  void Order(uint32_t warp, uint32_t other, uint32_t time) {
    known_[warp][other] = std::max(known_[warp][other], time);
  }
  /// fence.proxy.async.
  void ProxyFence(uint32_t warp) { proxy_fence_[warp] = now_; }

  /// Adds a finding, once per kind and pair of lines.
  void Report(const char* kind, uint32_t line, uint32_t other_line, std::string message);
  using Key = std::tuple<std::string, uint32_t, uint32_t>;
  const std::map<Key, Finding>& findings() const { return findings_; }

 private:
  struct Access {
    uint32_t time = 0;  ///< 0: none.
    uint32_t line = 0;
    uint8_t warp = 0;
    uint8_t mask = 0;  ///< Which of the 4 bytes.
    Proxy proxy = Proxy::kGeneric;
  };
  struct Cell {
    Access write;
    std::array<Access, 4> reads;
  };

  bool Ordered(const Access& before, uint32_t warp) const {
    return before.warp == warp || known_[warp][before.warp] >= before.time;
  }
  void Conflict(const Access& before, const char* before_what, uint32_t warp, const char* what,
                uint32_t offset);
  std::string LanesText(uint32_t warp, uint32_t offset) const;
  void CheckProxy(const Access& write, uint32_t warp, const char* what, uint32_t offset);
  template <class Body>
  void ForCells(uint32_t offset, uint32_t bytes, Body body);

  std::vector<VectorClock> known_;
  std::vector<uint32_t> proxy_fence_;
  std::vector<Cell> cells_;
  std::map<Key, Finding> findings_;
  uint32_t now_ = 1;
  uint32_t line_ = 0;
};

}  // namespace quern::ptx

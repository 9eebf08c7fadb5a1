// Races on shared memory and missing proxy fences, found with vector clocks.
//
// Every instruction of a CTA has a time. `known[w][v]` is the latest time of warp v that warp w is
// ordered behind, through barriers, mbarriers and atomics; an access by v at time t happens before
// what w does now exactly if known[w][v] >= t. The shadow remembers for every 4 bytes the last
// write and the last few reads. Lanes of one warp count as ordered, except within one store.
//
// Where a kernel uses tensor memory, the matrix products that a warp starts belong to an agent of
// their own, which the warp's past is ordered before and whose accesses nothing is ordered behind
// but what waits for their tcgen05.commit. Tensor memory has a cell a column: a bit of its mask is
// the 32 lanes that one warp of four may touch.
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

/// Columns of an SM's tensor memory, each 32 bits wide and 128 lanes high. PTX ISA 9.7.16.1.
inline constexpr uint32_t kTensorColumns = 512;
inline constexpr uint32_t kTensorLanes = 128;

class RaceCheck {
 public:
  RaceCheck(uint32_t warps, uint32_t shared_bytes, bool tensor_memory);

  enum class Proxy : uint8_t { kGeneric, kAsync, kTensor };

  /// Time passes: one instruction of the CTA, at `line`.
  void Step(uint32_t line) { ++now_, line_ = line; }
  uint32_t now() const { return now_; }

  /// Warp `warp` touches bytes [offset, offset + bytes) of shared memory now.
  void Read(uint32_t warp, uint32_t offset, uint32_t bytes, Proxy proxy);
  /// `same`: the bytes do not change by it; two unordered writes of the same value are no race.
  void Write(uint32_t warp, uint32_t offset, uint32_t bytes, Proxy proxy, bool same = false);

  // ---- Tensor memory. `agent`: a warp, or AgentOf(warp).
  /// Who executes the matrix products that `warp` starts.
  uint32_t AgentOf(uint32_t warp) const { return warps_ + warp; }
  /// A product starts: its agent is ordered behind all that `warp` did.
  void StartProduct(uint32_t warp);
  /// Columns [first, first + count), 32-lane windows `windows` (bit w: lanes 32 w on) are touched.
  void ReadTensor(uint32_t agent, uint32_t first, uint32_t count, uint8_t windows);
  void WriteTensor(uint32_t agent, uint32_t first, uint32_t count, uint8_t windows);
  /// Columns are given back, which needs no fence, only an order behind all that touched them.
  void FreeTensor(uint32_t warp, uint32_t first, uint32_t count);
  /// tcgen05.fence::after_thread_sync.
  void TensorFence(uint32_t warp) { fenced_[warp] = known_[warp]; }

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
  /// tcgen05 instructions are ordered behind a barrier by a fence of their own.
  void CheckTensorFence(const Access& before, uint32_t agent, const char* what, uint32_t offset);
  /// Whoever the access was made for: "warp 3".
  std::string WarpText(uint32_t agent) const { return "warp " + std::to_string(agent % warps_); }
  std::string PlaceText(uint32_t offset) const;
  void ReadCell(Cell& cell, uint8_t mask, uint32_t at, uint32_t agent, Proxy proxy);
  void WriteCell(Cell& cell, uint8_t mask, uint32_t at, uint32_t agent, Proxy proxy, bool same);
  template <class Body>
  void ForCells(uint32_t offset, uint32_t bytes, Body body);

  uint32_t warps_;
  uint32_t tensor_base_;  ///< Offset of the first column of tensor memory, 4 a column.
  std::vector<VectorClock> known_;
  std::vector<VectorClock> fenced_;  ///< `known_` at the last fence::after_thread_sync.
  std::vector<uint32_t> proxy_fence_;
  std::vector<Cell> cells_;
  std::map<Key, Finding> findings_;
  uint32_t now_ = 1;
  uint32_t line_ = 0;
};

}  // namespace quern::ptx

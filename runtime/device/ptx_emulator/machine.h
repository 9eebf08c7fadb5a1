// What runs: a cluster of CTAs, each a set of warps over shared memory. One host thread runs one
// cluster at a time; clusters share global memory only.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/device/ptx_emulator/emulator.h"
#include "runtime/device/ptx_emulator/program.h"
#include "runtime/device/ptx_emulator/race_check.h"

namespace quern::ptx {

class Cta;
class Cluster;

/// Calls body(lane) for every set bit.
template <class Body>
inline void ForLanes(LaneMask mask, Body body) {
  for (; mask; mask &= mask - 1) body(static_cast<uint32_t>(__builtin_ctz(mask)));
}

enum class AccessKind : uint8_t { kRead, kWrite, kAtomic };

/// Global memory as a launch sees it.
struct GlobalView {
  struct Range {
    uint64_t address, bytes;
    uint8_t* host;
  };
  std::vector<Range> ranges;  ///< By address.
  const Memory* memory = nullptr;
};

/// What all clusters of a launch share; read only.
struct LaunchContext {
  const Code* code = nullptr;
  std::vector<uint8_t> constants;  ///< Code::constants, with the addresses of variables.
  std::vector<uint8_t> parameters;
  GlobalView global;
  LaunchOptions options;
};

/// A copy by cp.async, not done yet.
struct PendingCopy {
  uint32_t lane, destination, bytes, source_bytes, group, line, time;
  uint64_t source;
};

/// A wgmma, not done yet.
struct PendingWgmma {
  const Inst* inst;
  uint64_t a, b;  ///< Matrix descriptors.
  bool accumulate;
  uint32_t group, time;
};

/// A tcgen05.mma, not done yet.
struct PendingTensorMma {
  const Inst* inst;
  uint32_t lane;
  uint64_t number;         ///< Among those of its warp.
  uint64_t a, b;           ///< Matrix descriptors.
  uint32_t d;              ///< First column of the accumulator.
  uint32_t rows, columns;  ///< M, N
  uint32_t descriptor;     ///< Of the instruction.
  bool accumulate;
};

/// A tcgen05.ld or .st, not done yet.
struct PendingTensorMove {
  const Inst* inst;
  uint32_t column;
  std::vector<uint32_t> values;  ///< Of a store: (columns, lanes).
};

/// A bulk copy that belongs to a bulk group of a lane.
struct PendingBulk {
  uint32_t lane, group;
  std::function<void()> run;
};

/// 32 threads that share a program counter while they agree.
class Warp {
 public:
  Warp(Cta& cta, uint32_t id);

  // ---- Operands
  template <class S>
  S* Lanes(const Operand& operand) {
    return reinterpret_cast<S*>(operand.slot >= 0
                                    ? Registers() + operand.slot
                                    : const_cast<uint8_t*>(constants_) + ~operand.slot);
  }
  uint64_t Value(const Operand& operand, uint32_t lane) {
    return operand.bytes == 8 ? Lanes<uint64_t>(operand)[lane] : Lanes<uint32_t>(operand)[lane];
  }
  /// Keeps the low `operand.bytes` bytes.
  void SetValue(const Operand& operand, uint32_t lane, uint64_t value) {
    if (operand.bytes == 8)
      Lanes<uint64_t>(operand)[lane] = value;
    else
      Lanes<uint32_t>(operand)[lane] =
          static_cast<uint32_t>(operand.bytes == 2 ? value & 0xffff : value);
  }
  LaneMask Predicate(const Operand& operand) const {
    return operand.negated ? ~predicates_[operand.slot] : predicates_[operand.slot];
  }
  void SetPredicate(const Operand& operand, LaneMask bits, LaneMask mask) {
    LaneMask& predicate = predicates_[operand.slot];
    predicate = (predicate & ~mask) | (bits & mask);
  }
  LaneMask PredicateAt(int32_t index) const { return predicates_[index]; }
  /// Base plus offset, of a kAddress operand; 32 bits wide where the base is.
  uint64_t Address(const Operand& operand, uint32_t lane) {
    const uint64_t sum = Value(operand, lane) + operand.value;
    return operand.bytes == 8 ? sum : static_cast<uint32_t>(sum);
  }

  // ---- Memory
  /// The `bytes` bytes at `address` of `space`, checked for bounds and for alignment to
  /// `alignment`, a power of two; null after a fault.
  uint8_t* Access(Space space, uint64_t address, uint32_t bytes, uint32_t alignment, uint32_t lane,
                  AccessKind kind);
  uint8_t* Global(uint64_t address, uint32_t bytes, uint32_t alignment, uint32_t lane);
  /// `address`: shared::cta or shared::cluster.
  uint8_t* Shared(uint64_t address, uint32_t bytes, uint32_t alignment, uint32_t lane,
                  AccessKind kind, RaceCheck::Proxy proxy = RaceCheck::Proxy::kGeneric);
  /// Which space a generic address lies in; `address` becomes relative to it.
  static Space SpaceOfGeneric(uint64_t& address);

  // ---- Failures
  /// Ends the launch. The message gets line, instruction and place. The first fault counts.
  void Fault(std::string message, uint32_t lane = kLanes);
  bool Faulted() const;
  /// Faults unless all 32 lanes are there: `.aligned` and tensor-core instructions.
  bool NeedAll(LaneMask mask, const char* what);

  // ---- Waiting
  /// The instruction could not be satisfied; let others run. The program itself loops.
  void Yield(const char* what, uint64_t detail);
  /// Lanes of `mask` stop behind this instruction until Unblock.
  void Block(LaneMask mask, const char* what, uint64_t detail);
  void Unblock(LaneMask mask) { blocked &= ~mask; }

  // ---- Scheduling
  struct Level {
    uint32_t pc, reconverge;
    LaneMask mask;
  };
  /// Runs until it waits, ends, faults or has executed `quantum` instructions.
  void Run(uint64_t quantum);
  bool Done() const { return stack_.empty(); }

  Cta& cta() const { return *cta_; }
  Cluster& cluster() const;
  uint32_t id() const { return id_; }
  uint32_t Line() const { return current_ ? current_->line : 0; }
  LaneMask live = 0;       ///< Lanes that have not ended.
  LaneMask blocked = 0;    ///< Lanes at a barrier.
  LaneMask carry = 0;      ///< Of add.cc and the like.
  uint32_t registers = 0;  ///< Of a thread, by setmaxnreg; 0: those of the launch.
  bool yielded = false;    ///< The last Run ended in Yield.
  bool retry = false;      ///< Yielded, and the instruction must be executed again.
  /// What a blocked or yielded warp waits for.
  struct Wait {
    uint32_t line = 0;
    const char* what = "";
    uint64_t detail = 0;
  } wait;

  // ---- Asynchronous work of this warp
  std::vector<PendingCopy> copies;
  std::array<uint32_t, kLanes> copy_groups = {};  ///< Committed so far, per lane.
  std::vector<PendingBulk> bulks;
  std::array<uint32_t, kLanes> bulk_groups = {};
  std::deque<PendingWgmma> wgmmas;
  uint32_t wgmma_groups = 0;          ///< Committed so far.
  std::vector<uint32_t> wgmma_times;  ///< When, per group; for RaceCheck.
  bool wgmma_fenced = false;          ///< A wgmma.fence was executed.
  std::vector<uint32_t> wgmma_dirty;  ///< Per register slot: line of a write since the fence.
  std::deque<PendingTensorMma> tensor_mmas;
  uint64_t tensor_mma_count = 0;  ///< Issued so far.
  std::vector<PendingTensorMove> tensor_loads, tensor_stores;
  uint64_t cluster_phase_arrived = 0;  ///< barrier.cluster phases this warp arrived at.

  uint8_t* Local(uint32_t lane);

 private:
  uint8_t* Registers() { return reinterpret_cast<uint8_t*>(registers_.get()); }
  void SetSpecials();
  bool StepLevel(Level level, uint64_t& budget);
  void Execute(const Inst& inst, LaneMask mask);
  void CheckAsyncRegisters(const Inst& inst);

  struct AlignedDelete {
    void operator()(uint64_t* p) const;
  };
  Cta* cta_;
  uint32_t id_;
  const uint8_t* constants_;
  std::unique_ptr<uint64_t[], AlignedDelete> registers_;
  std::vector<LaneMask> predicates_;
  std::vector<Level> stack_;
  std::vector<uint8_t> local_;
  const Inst* current_ = nullptr;
  size_t last_range_ = 0;  ///< Of GlobalView::ranges.
};

/// An mbarrier object. PTX ISA 9.7.13.15.
struct Mbarrier {
  uint32_t expected = 0;  ///< Arrivals of a phase.
  int64_t pending = 0;    ///< Arrivals missing in this phase.
  int64_t tx = 0;         ///< Transaction bytes missing.
  uint64_t phase = 0;     ///< Completed phases.
  VectorClock gathered, published;
};

/// One of the 16 barriers of a CTA.
struct Barrier {
  uint32_t arrived = 0;   ///< Threads.
  uint32_t expected = 0;  ///< 0: nobody is here.
  uint32_t line = 0;      ///< Of the first arrival.
  struct Waiter {
    Warp* warp;
    LaneMask mask;
    const Inst* reduction;
  };
  std::vector<Waiter> waiters;
  uint32_t any = 0, all = 1, count = 0;  ///< barrier.red
  VectorClock gathered;
};

inline constexpr uint32_t kBarriers = 16;

class Cta {
 public:
  Cta(Cluster& cluster, uint32_t rank, std::array<uint32_t, 3> index);

  Cluster& cluster() const { return *cluster_; }
  const LaunchContext& context() const;
  uint32_t rank() const { return rank_; }
  uint32_t shared_end() const { return kSharedBase + static_cast<uint32_t>(shared.size()); }
  /// The mbarrier at shared address `address`, or null.
  Mbarrier* FindMbarrier(uint32_t address);
  /// Pending count or tx-count changed: ends the phase where both are zero.
  void UpdateMbarrier(Mbarrier& mbarrier);

  std::array<uint32_t, 3> index;
  std::vector<uint8_t> shared;
  std::array<Barrier, kBarriers> barriers;
  std::map<uint32_t, Mbarrier> mbarriers;  ///< By shared address.
  std::unique_ptr<RaceCheck> races;        ///< Null unless LaunchOptions::check_races.
  std::map<uint32_t, VectorClock>
      sync;  ///< Orders made by atomics, per address; ~0: global memory.
  std::vector<std::unique_ptr<Warp>> warps;
  uint32_t free_registers = 0;  ///< Given up by setmaxnreg.dec.

  // ---- Tensor memory. One CTA has all of its SM's.
  struct TensorColumns {
    uint32_t count;
    uint32_t warp;  ///< Which allocated them.
  };
  std::vector<uint32_t> tensor_memory;  ///< (128 lanes, 512 columns); empty before tcgen05.alloc.
  std::map<uint32_t, TensorColumns> tensor_columns;  ///< Allocated, by the first.
  uint32_t tensor_last_count = kTensorColumns;       ///< Of the last allocation.
  bool tensor_permit = true;                         ///< Not relinquished.

 private:
  Cluster* cluster_;
  uint32_t rank_;
};

/// A copy or matrix product that completes on its own, signalled by an mbarrier.
struct AsyncOperation {
  Warp* issuer;
  uint32_t line;
  std::function<void()> run;
};

/// CTAs that run together. The unit of work of a host thread.
class Cluster {
 public:
  Cluster(const LaunchContext& context, uint64_t number);

  /// Runs all warps to their end. Errors as Launch's.
  Status Run();

  const LaunchContext& context;
  std::vector<std::unique_ptr<Cta>> ctas;
  std::deque<AsyncOperation> async;
  std::vector<uint64_t> counts;  ///< Executions per instruction, with coverage.
  uint64_t steps = 0;            ///< Warp instructions.
  uint64_t events = 0;           ///< Changes that may let a waiting warp go on.
  Status fault;
  std::string fault_detail;

  // barrier.cluster
  uint32_t cluster_arrived = 0;  ///< Warps.
  uint64_t cluster_phase = 0;
  std::vector<std::pair<Warp*, LaneMask>> cluster_waiters;
  std::vector<VectorClock> cluster_gathered;  ///< Per CTA.

  /// The next random number of the schedule; 0 when the seed is.
  uint64_t Random();

 private:
  bool Pass(std::vector<Warp*>& order);
  void CompleteOne();
  Status Deadlock() const;
  void CheckEnd();

  uint64_t random_;
};

}  // namespace quern::ptx

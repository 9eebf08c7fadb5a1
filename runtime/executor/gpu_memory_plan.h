// Where everything of a session lies in its one allocation of device memory.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "runtime/executor/executor.h"

namespace quern {

/// Rows of logits that a GPU computes at a time; a step that wants more runs the epilogue again.
inline constexpr int64_t kGpuLogitRows = 64;

/// Buffers hold multiples of so many rows: f16 numeric rows lie in blocks of 8.
inline constexpr int64_t kGpuRowBlock = 8;
static_assert(kGpuLogitRows % kGpuRowBlock == 0);

/// Offsets in bytes from the start of the allocation, each a multiple of 256.
struct GpuMemoryPlan {
  uint64_t weights = 0;
  /// By schema::RowClass; `capacity` is the rows of each.
  std::array<uint64_t, 2> arenas{};
  std::array<int64_t, 2> capacity{};
  /// The step's arrays in the order of `kGpuInputOrder`.
  uint64_t inputs = 0;
  /// float32 (capacity[Logits], vocab)
  uint64_t logits = 0;
  /// (capacity[Logits], kMaxCandidates) values, then as many tokens
  uint64_t candidates = 0;
  /// (capacity[Tokens], ...) of the kernels, which use them one after the other.
  uint64_t workspace = 0, counters = 0, counter_bytes = 0;
  /// (layers)
  std::vector<uint64_t> kv;
  /// All of it; UINT64_MAX where the sum does not fit 64 bits.
  uint64_t bytes = 0;

  /// What the kernels of a target want for each row of capacity.
  struct PerRow {
    uint64_t workspace_bytes = 0, counters = 0;
  };

  /// The plan of a session with `options`, which were checked.
  static GpuMemoryPlan Make(const Program& program, uint64_t weight_bytes, const PerRow& per_row,
                            const ExecutorOptions& options);
};

/// The arrays of a step as they follow one another, each at a multiple of kBufferAlignment. The
/// page table is the last: where the others begin depends only on how many rows, logit rows and
/// tiles there are.
inline constexpr std::array kGpuInputOrder = {
    schema::StepInput::Tokens,    schema::StepInput::Positions,
    schema::StepInput::Slots,     schema::StepInput::RowSequences,
    schema::StepInput::LogitRows, schema::StepInput::AttentionTiles,
    schema::StepInput::PageTable};

}  // namespace quern

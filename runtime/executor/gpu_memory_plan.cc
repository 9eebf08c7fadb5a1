#include "runtime/executor/gpu_memory_plan.h"

#include <algorithm>
#include <bit>

namespace quern {
namespace {

constexpr uint64_t kDeviceAlignment = 256;

/// Gives out one piece behind the other; saturates.
class Pieces {
 public:
  /// The offset of a piece of count * bytes.
  uint64_t Take(uint64_t count, uint64_t bytes) {
    const uint64_t offset = used_;
    uint64_t size = 0;
    if (__builtin_mul_overflow(count, bytes, &size) ||
        __builtin_add_overflow(size, kDeviceAlignment - 1, &size) ||
        __builtin_add_overflow(used_, size / kDeviceAlignment * kDeviceAlignment, &used_)) {
      used_ = UINT64_MAX;
    }
    return offset;
  }
  uint64_t used() const { return used_; }

 private:
  uint64_t used_ = 0;
};

/// Numbers of a step's arrays at most: every row its own sequence, as long as one can be.
uint64_t MostInputNumbers(const ExecutorOptions& options) {
  const auto rows = static_cast<uint64_t>(options.max_rows);
  const auto pages = static_cast<uint64_t>(std::max<int64_t>(options.sequence_pages, 1));
  const uint64_t padding = kGpuInputOrder.size() * kBufferAlignment / sizeof(int32_t);
  uint64_t table = 0;
  if (pages > uint64_t{1} << 62 || __builtin_mul_overflow(rows, std::bit_ceil(pages), &table)) {
    return UINT64_MAX;
  }
  const uint64_t others = rows * (5 + kAttentionTileFields) + padding;
  return __builtin_add_overflow(table, others, &table) ? UINT64_MAX : table;
}

}  // namespace

GpuMemoryPlan GpuMemoryPlan::Make(const Program& program, uint64_t weight_bytes,
                                  const PerRow& per_row, const ExecutorOptions& options) {
  GpuMemoryPlan plan;
  Pieces pieces;
  const int64_t capacity = (options.max_rows + kGpuRowBlock - 1) / kGpuRowBlock * kGpuRowBlock;
  plan.capacity = {capacity, std::min(capacity, kGpuLogitRows)};
  plan.weights = pieces.Take(1, weight_bytes);
  for (size_t i = 0; i < plan.arenas.size(); ++i) {
    plan.arenas[i] =
        pieces.Take(static_cast<uint64_t>(plan.capacity[i]), program.arena_bytes_per_row[i]);
  }
  plan.inputs = pieces.Take(MostInputNumbers(options), sizeof(int32_t));
  plan.logits =
      pieces.Take(static_cast<uint64_t>(plan.capacity[1]), uint64_t{program.vocab} * sizeof(float));
  plan.candidates = pieces.Take(static_cast<uint64_t>(plan.capacity[1]),
                                kMaxCandidates * (sizeof(float) + sizeof(int32_t)));
  const auto rows = static_cast<uint64_t>(plan.capacity[0]);
  plan.workspace = pieces.Take(rows, per_row.workspace_bytes);
  plan.counter_bytes = rows * per_row.counters * sizeof(int32_t);
  plan.counters = pieces.Take(1, plan.counter_bytes);
  for (const schema::KvLayer& layer : program.kv) {
    plan.kv.push_back(pieces.Take(static_cast<uint64_t>(options.kv_pages), layer.page_bytes()));
  }
  plan.bytes = std::max<uint64_t>(pieces.used(), kDeviceAlignment);
  return plan;
}

}  // namespace quern

#include "runtime/executor/executor.h"

#include <algorithm>
#include <string>

#include "runtime/base/clock.h"

namespace quern {

Status Executor::CheckOptions(const ExecutorOptions& options) {
  if (options.max_rows > 0 && options.max_rows <= 1 << 20) return {};
  return UsageError("max_rows is " + std::to_string(options.max_rows) + ", wanted 1 to 1048576");
}

Status Executor::Step(const StepInput& input) {
  const StepLimits limits{.rows = options_.max_rows,
                          .vocab = program_.vocab,
                          .page_tokens = kv_.page_tokens(),
                          .pages = kv_.pages(),
                          .sequence_pages = options_.sequence_pages,
                          .kept_rows = kept_rows(),
                          .tile_rows = attention_tile_rows_};
  QUERN_RETURN_IF_ERROR(inputs_.Fill(input, limits));
  if (!profiling_) return Run(input);
  profile_.last_role = input.role;
  CountWork();
  const uint64_t begin = NowNanoseconds();
  Status status = Run(input);
  ++profile_.steps.calls;
  profile_.steps.nanoseconds += NowNanoseconds() - begin;
  return status;
}

Status Executor::ReadLogits(int64_t row, float* /*logits*/) {
  return UsageError("logit row " + std::to_string(row) + " was not kept");
}

void Executor::SetProfiling(bool enabled) {
  profiling_ = false;
  if (!enabled) return;
  profile_ = {};
  profile_.kernels.resize(program_.kernel_names.size());
  profile_.work.resize(program_.kernel_names.size());
  size_t spans = program_.bodies[program_.prologue.body].size() +
                 program_.bodies[program_.epilogue.body].size();
  for (const BodyCall& layer : program_.layers) spans += program_.bodies[layer.body].size();
  profile_.timeline.resize(static_cast<size_t>(threads()));
  for (auto& thread : profile_.timeline) thread.reserve(spans);  // steps allocate nothing
  profiling_ = true;  // once there is room for the numbers
}

void Executor::CountWork() {
  std::fill(profile_.work.begin(), profile_.work.end(), ProfileWork());
  const std::array<double, 2> rows = {static_cast<double>(inputs_.rows()),
                                      static_cast<double>(inputs_.logit_rows())};
  const auto count = [&](const BodyCall& call) {
    for (const Instruction& d : program_.bodies[call.body]) {
      if (d.op != schema::Op::Dispatch || d.merge) continue;
      const DispatchWork& work = d.work;
      const double row_count = rows[static_cast<size_t>(d.row_class)];
      SeenKeys seen;
      if (work.flops_per_pair > 0) seen = inputs_.CountKeys(work.window);
      ProfileWork& entry = profile_.work[d.kernel];
      ++entry.dispatches;
      entry.bytes += static_cast<double>(work.weight_bytes) +
                     row_count * static_cast<double>(work.bytes_per_row) +
                     seen.keys * static_cast<double>(work.bytes_per_key);
      entry.flops += row_count * static_cast<double>(work.flops_per_row) +
                     seen.pairs * static_cast<double>(work.flops_per_pair);
    }
  };
  count(program_.prologue);
  for (const BodyCall& layer : program_.layers) count(layer);
  if (inputs_.logit_rows() > 0) count(program_.epilogue);
}

}  // namespace quern

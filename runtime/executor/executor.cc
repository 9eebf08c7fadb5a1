#include "runtime/executor/executor.h"

#include <chrono>
#include <string>

namespace quern {

Status Executor::CheckOptions(const ExecutorOptions& options) {
  if (options.max_rows > 0 && options.max_rows <= 1 << 20) return {};
  return UsageError("max_rows is " + std::to_string(options.max_rows) + ", wanted 1 to 1048576");
}

Status Executor::Step(const StepInput& input) {
  const StepLimits limits{options_.max_rows, program_.vocab, kv_.page_tokens(), kv_.pages(),
                          kept_rows()};
  QUERN_RETURN_IF_ERROR(inputs_.Fill(input, limits));
  ProfileTimer timer(profiling_ ? &profile_.steps : nullptr);
  return Run(input);
}

Status Executor::ReadLogits(int64_t row, float* /*logits*/) {
  return UsageError("logit row " + std::to_string(row) + " was not kept");
}

void Executor::SetProfiling(bool enabled) {
  profiling_ = false;
  if (!enabled) return;
  profile_ = {};
  profile_.kernels.resize(program_.kernel_names.size());
  profiling_ = true;  // once there is room for the numbers
}

uint64_t NowNanoseconds() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

}  // namespace quern

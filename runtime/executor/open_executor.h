// The executor for a device named by `--device=`.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/executor/executor.h"
#include "runtime/loader/artifact.h"

namespace quern {

/// An executor and what was chosen for it.
struct OpenedExecutor {
  std::unique_ptr<Executor> executor;
  /// Name of the artifact's target that it runs.
  std::string target;
  /// "cpu", "cuda:0", "ptx-emulator".
  std::string device;
};

/// An executor of `artifact`, which must outlive it, on `device`: "cpu" (or empty), "cuda" or
/// "cuda:N", "ptx-emulator" or "ptx-emulator:sm_80". `isa` names a target of the artifact; empty:
/// the best that the device runs. Errors: kUsage for another device or isa; those of the executors.
Result<OpenedExecutor> OpenExecutor(const Artifact& artifact, std::string_view device,
                                    std::string_view isa, const ExecutorOptions& options);

}  // namespace quern

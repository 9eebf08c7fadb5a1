// Runs a program on the CPU, over threads.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/host/code_image.h"
#include "runtime/device/host/host_memory.h"
#include "runtime/device/host/thread_pool.h"
#include "runtime/executor/executor.h"

namespace quern {

/// One target's kernels, by the manifest's kernel index.
struct KernelTable {
  struct Kernel {
    /// By schema::Role.
    std::array<KernelEntry, kRoleCount> entries{};
  };
  std::vector<Kernel> kernels;
  /// The most that any of them needs, per thread.
  uint64_t scratch_bytes = 0;
  /// Where the kernels are; null when they are this process's own functions.
  std::shared_ptr<const CodeImage> image;

  /// The kernels of target `target`, entered in `image`.
  static KernelTable FromImage(const schema::Manifest& manifest, size_t target, CodeImage image);
};

/// Thread t of T owns shares [t * S / T, (t + 1) * S / T); results depend on S only.
class HostExecutor final : public Executor {
 public:
  /// `kernels` has all kernels of the program; `weights`, the weights segment, must
  /// outlive the executor. Errors: kOutOfMemory with the bytes wanted when they
  /// exceed the machine's; kUsage.
  static Result<std::unique_ptr<HostExecutor>> Create(Program program, KernelTable kernels,
                                                      std::span<const uint8_t> weights,
                                                      const ExecutorOptions& options);

  /// Bytes that Create asks for; saturates.
  static uint64_t BytesNeeded(const Program& program, uint64_t scratch_bytes,
                              const ExecutorOptions& options);

  int threads() const override { return pool_->size(); }
  uint64_t bytes() const override {
    return BytesNeeded(program_, kernels_.scratch_bytes, options_);
  }

 private:
  class StepThread;
  HostExecutor(Program program, KernelTable kernels, std::span<const uint8_t> weights,
               const ExecutorOptions& options)
      : Executor(std::move(program), options), kernels_(std::move(kernels)), weights_(weights) {}
  Status Allocate();
  Status Run(const StepInput& input) override;

  KernelTable kernels_;
  std::span<const uint8_t> weights_;
  std::unique_ptr<ThreadPool> pool_;
  std::array<HostMemory, 2> arenas_;  // by schema::RowClass
  HostMemory thread_memory_;          // per thread: private buffers, then scratch
  uint64_t thread_stride_ = 0;
  uint64_t private_bytes_ = 0;
};

}  // namespace quern

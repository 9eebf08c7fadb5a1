// Runs a program on the CPU, over threads.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/host/code_image.h"
#include "runtime/device/host/host_memory.h"
#include "runtime/device/host/team.h"
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

/// The n-th of N threads of a step owns shares [n * S / N, (n + 1) * S / N); results depend on S
/// only.
///
/// In a small step a thread that is absent for long is left behind (team.h). What it still writes
/// would be read by nobody, but might fall on what others wrote: so the step moves to another small
/// arena, where the shares of the absent are computed again, and the old one is left alone until
/// the thread is back. There is one for every thread.
class HostExecutor final : public Executor {
 public:
  /// `kernels` has all kernels of the program; `weights`, the weights segment, must
  /// outlive the executor. Errors: kOutOfMemory with the bytes wanted when they
  /// exceed the machine's; kUsage.
  static Result<std::unique_ptr<HostExecutor>> Create(Program program, KernelTable kernels,
                                                      std::span<const uint8_t> weights,
                                                      const ExecutorOptions& options);

  /// Bytes of one thread: private buffers, the scratch of a target's kernels, and its arena of
  /// small steps. Of `program` only the sizes are read.
  static uint64_t ThreadBytes(const Program& program, uint64_t scratch_bytes);

  /// Bytes of one thread for the attention states of a small step: for one block of its contexts;
  /// and where a sequence has `sequence_pages` pages at most, which saturates.
  static uint64_t StateBytesPerBlock(const Program& program);
  static uint64_t StateBytes(const Program& program, int64_t sequence_pages);

  /// Bytes that Create asks for; saturates.
  static uint64_t BytesNeeded(const Program& program, uint64_t scratch_bytes,
                              const ExecutorOptions& options);

  int threads() const override { return team_->size(); }
  uint64_t bytes() const override {
    return BytesNeeded(program_, kernels_.scratch_bytes, options_);
  }

 private:
  class StepThread;
  HostExecutor(Program program, KernelTable kernels, std::span<const uint8_t> weights,
               const ExecutorOptions& options)
      : Executor(std::move(program), options), kernels_(std::move(kernels)), weights_(weights) {}
  /// A dispatch or join of the step, in order.
  struct Point {
    const Instruction* instruction;
    const BodyCall* call;
    int32_t layer;
    /// Touches pages or the step's inputs.
    bool attached;
    /// Slot of the weights that shares stream through, or -1.
    int64_t stream;
    /// The next point that has one, or the last point.
    size_t next_stream = 0;
  };
  static int64_t StreamOf(const Instruction& instruction);
  Status Allocate();
  void ListPoints();
  void AddPoints(const BodyCall& call, int32_t layer);
  bool CanTakeOver() const;
  Status Run(const StepInput& input) override;
  void Share(std::span<const int> members);
  /// Deals out the attention of the step whose inputs lie in inputs_.
  void DealAttention(bool small);
  /// A small arena that no thread which was left behind may write to, but for `used`.
  size_t FreeArena(int64_t used) const;
  std::byte* SmallArena(size_t index) const { return small_arenas_.data() + index * small_stride_; }
  /// What attention's parts of contexts leave to be merged, beside the small arena.
  std::byte* States(size_t arena) const { return states_.data() + arena * state_stride_; }

  KernelTable kernels_;
  std::span<const uint8_t> weights_;
  std::vector<Point> points_;
  size_t epilogue_ = 0;  // in points_
  bool can_take_over_ = false;
  std::array<HostMemory, 2> arenas_;  // by schema::RowClass, of large steps
  HostMemory small_arenas_;           // per thread: both row classes, then logits
  uint64_t small_stride_ = 0;
  std::array<uint64_t, 3> small_offsets_{};  // by schema::RowClass, then of the logits
  HostMemory states_;                        // per thread: attention states of a small step
  uint64_t state_stride_ = 0;
  HostMemory thread_memory_;  // per thread: private buffers, then scratch
  uint64_t thread_stride_ = 0;
  uint64_t private_bytes_ = 0;

  // The step.
  const StepInput* input_ = nullptr;
  std::vector<AttentionWork> attention_;  // by Program::attention
  /// All attention is cut as the shares are; some must be merged.
  bool aligned_ = true, merges_ = false;
  // What its threads agree on: changes only while all others wait in a join. Atomic, since a thread
  // that is being left behind may still look.
  std::vector<std::atomic<int>> owners_;  // (shares) the thread that computes each
  std::atomic<size_t> arena_{0};          // the small arena in use
  /// (threads) the small arena that a thread which was left behind may write to, or -1.
  std::vector<int64_t> left_in_;

  std::unique_ptr<Team> team_;  // last: its threads use all of the above
};

}  // namespace quern

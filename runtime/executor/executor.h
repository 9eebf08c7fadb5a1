// Runs a program in ragged steps. HostExecutor does it on the CPU, GpuExecutor on a GPU.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/executor/candidate.h"
#include "runtime/executor/kv_cache.h"
#include "runtime/executor/program.h"
#include "runtime/executor/step_inputs.h"

namespace quern {

struct ExecutorOptions {
  /// Of the CPU. No more than the program's shares are used.
  int threads = 1;
  bool pin_threads = false;
  /// Of the CPU: nanoseconds that a join of a small step waits at least before it goes on without
  /// an absent thread, and does its shares. Negative: for ever.
  int64_t patience = 50'000;
  /// Most rows of a step: the capacity of the arena.
  int64_t max_rows = 512;
  /// Pages of keys and values.
  int64_t kv_pages = 1;
  /// Of them, those of one sequence at most.
  int64_t sequence_pages = kv_pages;
  /// Told, as weights are copied to a device, how many bytes are there and how many there will be.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

/// One dispatch or join of one thread, in nanoseconds of NowNanoseconds().
struct ProfileSpan {
  static constexpr int32_t kJoin = -1;
  /// In Program::kernel_names, or kJoin.
  int32_t kernel = kJoin;
  /// -1: the prologue; as many as there are layers: the epilogue.
  int32_t layer = -1;
  uint64_t begin = 0, end = 0;
};

/// What the dispatches of one kernel computed and moved in a step, over all shares. Products of a
/// manifest's numbers, so in floating point, which does not wrap.
struct ProfileWork {
  uint64_t dispatches = 0;
  double bytes = 0;
  double flops = 0;
};

/// Time since profiling was enabled: as the calling thread saw it, or of the kernels on a GPU.
struct Profile {
  struct Entry {
    uint64_t calls = 0;
    uint64_t nanoseconds = 0;
  };
  /// (kernels) by role.
  std::vector<std::array<Entry, kRoleCount>> kernels;
  /// Waiting for other threads.
  Entry joins;
  /// Whole steps.
  Entry steps;
  /// (threads) what each thread of the CPU did in the last step, in order; empty on a
  /// GPU.
  std::vector<std::vector<ProfileSpan>> timeline;
  /// (kernels) of the last step.
  std::vector<ProfileWork> work;
  schema::Role last_role = schema::Role::Decode;
};

/// Owns working memory and pages. Steps are one at a time.
class Executor {
 public:
  virtual ~Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// Runs one step. Errors: kUsage, before anything was touched; those of a GpuDevice.
  Status Step(const StepInput& input);

  /// A step of at most so many logit rows may leave its logits with the executor: 0 on the CPU, and
  /// where the artifact has no samplers. They are there until the next step with logit rows.
  virtual int64_t kept_rows() const { return 0; }
  /// Copies kept logit row `row` to `logits` (vocab). Errors: kUsage when it was not kept; those of
  /// a GpuDevice.
  virtual Status ReadLogits(int64_t row, float* logits);
  /// The best logits of kept row `row`, the best first, of equal ones the lowest token; a NaN would
  /// be before all. As many as StepInput::candidates asked for or more, unless the executor finds
  /// no more; empty when none were asked for. Valid until the next step.
  virtual std::span<const Candidate> candidates(int64_t /*row*/) const { return {}; }

  KvCache& kv() { return kv_; }
  const KvCache& kv() const { return kv_; }
  const Program& program() const { return program_; }
  int64_t max_rows() const { return options_.max_rows; }
  /// Threads of the CPU that work.
  virtual int threads() const = 0;
  /// Bytes of working memory, pages and what else was allocated.
  virtual uint64_t bytes() const = 0;

  /// Starts measuring from zero, or stops.
  void SetProfiling(bool enabled);
  const Profile& profile() const { return profile_; }
  /// Rows of the last step, and those of them that got logits.
  std::array<int64_t, 2> last_rows() const { return {inputs_.rows(), inputs_.logit_rows()}; }

 protected:
  Executor(Program program, const ExecutorOptions& options)
      : program_(std::move(program)), options_(options) {}

  /// The step whose inputs were checked and lie in inputs_.
  virtual Status Run(const StepInput& input) = 0;

  /// Errors: kUsage, for options out of range.
  static Status CheckOptions(const ExecutorOptions& options);

  /// Fills profile_.work for the step whose inputs lie in inputs_.
  void CountWork();

  Program program_;
  ExecutorOptions options_;
  KvCache kv_;
  StepInputs inputs_;
  /// Of the target, at most.
  int64_t attention_tile_rows_ = kAttentionTileRows;
  bool profiling_ = false;
  Profile profile_;
};

}  // namespace quern

// Runs a program in ragged steps, over threads.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/host/host_memory.h"
#include "runtime/device/host/thread_pool.h"
#include "runtime/executor/kv_cache.h"
#include "runtime/executor/program.h"
#include "runtime/executor/step_inputs.h"

namespace quern {

struct ExecutorOptions {
  /// No more than the program's shares are used.
  int threads = 1;
  bool pin_threads = false;
  /// Most rows of a step: the capacity of the arena.
  int64_t max_rows = 512;
  /// Pages of keys and values.
  int64_t kv_pages = 1;
};

/// Time in the calling thread since profiling was enabled.
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
};

/// Owns threads, working memory and pages. Thread t of T owns shares [t * S / T, (t + 1) * S / T);
/// results depend on S only. Steps are one at a time.
class Executor {
 public:
  /// Errors: kOutOfMemory with the bytes wanted when they exceed the machine's; kUsage.
  static Result<std::unique_ptr<Executor>> Create(Program program, const ExecutorOptions& options);

  /// Bytes that Create asks for; saturates.
  static uint64_t BytesNeeded(const Program& program, const ExecutorOptions& options);

  /// Runs one step. Errors: kUsage, before anything was touched.
  Status Step(const StepInput& input);

  KvCache& kv() { return kv_; }
  const KvCache& kv() const { return kv_; }
  const Program& program() const { return program_; }
  int threads() const { return pool_->size(); }
  int64_t max_rows() const { return options_.max_rows; }
  uint64_t bytes() const { return BytesNeeded(program_, options_); }

  /// Starts measuring from zero, or stops.
  void SetProfiling(bool enabled);
  const Profile& profile() const { return profile_; }

 private:
  class StepThread;
  Executor(Program program, const ExecutorOptions& options)
      : program_(std::move(program)), options_(options) {}
  Status Allocate();

  Program program_;
  ExecutorOptions options_;
  std::unique_ptr<ThreadPool> pool_;
  KvCache kv_;
  std::array<HostMemory, 2> arenas_;  // by schema::RowClass
  HostMemory thread_memory_;          // per thread: private buffers, then scratch
  uint64_t thread_stride_ = 0;
  uint64_t private_bytes_ = 0;
  StepInputs inputs_;
  bool profiling_ = false;
  Profile profile_;
};

}  // namespace quern

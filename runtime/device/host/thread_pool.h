// A fixed team of threads that runs one function at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "runtime/base/status.h"

namespace quern {

/// Where the threads of a team wait for each other inside a job. Waiters spin: a step has dozens of
/// joins, microseconds apart, and sleeping would cost more than the work between them. After a
/// while a waiter offers its CPU (sched_yield), so that a machine with more threads than CPUs goes
/// on.
class SpinBarrier {
 public:
  explicit SpinBarrier(int threads) : threads_(threads) {}

  /// Returns when all threads of the team have called it. What each wrote before is visible to all.
  void Wait();

 private:
  const int threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
};

/// A team of `size()` threads, the caller of Run among them. Between jobs the others spin briefly,
/// then sleep.
class ThreadPool {
 public:
  struct Options {
    int threads = 1;
    /// Bind thread i > 0 to the i-th CPU that the process may use. The caller's thread is left as
    /// it is: it is not ours.
    bool pin = false;
  };

  /// Error: kFailure when the system gives no more threads.
  static Result<std::unique_ptr<ThreadPool>> Create(const Options& options);
  ~ThreadPool();

  int size() const { return size_; }

  /// Calls job(thread) for thread = 0 .. size() - 1, each on its own thread, 0 on the caller's, and
  /// returns when all have returned. One Run at a time.
  void Run(const std::function<void(int)>& job);

  /// For use inside a job: see SpinBarrier.
  void Join() { barrier_.Wait(); }

 private:
  explicit ThreadPool(int size) : size_(size), barrier_(size) {}
  void Work(int thread);

  const int size_;
  SpinBarrier barrier_;
  const std::function<void(int)>* job_ = nullptr;  // published by job_number_
  alignas(64) std::atomic<uint32_t> job_number_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace quern

#include "runtime/device/host/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <string>
#include <system_error>

namespace quern {
namespace {

/// Spins before a waiter offers its CPU: about 50 us at the 30-40 ns of a `pause`.
constexpr int kSpinsBeforeYield = 1500;
/// Spins of an idle worker before it sleeps: a few ms, longer than what lies between two tokens.
constexpr int kSpinsBeforeSleep = 60000;

void Pause() { __builtin_ia32_pause(); }

void PinTo(std::thread& thread, int nth) {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (sched_getaffinity(0, sizeof(usable), &usable) != 0) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &usable) || nth-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    // Failure only costs speed.
    pthread_setaffinity_np(thread.native_handle(), sizeof(one), &one);
    return;
  }
}

}  // namespace

void SpinBarrier::Wait() {
  if (threads_ == 1) return;
  const uint32_t round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
    if (spins < kSpinsBeforeYield) {
      Pause();
    } else {
      sched_yield();
    }
  }
}

Result<std::unique_ptr<ThreadPool>> ThreadPool::Create(const Options& options) {
  std::unique_ptr<ThreadPool> pool(new ThreadPool(options.threads));
  for (int thread = 1; thread < options.threads; ++thread) {
    try {
      pool->workers_.emplace_back([raw = pool.get(), thread] { raw->Work(thread); });
    } catch (const std::system_error& error) {
      return Failure("cannot start thread " + std::to_string(thread + 1) + " of " +
                     std::to_string(options.threads) + " (" + error.what() + "); use fewer");
    }
    if (options.pin) PinTo(pool->workers_.back(), thread);
  }
  return pool;
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  job_number_.fetch_add(1, std::memory_order_release);
  job_number_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(const std::function<void(int)>& job) {
  job_ = &job;
  if (size_ > 1) {
    job_number_.fetch_add(1, std::memory_order_release);
    job_number_.notify_all();
  }
  job(0);
  barrier_.Wait();
}

void ThreadPool::Work(int thread) {
  for (uint32_t seen = 0;;) {
    uint32_t number = seen;
    for (int spins = 0; (number = job_number_.load(std::memory_order_acquire)) == seen; ++spins) {
      if (spins < kSpinsBeforeSleep) {
        Pause();
      } else {
        job_number_.wait(seen, std::memory_order_acquire);
      }
    }
    seen = number;
    if (stop_.load(std::memory_order_relaxed)) return;
    (*job_)(thread);
    barrier_.Wait();
  }
}

}  // namespace quern

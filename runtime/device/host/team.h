// Threads that walk through a step together, and go on without those that are absent.
#pragma once

#include <time.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "runtime/base/status.h"

namespace quern {

/// A team of `size()` threads, the caller of Run among them as thread 0. Between steps the others
/// spin briefly, then sleep.
///
/// A step has dozens of joins, microseconds apart, so waiters spin. The scheduler may take a
/// thread's CPU away for milliseconds, longer than a step. A waiter that loses its patience and
/// sees that a thread does not run therefore leaves the absent threads behind: it does what they
/// owe since the join before, and the others finish the step. Whoever was left behind notices at
/// its next Enter or Join, goes home, and takes part in the next step that begins afterwards. The
/// caller of Run may be left behind as well; it then waits for the end.
class Team {
 public:
  struct Options {
    int threads = 1;
    /// Bind thread i > 0 to the i-th CPU that the process may use. The caller's thread is left as
    /// it is: it is not ours.
    bool pin = false;
  };
  /// What thread `thread` does in a step. It ends with a Join; false: it was left behind.
  using Work = std::function<bool(int thread)>;
  /// Does what the `absent` threads owe since the join before.
  using TakeOver = std::function<void(std::span<const int> absent)>;
  /// What a thread does while it waits, a fraction of a microsecond at a time. False: nothing.
  using Meanwhile = std::function<bool()>;

  /// Error: kFailure when the system gives no more threads.
  static Result<std::unique_ptr<Team>> Create(const Options& options, Work work);
  ~Team();

  int size() const { return static_cast<int>(seats_.size()); }

  /// Begins a step: the threads that take part, in ascending order, thread 0 among them. With a
  /// negative patience these are all threads, which it waits for, and nobody is left behind.
  /// Otherwise a join waits `patience` nanoseconds, but never less than half of what the thread
  /// needed since the join before; then also for threads that run, but not for ever. With a
  /// patience of 0 nobody looks whether they run.
  std::span<const int> Gather(int64_t patience);

  /// Calls work(thread) on every gathered thread, each on its own, and returns when the step is
  /// over and no thread that was left behind is attached. One step at a time.
  void Run();

  /// For use inside `work`. `attached`: what follows touches memory that is only there for the
  /// step. False: this thread was left behind, and must touch nothing any more.
  bool Enter(int thread, bool attached);

  /// Waits until all other threads of the step have called it. In a team of several, `meanwhile` is
  /// called once, and again as long as others are missing. What each wrote before is then visible
  /// to all. False: this thread was left behind, and must touch nothing any more.
  bool Join(int thread, const TakeOver& take_over, const Meanwhile& meanwhile = {});

 private:
  struct Seat {
    /// Twice the joins reached, over all steps; odd once the thread was left behind.
    alignas(64) std::atomic<uint64_t> place{0};
    std::atomic<bool> member{false};
    std::atomic<bool> attached{false};
    /// Numbers of the last step that the thread was called into, came home from, and finished.
    alignas(64) std::atomic<uint32_t> called{0};
    std::atomic<uint32_t> home{0};
    std::atomic<uint32_t> finished{0};
    /// Of its CPU time (thread 0: of who called last), or -1.
    std::atomic<clockid_t> clock{-1};
    /// The thread's own: the step's patience, and when it left its last join, nanoseconds.
    alignas(64) int64_t patience = 0;
    int64_t left_join = 0;
  };

  Team(int threads, Work work) : work_(std::move(work)), seats_(static_cast<size_t>(threads)) {}
  Seat& seat(int thread) { return seats_[static_cast<size_t>(thread)]; }
  static bool IsHome(const Seat& seat);
  void Serve(int thread);
  void DoStep(int thread, uint32_t step);
  void WaitForJoin(Seat& seat, uint64_t place, const TakeOver& take_over,
                   const Meanwhile& meanwhile);
  bool IsMissing(const Seat& seat, uint64_t place) const;
  bool AnyMissing(uint64_t place) const;
  /// Whether all missing threads have a CPU. Takes a few microseconds.
  bool MissingRun(uint64_t place) const;
  void LeaveMissingBehind(uint64_t place, const TakeOver& take_over);

  const Work work_;
  std::vector<Seat> seats_;
  std::vector<int> members_, absent_;
  int64_t patience_ = 0;
  uint32_t step_ = 0;
  std::atomic<bool> leaving_behind_{false};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace quern

#include "runtime/device/host/team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "runtime/base/clock.h"

namespace quern {
namespace {

/// Spins of a waiter between two looks at the clock: 2 to 3 us at the 30-40 ns of a `pause`.
constexpr int kSpinsPerLook = 64;
/// A thread that ran for less than half of so many nanoseconds has no CPU.
constexpr int64_t kGlance = 5'000;
/// How many times its patience a waiter waits for threads that run: a hypervisor may have stopped
/// one, which the system does not see.
constexpr int64_t kPatienceWithRunning = 20;
/// Looks after which a waiter that leaves nobody behind offers its CPU: about 50 us.
constexpr int kLooksBeforeYield = 24;
/// Spins of an idle worker before it sleeps: a few ms, longer than what lies between two tokens.
constexpr int kSpinsBeforeSleep = 60000;

void Pause() { __builtin_ia32_pause(); }

int64_t Now() { return static_cast<int64_t>(NowNanoseconds()); }

/// The clock of the CPU time of `thread`, or -1, which is none.
clockid_t CpuClock(pthread_t thread) {
  clockid_t clock = 0;
  return pthread_getcpuclockid(thread, &clock) == 0 ? clock : -1;
}

/// Nanoseconds; 0 where there is no such clock.
int64_t CpuTime(clockid_t clock) {
  timespec time{};
  if (clock_gettime(clock, &time) != 0) return 0;
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// Waits for something that other threads do in microseconds, unless their CPU was taken away.
template <typename Condition>
void SpinUntil(const Condition& condition) {
  for (int spins = 0; !condition(); ++spins) {
    if (spins < kSpinsPerLook * kLooksBeforeYield) {
      Pause();
    } else {
      sched_yield();
    }
  }
}

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

Result<std::unique_ptr<Team>> Team::Create(const Options& options, Work work) {
  std::unique_ptr<Team> team(new Team(options.threads, std::move(work)));
  team->members_.reserve(team->seats_.size());
  team->absent_.reserve(team->seats_.size());
  for (int thread = 1; thread < options.threads; ++thread) {
    try {
      team->workers_.emplace_back([raw = team.get(), thread] { raw->Serve(thread); });
    } catch (const std::system_error& error) {
      return Failure("cannot start thread " + std::to_string(thread + 1) + " of " +
                     std::to_string(options.threads) + " (" + error.what() + "); use fewer");
    }
    team->seat(thread).clock = CpuClock(team->workers_.back().native_handle());
    if (options.pin) PinTo(team->workers_.back(), thread);
  }
  return team;
}

Team::~Team() {
  stop_.store(true, std::memory_order_relaxed);
  for (size_t thread = 1; thread <= workers_.size(); ++thread) {
    seats_[thread].called.fetch_add(1, std::memory_order_release);
    seats_[thread].called.notify_one();
  }
  for (std::thread& worker : workers_) worker.join();
}

bool Team::IsHome(const Seat& seat) {
  return seat.home.load(std::memory_order_acquire) == seat.called.load(std::memory_order_relaxed);
}

std::span<const int> Team::Gather(int64_t patience) {
  patience_ = patience;
  ++step_;
  seat(0).clock.store(CpuClock(pthread_self()), std::memory_order_relaxed);
  uint64_t furthest = 0;
  for (const Seat& seat : seats_) {
    furthest = std::max(furthest, seat.place.load(std::memory_order_relaxed));
  }
  members_.clear();
  for (int thread = 0; thread < size(); ++thread) {
    Seat& seat = this->seat(thread);
    if (thread > 0 && patience < 0) SpinUntil([&] { return IsHome(seat); });
    const bool member = thread == 0 || IsHome(seat);
    if (member) {
      members_.push_back(thread);
      // Never backwards: a thread that is still about to leave the last join of an earlier step
      // looks at all places.
      seat.place.store((furthest + 1) / 2 * 2, std::memory_order_relaxed);
    }
    seat.member.store(member, std::memory_order_release);
  }
  return members_;
}

void Team::Run() {
  for (int thread : members_) {
    if (thread == 0) continue;
    seat(thread).called.store(step_, std::memory_order_release);
    seat(thread).called.notify_one();
  }
  DoStep(0, step_);
  SpinUntil([&] {  // at once, unless the caller was left behind
    return std::any_of(seats_.begin(), seats_.end(), [&](const Seat& seat) {
      return seat.finished.load(std::memory_order_acquire) == step_;
    });
  });
  for (const Seat& seat : seats_) {
    if (seat.member.load(std::memory_order_relaxed)) continue;
    SpinUntil([&] { return !seat.attached.load(std::memory_order_seq_cst); });
  }
}

void Team::Serve(int thread) {
  Seat& seat = this->seat(thread);
  for (uint32_t seen = 0;;) {
    uint32_t step = seen;
    for (int spins = 0; (step = seat.called.load(std::memory_order_acquire)) == seen; ++spins) {
      if (spins < kSpinsBeforeSleep) {
        Pause();
      } else {
        seat.called.wait(seen, std::memory_order_acquire);
      }
    }
    seen = step;
    if (stop_.load(std::memory_order_relaxed)) return;
    DoStep(thread, step);
    seat.home.store(step, std::memory_order_release);
  }
}

void Team::DoStep(int thread, uint32_t step) {
  Seat& seat = this->seat(thread);
  // What there is to do is only there for the step.
  if (Enter(thread, true)) {
    seat.patience = patience_;
    if (patience_ >= 0) seat.left_join = Now();
    if (work_(thread)) seat.finished.store(step, std::memory_order_release);
  }
  seat.attached.store(false, std::memory_order_release);
}

bool Team::Enter(int thread, bool attached) {
  if (size() == 1) return true;
  Seat& seat = this->seat(thread);
  // Either this thread sees here that it was left behind, or Run sees that it is attached.
  if (seat.attached.load(std::memory_order_relaxed) != attached) {
    seat.attached.store(attached, std::memory_order_seq_cst);
  }
  if (seat.place.load(std::memory_order_seq_cst) % 2 == 0) return true;
  seat.attached.store(false, std::memory_order_release);
  return false;
}

bool Team::Join(int thread, const TakeOver& take_over, const Meanwhile& meanwhile) {
  if (size() == 1) return true;
  Seat& seat = this->seat(thread);
  uint64_t place = seat.place.load(std::memory_order_relaxed);
  if (place % 2 != 0 ||
      !seat.place.compare_exchange_strong(place, place + 2, std::memory_order_seq_cst)) {
    return false;
  }
  if (meanwhile) meanwhile();
  WaitForJoin(seat, place + 2, take_over, meanwhile);
  return true;
}

void Team::WaitForJoin(Seat& seat, uint64_t place, const TakeOver& take_over,
                       const Meanwhile& meanwhile) {
  int64_t arrived = 0;
  for (int spins = 1; AnyMissing(place); ++spins) {
    if (!meanwhile || !meanwhile()) Pause();
    if (spins % kSpinsPerLook != 0) continue;
    if (seat.patience < 0) {
      if (spins > kSpinsPerLook * kLooksBeforeYield) sched_yield();
      continue;
    }
    const int64_t now = Now();
    if (arrived == 0) arrived = now;
    const int64_t patience = std::max(seat.patience, (arrived - seat.left_join) / 2);
    const int64_t waited = now - arrived;
    if (waited < patience) continue;
    if (seat.patience > 0 && waited < kPatienceWithRunning * patience && MissingRun(place))
      continue;
    LeaveMissingBehind(place, take_over);
  }
  if (seat.patience >= 0) seat.left_join = Now();
}

bool Team::IsMissing(const Seat& seat, uint64_t place) const {
  return seat.member.load(std::memory_order_acquire) &&
         seat.place.load(std::memory_order_acquire) < place;
}

bool Team::AnyMissing(uint64_t place) const {
  return std::any_of(seats_.begin(), seats_.end(),
                     [&](const Seat& seat) { return IsMissing(seat, place); });
}

bool Team::MissingRun(uint64_t place) const {
  const auto runs = [&](const Seat& seat) {
    const clockid_t clock = seat.clock.load(std::memory_order_relaxed);
    const int64_t ran = CpuTime(clock), begin = Now();
    while (IsMissing(seat, place)) {
      if (Now() - begin >= kGlance) return CpuTime(clock) - ran >= kGlance / 2;
      Pause();
    }
    return true;
  };
  return std::all_of(seats_.begin(), seats_.end(),
                     [&](const Seat& seat) { return !IsMissing(seat, place) || runs(seat); });
}

void Team::LeaveMissingBehind(uint64_t place, const TakeOver& take_over) {
  if (leaving_behind_.exchange(true, std::memory_order_acquire)) return;  // another waiter does
  absent_.clear();
  for (int thread = 0; thread < size(); ++thread) {
    Seat& seat = this->seat(thread);
    if (!IsMissing(seat, place)) continue;
    // It either arrives or is left behind; now all others have arrived.
    uint64_t at = seat.place.load(std::memory_order_relaxed);
    while (at < place && !seat.place.compare_exchange_weak(at, at + 1, std::memory_order_seq_cst)) {
    }
    if (at < place) absent_.push_back(thread);
  }
  if (!absent_.empty()) take_over(absent_);
  for (int thread : absent_) seat(thread).member.store(false, std::memory_order_release);
  leaving_behind_.store(false, std::memory_order_release);
}

}  // namespace quern

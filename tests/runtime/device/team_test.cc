#include "runtime/device/host/team.h"

#include <gtest/gtest.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

namespace quern {
namespace {

constexpr int64_t kForEver = -1;

std::unique_ptr<Team> Make(int threads, Team::Work work, bool pin = false) {
  auto team = Team::Create({.threads = threads, .pin = pin}, std::move(work));
  EXPECT_TRUE(team.ok()) << team.status().message();
  return std::move(team).value();
}

/// More threads than this machine may have, so that waiters must give way.
class PatientTeam : public ::testing::TestWithParam<int> {};

TEST_P(PatientTeam, EveryThreadTakesPartInEveryStepOnce) {
  std::vector<int> counts(static_cast<size_t>(GetParam()));
  std::unique_ptr<Team> team;
  team = Make(GetParam(), [&](int thread) {
    ++counts[static_cast<size_t>(thread)];
    return team->Join(thread, {});
  });
  for (int step = 1; step <= 200; ++step) {
    ASSERT_EQ(team->Gather(kForEver).size(), counts.size());
    team->Run();
    for (int count : counts) ASSERT_EQ(count, step);
  }
}

TEST_P(PatientTeam, JoinMakesWritesVisible) {
  const auto n = static_cast<size_t>(GetParam());
  std::vector<int> values(n), wrong(n);
  std::unique_ptr<Team> team;
  team = Make(
      GetParam(),
      [&](int thread) {
        const auto t = static_cast<size_t>(thread);
        for (int round = 1; round <= 300; ++round) {
          values[t] = round;
          team->Join(thread, {});
          for (int value : values) wrong[t] += value != round;
          team->Join(thread, {});
        }
        return team->Join(thread, {});
      },
      /*pin=*/true);
  team->Gather(kForEver);
  team->Run();
  for (int count : wrong) EXPECT_EQ(count, 0);
}

TEST_P(PatientTeam, WaitersHaveSomethingElseToDo) {
  const auto n = static_cast<size_t>(GetParam());
  std::vector<std::atomic<int>> calls(n);
  std::unique_ptr<Team> team;
  team = Make(GetParam(), [&](int thread) {
    const auto t = static_cast<size_t>(thread);
    const auto meanwhile = [&] { return ++calls[t] % 2 == 0; };
    // The last one arrives once the first was called a second time, which is while it waits.
    if (t == n - 1) {
      while (t > 0 && calls[0].load() < 2) std::this_thread::yield();
    }
    return team->Join(thread, {}, meanwhile);
  });
  team->Gather(kForEver);
  team->Run();
  team.reset();  // Run waits for one to leave the last join; the others may still be about to
  for (const auto& count : calls) EXPECT_EQ(count.load() > 0, n > 1);
}

TEST_P(PatientTeam, WorkersWakeFromSleep) {
  std::atomic<int> ran{0};
  std::unique_ptr<Team> team;
  team = Make(GetParam(), [&](int thread) {
    ran.fetch_add(1);
    return team->Join(thread, {});
  });
  for (int step = 0; step < 3; ++step) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    team->Gather(kForEver);
    team->Run();
  }
  EXPECT_EQ(ran.load(), 3 * GetParam());
}

INSTANTIATE_TEST_SUITE_P(Sizes, PatientTeam, ::testing::Values(1, 2, 3, 5));

/// Steps of a few joins. One thread may get stuck before one of them, until it is released.
class ImpatientTeam : public ::testing::Test {
 protected:
  static constexpr int kJoins = 4;

  void Start(int threads) {
    const auto n = static_cast<size_t>(threads);
    own_ = std::vector<std::atomic<int>>(n);
    taken_over_.assign(n, 0);
    team_ = Make(threads, [this](int thread) { return Walk(thread); });
  }

  bool Walk(int thread) {
    const Team::TakeOver take_over = [&, thread](std::span<const int> absent) {
      taken_over_[static_cast<size_t>(thread)] += static_cast<int>(absent.size());
    };
    for (int join = 0; join < kJoins; ++join) {
      if (!team_->Enter(thread, attached_)) return false;
      if (join == stuck_join_ && thread == stuck_) {
        waiting_.store(true);
        while (!release_.load()) std::this_thread::yield();
      }
      own_[static_cast<size_t>(thread)] += 1;
      if (!team_->Join(thread, take_over)) return false;
    }
    return true;
  }

  void Step(int64_t patience) {
    members_ = team_->Gather(patience).size();
    for (std::atomic<int>& own : own_) own.store(0);
    team_->Run();
  }

  void ExpectThatAllTakePart() {
    Step(kForEver);
    EXPECT_EQ(members_, own_.size());
    for (std::atomic<int>& own : own_) EXPECT_EQ(own.load(), kJoins);
  }

  std::vector<std::atomic<int>> own_;
  std::vector<int> taken_over_;
  std::atomic<bool> waiting_{false}, release_{false};
  /// Read by a thread that was left behind without knowing it yet, while the test goes on.
  std::atomic<int> stuck_{-1};
  const int stuck_join_ = 1;
  bool attached_ = false;
  size_t members_ = 0;
  std::unique_ptr<Team> team_;
};

TEST_F(ImpatientTeam, GoesOnWithoutAWorkerAndTakesItBack) {
  Start(2);
  stuck_ = 1;
  Step(0);
  EXPECT_EQ(members_, 2u);
  EXPECT_EQ(taken_over_, (std::vector<int>{1, 0}));
  EXPECT_EQ(own_[0].load(), kJoins);
  stuck_ = -1;
  if (waiting_.load()) {  // it is still there, so the next step is done alone
    members_ = team_->Gather(0).size();
    EXPECT_EQ(members_, 1u);
    team_->Run();
    release_.store(true);
  }
  ExpectThatAllTakePart();
}

TEST_F(ImpatientTeam, GoesOnWithoutTheCaller) {
  Start(2);
  stuck_ = 0;
  // The caller is let go once the worker has taken over, or it would wait for itself.
  std::thread other([&] {
    while (!waiting_.load()) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    release_.store(true);
  });
  Step(0);
  other.join();
  // Either the worker finished the step, or the caller had left it behind before it got stuck.
  EXPECT_EQ(taken_over_[0] + taken_over_[1], 1);
  stuck_ = -1;
  ExpectThatAllTakePart();
}

TEST_F(ImpatientTeam, WaitsForWhoIsAttached) {
  Start(2);
  stuck_ = 1;
  attached_ = true;
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    release_.store(true);
  });
  Step(0);
  // It got stuck while attached, or was left behind before it was.
  EXPECT_TRUE(release_.load() || !waiting_.load());
  other.join();
}

int64_t Nanoseconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// Steps with one join, at which the caller waits for what the worker does in `hold`.
class TeamThatWaits : public ::testing::Test {
 protected:
  /// Whether the worker was left behind. Returns once it is through with the step.
  bool StepLeavesWorker(const std::function<void()>& hold) {
    hold_ = hold;
    while (team_->Gather(50'000).size() < 2) std::this_thread::yield();
    holds_ = through_ = taken_over_ = false;
    team_->Run();
    while (!through_) std::this_thread::yield();
    return taken_over_;
  }

  /// Nanoseconds for which the worker had no CPU in the last step.
  int64_t away_ = 0;

 private:
  bool Walk(int thread) {
    if (thread == 0) {
      while (!holds_) std::this_thread::yield();
      return team_->Join(thread, [this](std::span<const int>) { taken_over_ = true; });
    }
    const int64_t begin = Nanoseconds(CLOCK_MONOTONIC);
    const int64_t ran = Nanoseconds(CLOCK_THREAD_CPUTIME_ID);
    holds_ = true;
    hold_();
    const bool here = team_->Join(thread, [](std::span<const int>) {});
    away_ = Nanoseconds(CLOCK_MONOTONIC) - begin - (Nanoseconds(CLOCK_THREAD_CPUTIME_ID) - ran);
    through_ = true;
    return here;
  }

  std::function<void()> hold_;
  std::atomic<bool> holds_{false}, through_{false}, taken_over_{false};
  std::unique_ptr<Team> team_ = Make(2, [this](int thread) { return Walk(thread); });
};

TEST_F(TeamThatWaits, LeavesNobodyBehindWhoRuns) {
  const auto work_longer_than_the_patience = [] {
    const int64_t begin = Nanoseconds(CLOCK_MONOTONIC);
    while (Nanoseconds(CLOCK_MONOTONIC) - begin < 150'000) {
    }
  };
  for (int step = 0; step < 50; ++step) {
    const bool left = StepLeavesWorker(work_longer_than_the_patience);
    // On a busy machine it may have lost its CPU.
    if (away_ < 2'500) EXPECT_FALSE(left);
  }
}

TEST_F(TeamThatWaits, LeavesBehindWhoSleeps) {
  const auto sleep = [] { std::this_thread::sleep_for(std::chrono::milliseconds(10)); };
  bool left = false;
  // Unless the caller lost its CPU for as long.
  for (int step = 0; step < 50 && !left; ++step) left = StepLeavesWorker(sleep);
  EXPECT_TRUE(left);
}

TEST_F(ImpatientTeam, ManyStepsWithoutPatienceLoseNobody) {
  for (int threads : {2, 3, 5}) {
    Start(threads);
    for (int step = 0; step < 300; ++step) {
      Step(0);
      ASSERT_GE(members_, 1u);
    }
    ExpectThatAllTakePart();
  }
}

}  // namespace
}  // namespace quern

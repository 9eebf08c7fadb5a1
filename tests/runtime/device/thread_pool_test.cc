#include "runtime/device/host/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace quern {
namespace {

/// More threads than this machine may have, so that waiters must give way.
class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, EveryThreadRunsEveryJobOnce) {
  auto pool = ThreadPool::Create({.threads = GetParam()});
  ASSERT_TRUE(pool.ok()) << pool.status().message();
  std::vector<int> counts(static_cast<size_t>(GetParam()));
  for (int job = 1; job <= 200; ++job) {
    (*pool)->Run([&](int thread) { ++counts[static_cast<size_t>(thread)]; });
    for (int count : counts) ASSERT_EQ(count, job);
  }
}

TEST_P(ThreadPoolTest, JoinMakesWritesVisible) {
  auto pool = ThreadPool::Create({.threads = GetParam(), .pin = true});
  ASSERT_TRUE(pool.ok());
  const auto n = static_cast<size_t>(GetParam());
  std::vector<int> values(n);
  std::vector<int> wrong(n);
  (*pool)->Run([&](int thread) {
    const auto t = static_cast<size_t>(thread);
    for (int round = 1; round <= 300; ++round) {
      values[t] = round;
      (*pool)->Join();
      for (int value : values) wrong[t] += value != round;
      (*pool)->Join();
    }
  });
  for (int count : wrong) EXPECT_EQ(count, 0);
}

TEST_P(ThreadPoolTest, WorkersWakeFromSleep) {
  auto pool = ThreadPool::Create({.threads = GetParam()});
  ASSERT_TRUE(pool.ok());
  std::atomic<int> ran{0};
  for (int job = 0; job < 3; ++job) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    (*pool)->Run([&](int) { ran.fetch_add(1); });
  }
  EXPECT_EQ(ran.load(), 3 * GetParam());
}

INSTANTIATE_TEST_SUITE_P(Sizes, ThreadPoolTest, ::testing::Values(1, 2, 3, 5));

}  // namespace
}  // namespace quern

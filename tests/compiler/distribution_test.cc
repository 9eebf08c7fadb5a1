// Comparing rows of logits: against values worked out by hand.
#include "compiler/evaluate/Distribution.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace quern {
namespace {

using Row = std::vector<float>;

TEST(Distribution, DivergenceOfTwoTokens) {
  // (3/4, 1/4) from (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2).
  const Row p = {std::log(3.0f), 0.0f}, q = {5.0f, 5.0f};
  EXPECT_NEAR(klDivergence(p, q), 0.75 * std::log(1.5) - 0.25 * std::log(2.0), 1e-7);
  // The other way: 1/2 ln(2/3) + 1/2 ln 2.
  EXPECT_NEAR(klDivergence(q, p), 0.5 * std::log(4.0 / 3.0), 1e-7);
}

TEST(Distribution, AShiftOfAllLogitsChangesNothing) {
  const Row p = {1, -2, 0.5f, 3}, shifted = {101, 98, 100.5f, 103};
  EXPECT_NEAR(klDivergence(p, shifted), 0, 1e-12);
  EXPECT_EQ(klDivergence(p, p), 0);
}

TEST(Distribution, LargeLogitsDoNotOverflow) {
  const Row p = {3e38f, -3e38f}, q = {1e30f, 0};
  EXPECT_EQ(klDivergence(p, q), 0);
}

TEST(Distribution, NotANumberIsNotHidden) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (float bad : {nan, infinity}) {
    EXPECT_TRUE(std::isnan(klDivergence(Row{0, bad, 1}, Row{0, 0, 1})));
    EXPECT_TRUE(std::isnan(klDivergence(Row{0, 0, 1}, Row{0, bad, 1})));
    EXPECT_TRUE(std::isnan(klDivergence(Row{bad, 0}, Row{bad, 0})));
  }
}

TEST(Distribution, LikeliestIsTheFirstAmongEquals) {
  EXPECT_EQ(likeliest(Row{0, 7, 7, -1}), 1u);
  EXPECT_EQ(likeliest(Row{-3}), 0u);
}

}  // namespace
}  // namespace quern

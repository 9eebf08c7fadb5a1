// The bound of matmuls on tensor cores: twice the error of a plain computation.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "dialects/lm/BlockFormat.h"

namespace quern::test {

inline double AsHalf(double x) { return f16ToF32(f32ToF16(static_cast<float>(x))); }

/// Errors of a product's elements, beside those of a plain computation of the same precision.
class Errors {
 public:
  /// `got` stands for sum_k x w over [begin, end) (+ `added`); plain f16 rounds x and w.
  void Add(double got, const float* x, const float* w, int64_t begin, int64_t end,
           double added = 0) {
    double exact = added, plain = added;
    for (int64_t k = begin; k < end; ++k) {
      exact += static_cast<double>(x[k]) * w[k];
      plain += AsHalf(x[k]) * AsHalf(w[k]);
    }
    Count(got - exact, plain - exact);
  }
  void Count(double error, double plain) {
    squares_ += error * error;
    plain_squares_ += plain * plain;
    most_ = std::max(most_, std::fabs(error));
    plain_most_ = std::max(plain_most_, std::fabs(plain));
    finite_ &= std::isfinite(error);
  }
  /// Root mean square and largest error are at most twice the plain ones.
  void Check(const std::string& what) const {
    EXPECT_TRUE(finite_) << what;
    EXPECT_LE(std::sqrt(squares_), 2 * std::sqrt(plain_squares_) + 1e-6) << what;
    EXPECT_LE(most_, 2 * plain_most_ + 1e-6) << what;
  }

 private:
  double squares_ = 0, plain_squares_ = 0, most_ = 0, plain_most_ = 0;
  bool finite_ = true;
};

}  // namespace quern::test

#include "compiler/evaluate/Distribution.h"

#include <algorithm>
#include <cmath>

/// log(sum_i exp(x_i)).
static double logSumExp(std::span<const float> x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (float value : x)
    sum += std::exp(value - largest);
  return largest + std::log(sum);
}

double quern::klDivergence(std::span<const float> p, std::span<const float> q) {
  const double normP = logSumExp(p), normQ = logSumExp(q);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double logP = p[i] - normP, logQ = q[i] - normQ;
    sum += std::exp(logP) * (logP - logQ);
  }
  // Rounding may leave less than 0 of two equal rows; NaN goes through.
  return sum < 0 ? 0 : sum;
}

size_t quern::likeliest(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

//===- Distribution.h - Comparing rows of logits ----------------*- C++ -*-===//
#ifndef QUERN_COMPILER_EVALUATE_DISTRIBUTION_H
#define QUERN_COMPILER_EVALUATE_DISTRIBUTION_H

#include <span>

namespace quern {

/// KL(p || q) in nats of the distributions softmax(p) and softmax(q) over the
/// same tokens: sum_i p_i (log p_i - log q_i), at least 0. NaN when a logit is
/// not finite.
double klDivergence(std::span<const float> p, std::span<const float> q);

/// Index of the largest logit, the first among equals.
size_t likeliest(std::span<const float> logits);

} // namespace quern

#endif // QUERN_COMPILER_EVALUATE_DISTRIBUTION_H

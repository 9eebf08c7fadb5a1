// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/executor/candidate.h"

namespace quern {

/// The steps run in the order of the fields; a value that does nothing is given beside each.
struct SamplerOptions {
  /// Divides positive and multiplies negative logits of the last `repeat_last_n` tokens
  /// (CTRL, arXiv:1909.05858, section 4.1). Nothing: 1.
  float repeat_penalty = 1.0f;
  int32_t repeat_last_n = 64;  ///< Tokens looked back at; 0: none.
  int32_t top_k = 0;           ///< Keep the k best. Nothing: 0.
  /// Keep the fewest tokens whose probability reaches top_p (arXiv:1904.09751). Nothing: 1.
  float top_p = 1.0f;
  /// Keep tokens at least this likely relative to the best (arXiv:2407.01082). Nothing: 0.
  float min_p = 0.0f;
  float temperature = 0.0f;  ///< 0: the best token, ties to the lowest id.
  uint64_t seed = 0;
};

/// One sequence's sampler. Copy it when the sequence forks.
///
/// The same options, tokens and logits give the same token on every machine: the generator is
/// integer only, and probabilities come from an exponential of our own.
class Sampler {
 public:
  /// Error: kUsage naming the option, what it was and its range.
  static Result<Sampler> Create(const SamplerOptions& options);

  /// The next token. `logits`: (vocab). -inf is a token that may not be chosen.
  /// Errors: kFailure for NaN, +inf, no logits, or nothing left to choose.
  Result<int32_t> Sample(std::span<const float> logits);

  /// The same from the best of `vocab` logits alone, when they settle it: the best first, of equal
  /// ones the lowest token, a NaN before all. None when Sample must see all logits; the sampler is
  /// then as it was.
  Result<std::optional<int32_t>> SampleBest(std::span<const Candidate> best, size_t vocab);

  /// How many of the best logits SampleBest is likely to want; 0: it always wants all.
  int32_t WantedCandidates() const;

  /// Tells the sampler that `token` is now part of the sequence (prompt or answer).
  void Accept(int32_t token);

  const SamplerOptions& options() const { return options_; }

 private:
  explicit Sampler(const SamplerOptions& options) : options_(options) {}
  /// Adds a candidate unless its logit is -inf. Error: kFailure for NaN and +inf.
  Status AddCandidate(float logit, int32_t token);
  void Penalize();
  /// The choice among candidates_.
  int32_t Choose();
  void KeepTopK();
  void KeepTopP();
  void KeepMinP();
  int32_t Draw();

  SamplerOptions options_;
  std::deque<int32_t> recent_;
  uint64_t draws_ = 0;                 // random numbers used so far
  std::vector<Candidate> candidates_;  // scratch of one Sample
  std::vector<double> weights_;        // scratch, beside candidates_
};

}  // namespace quern

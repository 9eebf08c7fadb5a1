#include "runtime/llm/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

namespace quern {
namespace {

/// e^x for x <= 0, in plain double arithmetic so that every machine computes the same bits; libm
/// promises no such thing (and CMakeLists.txt forbids fused multiply-adds here). Relative error
/// below 1e-14: x = n ln 2 + r, and a Taylor series of degree 13 for |r| <= ln 2 / 2.
double Exp(double x) {
  if (x < -700.0) return 0.0;
  constexpr double kLn2High = 6.93147180369123816490e-01;  // ln 2, its low bits zero
  constexpr double kLn2Low = 1.90821492927058770002e-10;   // the rest
  constexpr double kInverseLn2 = 1.44269504088896338700e+00;
  const double n = std::floor(x * kInverseLn2 + 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double sum = 1.0;
  for (int degree = 13; degree > 0; --degree) sum = 1.0 + sum * (r / degree);
  const auto exponent = static_cast<uint64_t>(1023 + static_cast<int64_t>(n));
  return sum * std::bit_cast<double>(exponent << 52);
}

/// A number in [0, 1) from a seed and a counter (SplitMix64's finalizer, Steele et al. 2014).
double Uniform(uint64_t seed, uint64_t counter) {
  uint64_t x = seed + (counter + 1) * 0x9E3779B97F4A7C15u;
  for (int round = 0; round < 2; ++round) {  // twice: neighbouring seeds must not look alike
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    x ^= x >> 31;
  }
  return static_cast<double>(x >> 11) * 0x1.0p-53;
}

/// Of equal ones the lowest token.
bool IsBetter(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

/// NaN or +infinity, which no sound arithmetic makes; -infinity masks a token out.
bool IsBroken(float logit) { return !(logit < std::numeric_limits<float>::infinity()); }

/// The first token of the greatest logit, or -1 where logits are broken or all masked out. Plain
/// comparisons in 16 lanes, which compilers turn into vectors: a whole vocabulary is read a token.
int32_t Greatest(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> best;
  best.fill(-std::numeric_limits<float>::infinity());
  std::array<uint32_t, kLanes> broken{};
  const size_t full = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < full; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float logit = logits[i + lane];
      best[lane] = logit > best[lane] ? logit : best[lane];
      broken[lane] |= IsBroken(logit) ? 1u : 0u;
    }
  }
  float greatest = *std::max_element(best.begin(), best.end());
  bool sound = std::all_of(broken.begin(), broken.end(), [](uint32_t lane) { return lane == 0; });
  for (float logit : logits.subspan(full)) {
    sound = sound && !IsBroken(logit);
    greatest = std::max(greatest, logit);
  }
  if (!sound || !std::isfinite(greatest)) return -1;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), greatest) - logits.begin());
}

template <typename T>
Status OutOfRange(const char* option, T value, const char* range) {
  return UsageError(std::string(option) + " is " + std::to_string(value) + ", expected " + range);
}

}  // namespace

Result<Sampler> Sampler::Create(const SamplerOptions& options) {
  // Written so that NaN fails too.
  if (!(options.temperature >= 0.0f && options.temperature <= 100.0f))
    return OutOfRange("temperature", options.temperature, "0 to 100");
  if (options.top_k < 0) return OutOfRange("top-k", options.top_k, "0 (off) or more");
  if (!(options.top_p > 0.0f && options.top_p <= 1.0f))
    return OutOfRange("top-p", options.top_p, "more than 0, at most 1 (off)");
  if (!(options.min_p >= 0.0f && options.min_p <= 1.0f))
    return OutOfRange("min-p", options.min_p, "0 (off) to 1");
  if (!(options.repeat_penalty > 0.0f && options.repeat_penalty <= 100.0f))
    return OutOfRange("repeat-penalty", options.repeat_penalty, "more than 0, at most 100");
  if (options.repeat_last_n < 0 || options.repeat_last_n > (1 << 20))
    return OutOfRange("repeat-last-n", options.repeat_last_n, "0 to 1048576");
  return Sampler(options);
}

void Sampler::Accept(int32_t token) {
  if (options_.repeat_penalty == 1.0f || options_.repeat_last_n == 0) return;
  recent_.push_back(token);
  if (recent_.size() > static_cast<size_t>(options_.repeat_last_n)) recent_.pop_front();
}

Result<int32_t> Sampler::Sample(std::span<const float> logits) {
  if (logits.empty() || logits.size() > size_t{INT32_MAX})
    return Failure("cannot sample from " + std::to_string(logits.size()) + " logits");
  if (options_.temperature == 0.0f && recent_.empty()) {
    const int32_t token = Greatest(logits);
    if (token >= 0) return token;  // otherwise what is wrong is said below
  }
  candidates_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    // A whole vocabulary a token: no Status is made for those that are sound.
    if (IsBroken(logits[id])) return AddCandidate(logits[id], static_cast<int32_t>(id));
    if (std::isfinite(logits[id])) candidates_.push_back({logits[id], static_cast<int32_t>(id)});
  }
  if (candidates_.empty()) return Failure("every token is masked out; nothing is left to sample");
  Penalize();
  return Choose();
}

Status Sampler::AddCandidate(float logit, int32_t token) {
  if (IsBroken(logit)) {
    return Failure("the logit of token " + std::to_string(token) + " is " + std::to_string(logit) +
                   "; the model's arithmetic failed");
  }
  if (std::isfinite(logit)) candidates_.push_back({logit, token});
  return {};
}

int32_t Sampler::Choose() {
  if (options_.temperature == 0.0f) {
    return std::min_element(candidates_.begin(), candidates_.end(), IsBetter)->token;
  }
  KeepTopK();
  KeepTopP();
  KeepMinP();
  return Draw();
}

int32_t Sampler::WantedCandidates() const {
  const bool penalizes = options_.repeat_penalty != 1.0f && options_.repeat_last_n > 0;
  if (penalizes && options_.repeat_penalty < 1.0f) return 0;  // what it lifts may be anywhere
  const int32_t kept = options_.temperature == 0.0f ? 1 : options_.top_k;
  if (kept == 0) return 0;
  const int64_t wanted = int64_t{kept} + (penalizes ? options_.repeat_last_n : 0);
  return static_cast<int32_t>(std::min<int64_t>(wanted, std::numeric_limits<int32_t>::max()));
}

Result<std::optional<int32_t>> Sampler::SampleBest(std::span<const Candidate> best, size_t vocab) {
  if (best.empty() || WantedCandidates() == 0) return std::optional<int32_t>();
  candidates_.clear();
  for (const Candidate& candidate : best) {
    QUERN_RETURN_IF_ERROR(AddCandidate(candidate.logit, candidate.token));
  }
  if (candidates_.empty()) return Failure("every token is masked out; nothing is left to sample");
  Penalize();
  // A penalty only lowers, so whoever is not among the best is behind the last of them.
  const Candidate last = best.back();
  const auto certain = static_cast<size_t>(
      std::count_if(candidates_.begin(), candidates_.end(),
                    [&](const Candidate& candidate) { return !IsBetter(last, candidate); }));
  const bool all_known = best.size() >= vocab || candidates_.size() < best.size();
  const size_t needed = options_.temperature == 0.0f ? 1 : static_cast<size_t>(options_.top_k);
  if (!all_known && certain < needed) return std::optional<int32_t>();
  return std::optional<int32_t>(Choose());
}

void Sampler::Penalize() {
  if (recent_.empty()) return;
  std::vector<int32_t> seen(recent_.begin(), recent_.end());
  std::sort(seen.begin(), seen.end());
  for (Candidate& candidate : candidates_) {
    if (!std::binary_search(seen.begin(), seen.end(), candidate.token)) continue;
    const float penalized = candidate.logit > 0 ? candidate.logit / options_.repeat_penalty
                                                : candidate.logit * options_.repeat_penalty;
    constexpr float kLargest = std::numeric_limits<float>::max();
    candidate.logit = std::clamp(penalized, -kLargest, kLargest);
  }
}

/// Orders the candidates best first, unless they are neither cut here nor by their sum.
void Sampler::KeepTopK() {
  if (options_.top_k == 0 && options_.top_p == 1.0f) return;
  const bool cut = options_.top_k > 0 && size_t(options_.top_k) < candidates_.size();
  const auto keep = cut ? candidates_.begin() + options_.top_k : candidates_.end();
  std::partial_sort(candidates_.begin(), keep, candidates_.end(), IsBetter);
  candidates_.erase(keep, candidates_.end());
}

/// Of candidates ordered best first.
void Sampler::KeepTopP() {
  if (options_.top_p == 1.0f) return;
  const double best = candidates_.front().logit;
  double total = 0;
  weights_.clear();
  for (const Candidate& candidate : candidates_) {
    weights_.push_back(Exp(candidate.logit - best));
    total += weights_.back();
  }
  double sum = 0;
  size_t keep = 0;
  while (keep < candidates_.size() && sum < options_.top_p * total) sum += weights_[keep++];
  candidates_.resize(std::max<size_t>(keep, 1));
}

void Sampler::KeepMinP() {
  if (options_.min_p == 0.0f) return;
  float best = candidates_.front().logit;
  for (const Candidate& candidate : candidates_) best = std::max(best, candidate.logit);
  std::erase_if(candidates_, [&](const Candidate& candidate) {
    return candidate.logit != best && Exp(double{candidate.logit} - best) < double{options_.min_p};
  });
}

/// One of the candidates, by their probabilities at the temperature.
int32_t Sampler::Draw() {
  double best = candidates_.front().logit;
  for (const Candidate& candidate : candidates_) best = std::max<double>(best, candidate.logit);
  weights_.clear();
  double total = 0;
  for (const Candidate& candidate : candidates_) {
    total += Exp((candidate.logit - best) / options_.temperature);
    weights_.push_back(total);
  }
  const double target = Uniform(options_.seed, draws_++) * total;
  size_t chosen = std::upper_bound(weights_.begin(), weights_.end(), target) - weights_.begin();
  return candidates_[std::min(chosen, candidates_.size() - 1)].token;
}

}  // namespace quern

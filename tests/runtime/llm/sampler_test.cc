#include "runtime/llm/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

namespace quern {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Sampler Make(const SamplerOptions& options) {
  Result<Sampler> sampler = Sampler::Create(options);
  EXPECT_TRUE(sampler.ok()) << sampler.status().message();
  return *std::move(sampler);
}

int32_t SampleOne(Sampler& sampler, const std::vector<float>& logits) {
  Result<int32_t> token = sampler.Sample(logits);
  EXPECT_TRUE(token.ok()) << token.status().message();
  return token.ok() ? *token : -1;
}

/// How often each token is drawn.
std::map<int32_t, int> Histogram(SamplerOptions options, const std::vector<float>& logits,
                                 int draws) {
  Sampler sampler = Make(options);
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[SampleOne(sampler, logits)];
  return counts;
}

TEST(Sampler, GreedyTakesTheBestAndTheLowestOfEquals) {
  Sampler sampler = Make({});
  EXPECT_EQ(SampleOne(sampler, {1, 5, 3, 5, -2}), 1);
  EXPECT_EQ(SampleOne(sampler, {-kInfinity, -7, -kInfinity}), 1);
}

TEST(Sampler, GreedyIsRightAtEverySizeAndPlace) {
  Sampler sampler = Make({});
  std::mt19937 random(5);
  for (size_t size = 1; size <= 70; ++size) {
    std::vector<float> logits(size);
    for (float& logit : logits) logit = static_cast<float>(random() % 9) - 12.0f;  // many ties
    EXPECT_EQ(SampleOne(sampler, logits),
              std::max_element(logits.begin(), logits.end()) - logits.begin())
        << size;
    for (size_t place = 0; place < size; ++place) {
      std::vector<float> changed = logits;
      changed[place] = 1.0f;
      EXPECT_EQ(SampleOne(sampler, changed), static_cast<int32_t>(place)) << size;
      for (const float broken : {kNan, kInfinity}) {
        changed[place] = broken;
        EXPECT_FALSE(sampler.Sample(changed).ok()) << size << " " << place;
      }
    }
    std::fill(logits.begin(), logits.end(), -kInfinity);
    EXPECT_FALSE(sampler.Sample(logits).ok()) << size;
  }
  EXPECT_EQ(SampleOne(sampler, {-0.0f, 0.0f}), 0);
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  const std::vector<float> logits = {0.0f, 1.0f, 2.0f, -1.0f, -kInfinity};
  const int draws = 40000;
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    std::map<int32_t, int> counts =
        Histogram({.temperature = temperature, .seed = 11}, logits, draws);
    double total = 0;
    for (const float logit : logits) total += std::exp(double{logit} / temperature);
    for (size_t id = 0; id < logits.size(); ++id) {
      const double expected = std::exp(double{logits[id]} / temperature) / total;
      const double sigma = std::sqrt(expected * (1 - expected) / draws);
      EXPECT_NEAR(double(counts[int32_t(id)]) / draws, expected, 5 * sigma + 1e-9) << id;
    }
  }
}

TEST(Sampler, FiltersKeepWhatTheySay) {
  // Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625.
  const std::vector<float> logits = {std::log(8.f), std::log(4.f), std::log(2.f), 0.f, 0.f};
  auto kept = [&](SamplerOptions options) {
    options.temperature = 1;
    return Histogram(options, logits, 2000).size();
  };
  EXPECT_EQ(kept({}), 5u);
  EXPECT_EQ(kept({.top_k = 2}), 2u);
  EXPECT_EQ(kept({.top_k = 9}), 5u);
  EXPECT_EQ(kept({.top_p = 0.74f}), 2u);
  EXPECT_EQ(kept({.top_p = 0.76f}), 3u);
  EXPECT_EQ(kept({.top_p = 1e-6f}), 1u);
  EXPECT_EQ(kept({.min_p = 0.2f}), 3u);
  EXPECT_EQ(kept({.min_p = 1.0f}), 1u);
  EXPECT_EQ(kept({.top_k = 3, .top_p = 0.55f}), 1u);  // 8/14 of what top-k left
}

TEST(Sampler, TopKBreaksTiesByTheLowerId) {
  const auto counts = Histogram({.top_k = 2, .temperature = 1}, {3, 7, 7, 7}, 500);
  EXPECT_TRUE(counts.contains(1));
  EXPECT_TRUE(counts.contains(2));
  EXPECT_EQ(counts.size(), 2u);
}

TEST(Sampler, TheSeedDecidesAndTheDrawsAreFixedForever) {
  const std::vector<float> logits = {0.1f, 0.2f, 0.3f, 0.4f, 0.0f, -0.5f, 1.0f};
  auto draw = [&](uint64_t seed) {
    Sampler sampler = Make({.temperature = 1, .seed = seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 12; ++i) tokens.push_back(SampleOne(sampler, logits));
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
  // Golden: these tokens must come out on every machine.
  EXPECT_EQ(draw(42), (std::vector<int32_t>{5, 3, 1, 4, 4, 1, 1, 4, 4, 6, 5, 4}));
}

TEST(Sampler, ACopyGoesOnAlike) {
  const std::vector<float> logits = {0, 0, 0, 0, 0, 0, 0, 0};
  Sampler sampler = Make({.temperature = 1, .seed = 3});
  SampleOne(sampler, logits);
  Sampler fork = sampler;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(SampleOne(sampler, logits), SampleOne(fork, logits));
}

TEST(Sampler, RepeatedTokensArePenalized) {
  Sampler sampler = Make({.repeat_penalty = 2, .repeat_last_n = 2});
  const std::vector<float> logits = {4, 3, -1};
  EXPECT_EQ(SampleOne(sampler, logits), 0);
  sampler.Accept(0);
  EXPECT_EQ(SampleOne(sampler, logits), 1);  // 4 / 2 < 3
  sampler.Accept(1);
  EXPECT_EQ(SampleOne(sampler, logits), 0);  // 2 > 1.5
  sampler.Accept(2);
  EXPECT_EQ(SampleOne(sampler, logits), 0);  // 0 has left the window: 4
  sampler.Accept(2);
  Sampler negative = Make({.repeat_penalty = 2});
  negative.Accept(0);
  EXPECT_EQ(SampleOne(negative, {-1, -1.5f}), 1);  // -1 * 2 < -1.5
}

TEST(Sampler, BrokenLogitsAreErrors) {
  for (const float temperature : {0.0f, 1.0f}) {
    Sampler sampler = Make({.temperature = temperature});
    EXPECT_EQ(sampler.Sample(std::vector<float>{1, kNan}).status().message(),
              "the logit of token 1 is nan; the model's arithmetic failed");
    EXPECT_EQ(sampler.Sample(std::vector<float>{kInfinity}).status().code(), StatusCode::kFailure);
    EXPECT_EQ(sampler.Sample(std::vector<float>{}).status().code(), StatusCode::kFailure);
    EXPECT_EQ(sampler.Sample(std::vector<float>{-kInfinity, -kInfinity}).status().code(),
              StatusCode::kFailure);
  }
}

TEST(Sampler, ExtremeLogitsAreFine) {
  constexpr float kMax = std::numeric_limits<float>::max();
  Sampler sampler =
      Make({.repeat_penalty = 100, .top_p = 0.9f, .min_p = 0.1f, .temperature = 1e-30f});
  sampler.Accept(1);
  EXPECT_EQ(SampleOne(sampler, {-kMax, -kMax, kMax}), 2);
  EXPECT_GE(SampleOne(sampler, {-kMax, -kMax}), 0);
}

/// The best of `logits` as a device gives them.
std::vector<Candidate> Best(const std::vector<float>& logits, size_t count) {
  std::vector<Candidate> all;
  for (float logit : logits) all.push_back({logit, static_cast<int32_t>(all.size())});
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  });
  all.resize(std::min(count, all.size()));
  return all;
}

TEST(Sampler, TheBestLogitsGiveTheTokenThatAllGive) {
  const SamplerOptions options[] = {
      {},
      {.top_k = 10, .temperature = 1, .seed = 3},
      {.top_k = 40, .top_p = 0.9f, .min_p = 0.05f, .temperature = 0.7f, .seed = 4},
      {.top_k = 1, .temperature = 2},
      {.top_k = 500, .temperature = 1, .seed = 5},
      {.repeat_penalty = 1.3f, .repeat_last_n = 8},
      {.repeat_penalty = 3, .repeat_last_n = 64, .top_k = 10, .temperature = 1, .seed = 6}};
  std::mt19937 random(1);
  for (const SamplerOptions& each : options) {
    int settled = 0;
    for (const bool coarse : {false, true}) {  // coarse logits have many equal ones
      Sampler all = Make(each), best = Make(each);
      for (int step = 0; step < 100; ++step) {
        std::vector<float> logits(300);
        for (float& logit : logits) {
          logit = std::normal_distribution<float>(0, 3)(random);
          if (coarse) logit = std::round(logit);
          if (random() % 4 == 0) logit = -kInfinity;
        }
        Sampler before = best;
        const auto token = best.SampleBest(Best(logits, 64), logits.size());
        ASSERT_TRUE(token.ok()) << token.status().message();
        const int32_t wanted = SampleOne(all, logits);
        if (*token) {
          EXPECT_EQ(**token, wanted);
          ++settled;
        } else {  // then nothing was drawn
          EXPECT_EQ(SampleOne(best, logits), wanted);
        }
        all.Accept(wanted);
        best.Accept(wanted);
      }
    }
    if (each.top_k <= 40) EXPECT_GT(settled, 150);
  }
}

TEST(Sampler, SomeOptionsWantAllLogits) {
  const std::vector<Candidate> best = {{3, 1}, {2, 0}};
  for (const SamplerOptions& options :
       {SamplerOptions{.temperature = 1}, SamplerOptions{.repeat_penalty = 0.5f},
        SamplerOptions{.top_k = 3, .temperature = 1}}) {
    Sampler sampler = Make(options);
    const auto token = sampler.SampleBest(best, 100);
    ASSERT_TRUE(token.ok());
    EXPECT_FALSE(token->has_value());
  }
  EXPECT_EQ(Make({.temperature = 1}).WantedCandidates(), 0);
  EXPECT_EQ(Make({.repeat_penalty = 0.5f}).WantedCandidates(), 0);
  EXPECT_EQ(Make({}).WantedCandidates(), 1);
  EXPECT_EQ(Make({.repeat_penalty = 2, .repeat_last_n = 5, .top_k = 7, .temperature = 1})
                .WantedCandidates(),
            12);
  // What a penalty pushed behind the last of the best may be anywhere.
  Sampler penalized = Make({.repeat_penalty = 2});
  penalized.Accept(1);
  EXPECT_FALSE(penalized.SampleBest(std::vector<Candidate>{{3, 1}}, 100)->has_value());
  EXPECT_EQ(penalized.SampleBest(best, 100)->value(), 0);
}

TEST(Sampler, BrokenBestLogitsAreErrors) {
  Sampler sampler = Make({});
  EXPECT_EQ(sampler.SampleBest(std::vector<Candidate>{{kNan, 7}}, 9).status().message(),
            "the logit of token 7 is nan; the model's arithmetic failed");
  EXPECT_EQ(sampler.SampleBest(std::vector<Candidate>{{-kInfinity, 0}}, 9).status().code(),
            StatusCode::kFailure);
}

TEST(Sampler, OptionsAreChecked) {
  EXPECT_EQ(Sampler::Create({.temperature = -1}).status().message(),
            "temperature is -1.000000, expected 0 to 100");
  const SamplerOptions bad[] = {{.repeat_penalty = 0}, {.repeat_penalty = kNan},
                                {.repeat_last_n = -1}, {.top_k = -1},
                                {.top_p = 0},          {.top_p = 1.5f},
                                {.top_p = kNan},       {.min_p = -0.1f},
                                {.min_p = 2},          {.temperature = kInfinity},
                                {.temperature = kNan}};
  for (const SamplerOptions& options : bad)
    EXPECT_EQ(Sampler::Create(options).status().code(), StatusCode::kUsage);
}

}  // namespace
}  // namespace quern

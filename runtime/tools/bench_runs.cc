#include "runtime/tools/bench_runs.h"

#include <algorithm>
#include <span>

#include "runtime/tools/machine_limits.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

/// Of a turn of the read loop.
constexpr double kReadSeconds = 0.02;

/// The same tokens in every run of every build (Knuth's MMIX generator, high bits).
class RandomTokens {
 public:
  explicit RandomTokens(size_t vocab) : vocab_(vocab) {}
  std::vector<int32_t> Take(size_t count) {
    std::vector<int32_t> tokens(count);
    for (int32_t& token : tokens) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      token = static_cast<int32_t>((state_ >> 33) % vocab_);
    }
    return tokens;
  }

 private:
  size_t vocab_;
  uint64_t state_ = 1;
};

}  // namespace

double MedianOf(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

nlohmann::ordered_json ReadProfile(quern_session* session) {
  char* text = nullptr;
  quern_error error = {};
  Check(quern_session_profile(session, &text, &error), error);
  const TextHandle owner(text);
  return Json::parse(text);
}

Bench::Bench(const BenchPlan& plan, Engine& engine) : plan_(plan), engine_(engine) {
  RandomTokens random(engine.vocab());
  depth_ = random.Take(plan.depth);
  prompt_ = random.Take(std::max(plan.prompt, 1u));
}

std::vector<double> Bench::Prefill(ProgressBar& bar) {
  return Repeat(bar, plan_.prompt, [&] { engine_.Feed(prompt_, {}); }, [] {});
}

std::vector<double> Bench::Decode(ProgressBar& bar) {
  return Repeat(bar, plan_.generate * plan_.streams, [&] { DecodeTokens(plan_.generate); }, [] {});
}

Bench::BesideReads Bench::DecodeBesideReads(ProgressBar& bar) {
  BesideReads result;
  result.step_bytes = DecodeStepBytes();
  const ReadLoop loop(static_cast<uint64_t>(result.step_bytes),
                      static_cast<int>(std::max<uint64_t>(engine_.facts().threads, 1)));
  const auto read = [&] {
    loop.Rates(kReadSeconds);  // workers of the session may still spin
    result.reads.push_back(MedianOf(loop.Rates(kReadSeconds)));
  };
  result.decode =
      Repeat(bar, plan_.generate * plan_.streams, [&] { DecodeTokens(plan_.generate); }, read);
  read();
  result.reads.erase(result.reads.begin());  // of the warm-up
  for (size_t i = 0; i < result.decode.size(); ++i) {
    const double around = (result.reads[i] + result.reads[i + 1]) / 2;
    const double steps = result.decode[i] / plan_.streams;
    result.shares.push_back(around > 0 ? steps * result.step_bytes / around : 0);
  }
  return result;
}

std::vector<MeasuredStep> Bench::Steps(ProgressBar& bar) {
  std::vector<MeasuredStep> steps;
  if (plan_.prompt > 0) {
    const std::span<const int32_t> prompt(prompt_);
    const size_t before = (prompt.size() - 1) / engine_.facts().max_rows * engine_.facts().max_rows;
    steps.push_back(MedianStep(
        bar, depth_.size() + before, [&] { engine_.Feed(prompt.first(before), {}); },
        [&] { engine_.Feed(prompt.subspan(before), {}); }));
  }
  if (plan_.generate > 0) {
    const auto wake = [&] {  // or the step waits for threads that went to sleep
      DecodeTokens(1);
      GoToDepth();
    };
    steps.push_back(MedianStep(bar, depth_.size(), wake, [&] { DecodeTokens(1); }));
  }
  return steps;
}

double Bench::DecodeStepBytes() {
  GoToDepth();
  quern_session_set_profiling(engine_.session(), 1);
  DecodeTokens(1);
  const Json profile = ReadProfile(engine_.session());
  quern_session_set_profiling(engine_.session(), 0);
  double bytes = 0;
  for (const Json& kernel : profile.at("last_step").at("kernels")) {
    bytes += kernel.at("bytes").get<double>();
  }
  return bytes;
}

MeasuredStep Bench::MedianStep(ProgressBar& bar, uint64_t depth, const Work& before,
                               const Work& step) {
  std::vector<Json> profiles;
  for (uint32_t i = 0; i <= plan_.repetitions; ++i) {
    GoToDepth();
    before();
    quern_session_set_profiling(engine_.session(), 1);
    step();
    if (i > 0) profiles.push_back(ReadProfile(engine_.session()));  // the first one warms up
    quern_session_set_profiling(engine_.session(), 0);
    bar.Update(++done_);
  }
  const auto median = profiles.begin() + static_cast<ptrdiff_t>(profiles.size() / 2);
  std::ranges::nth_element(profiles, median, [](const Json& a, const Json& b) {
    return a.at("seconds").get<double>() < b.at("seconds").get<double>();
  });
  return {depth, *median};
}

std::vector<double> Bench::Repeat(ProgressBar& bar, uint32_t tokens, const Work& work,
                                  const Work& before) {
  std::vector<double> runs;
  if (tokens == 0) return runs;
  for (uint32_t i = 0; i <= plan_.repetitions; ++i) {
    GoToDepth();
    before();
    const Stopwatch watch;
    work();
    if (i > 0) runs.push_back(tokens / watch.Seconds());  // the first one warms up
    bar.Update(++done_);
  }
  return runs;
}

void Bench::GoToDepth() {
  const size_t have = std::min<size_t>(quern_sequence_length(engine_.sequence()), depth_.size());
  engine_.Truncate(have);
  engine_.Feed(std::span(depth_).subspan(have), {});
}

void Bench::DecodeTokens(uint32_t count) {
  quern_error error = {};
  std::vector<SequenceHandle> forks;
  std::vector<quern_sequence*> sequences = {engine_.sequence()};
  for (uint32_t i = 1; i < plan_.streams; ++i) {
    quern_sequence* fork = nullptr;
    Check(quern_sequence_fork(engine_.sequence(), &fork, &error), error);
    forks.emplace_back(fork);
    sequences.push_back(fork);
  }
  std::vector<int32_t> tokens(sequences.size());
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = prompt_[i % prompt_.size()];
  for (uint32_t i = 0; i < count; ++i) {
    Check(quern_decode(engine_.session(), sequences.data(), tokens.data(), tokens.size(), &error),
          error);
    for (size_t s = 0; s < sequences.size(); ++s) {
      Check(quern_sequence_sample(sequences[s], &tokens[s], &error), error);
    }
  }
}

}  // namespace quern::tools

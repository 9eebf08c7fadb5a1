// What `quern bench` measures on an engine: prompts, decode, single steps.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "runtime/tools/engine.h"
#include "runtime/tools/kernel_report.h"
#include "runtime/tools/output.h"

namespace quern::tools {

/// How much of what is measured: tokens, sequences, repetitions.
struct BenchPlan {
  uint32_t prompt = 512;
  uint32_t generate = 64;
  uint32_t depth = 0;
  uint32_t streams = 1;
  uint32_t repetitions = 5;
};

/// 0 of none.
double MedianOf(std::vector<double> values);

/// The session's last steps as quern_session_profile describes them.
nlohmann::ordered_json ReadProfile(quern_session* session);

/// One engine and what is measured on it. The plan and the engine must outlive it. Throws what the
/// engine's functions throw.
class Bench {
 public:
  Bench(const BenchPlan& plan, Engine& engine);

  /// Tokens per second of each repetition, behind one warm-up. Empty when there is nothing to run.
  std::vector<double> Prefill(ProgressBar& bar);
  std::vector<double> Decode(ProgressBar& bar);

  /// Decode in turn with the read loop.
  struct BesideReads {
    /// Bytes that the kernels of a step read and write: the loop reads as many.
    double step_bytes = 0;
    /// Tokens per second of each repetition.
    std::vector<double> decode;
    /// Bytes per second of the loop, the median of some passes, before each repetition and behind
    /// the last.
    std::vector<double> reads;
    /// Bytes per second of decode over the mean of the reads before and behind it.
    std::vector<double> shares;
  };
  BesideReads DecodeBesideReads(ProgressBar& bar);

  /// The prompt's step, of several the last, and a decode step: each that with the median time of
  /// the repetitions.
  std::vector<MeasuredStep> Steps(ProgressBar& bar);

 private:
  using Work = std::function<void()>;

  /// Bytes that the kernels of a decode step read and write.
  double DecodeStepBytes();
  MeasuredStep MedianStep(ProgressBar& bar, uint64_t depth, const Work& before, const Work& step);
  /// Rates of `tokens` tokens a repetition; `before` each comes what is not measured.
  std::vector<double> Repeat(ProgressBar& bar, uint32_t tokens, const Work& work,
                             const Work& before);
  /// Leaves the sequence with the plan's depth.
  void GoToDepth();
  /// `count` tokens of every stream, one of each a step. All streams go on from the same depth.
  void DecodeTokens(uint32_t count);

  const BenchPlan& plan_;
  Engine& engine_;
  std::vector<int32_t> depth_, prompt_;
  uint64_t done_ = 0;
};

}  // namespace quern::tools

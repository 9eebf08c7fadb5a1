// quern bench: tokens per second, with llama-bench's meanings. Prefill: `-p` random tokens at once
// behind `-d` others. Decode: `-n` tokens one by one behind `-d` others, each the best token of the
// logits before it; with `-s` of several sequences, a token of each a step.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/tools/atomic_file.h"
#include "runtime/tools/command.h"
#include "runtime/tools/engine.h"
#include "runtime/tools/kernel_report.h"
#include "runtime/tools/machine.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

struct BenchFlags {
  std::string model;
  uint32_t prompt = 512;
  uint32_t generate = 64;
  uint32_t depth = 0;
  uint32_t streams = 1;
  uint32_t repetitions = 5;
  bool profile = false;
  bool kernels = false;
  std::string page;
  std::string trace;
  SessionFlags session;
  OutputFlags output;
};

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

Json ReadProfile(quern_session* session) {
  char* text = nullptr;
  quern_error error = {};
  Check(quern_session_profile(session, &text, &error), error);
  const TextHandle owner(text);
  return Json::parse(text);
}

/// One engine and what is measured on it.
class Bench {
 public:
  Bench(const BenchFlags& flags, Engine& engine) : flags_(flags), engine_(engine) {
    RandomTokens random(engine.vocab());
    depth_ = random.Take(flags.depth);
    prompt_ = random.Take(std::max(flags.prompt, 1u));
  }

  /// Tokens per second of each repetition, behind one warm-up. Empty when there is nothing to run.
  std::vector<double> Prefill(ProgressBar& bar) {
    return Repeat(bar, flags_.prompt, [&] { engine_.Feed(prompt_, {}); });
  }
  std::vector<double> Decode(ProgressBar& bar) {
    return Repeat(bar, flags_.generate * flags_.streams, [&] { DecodeTokens(flags_.generate); });
  }

  /// The prompt's step, of several the last, and a decode step: each that with the median time of
  /// the repetitions.
  std::vector<MeasuredStep> Steps(ProgressBar& bar) {
    std::vector<MeasuredStep> steps;
    if (flags_.prompt > 0) {
      const std::span<const int32_t> prompt(prompt_);
      const size_t before =
          (prompt.size() - 1) / engine_.facts().max_rows * engine_.facts().max_rows;
      steps.push_back(MedianStep(
          bar, depth_.size() + before, [&] { engine_.Feed(prompt.first(before), {}); },
          [&] { engine_.Feed(prompt.subspan(before), {}); }));
    }
    if (flags_.generate > 0) {
      steps.push_back(MedianStep(bar, depth_.size(), [] {}, [&] { DecodeTokens(1); }));
    }
    return steps;
  }

 private:
  template <typename Before, typename Step>
  MeasuredStep MedianStep(ProgressBar& bar, uint64_t depth, const Before& before,
                          const Step& step) {
    std::vector<Json> profiles;
    for (uint32_t i = 0; i <= flags_.repetitions; ++i) {
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

  template <typename Work>
  std::vector<double> Repeat(ProgressBar& bar, uint32_t tokens, const Work& work) {
    std::vector<double> runs;
    if (tokens == 0) return runs;
    for (uint32_t i = 0; i <= flags_.repetitions; ++i) {
      GoToDepth();
      const Stopwatch watch;
      work();
      if (i > 0) runs.push_back(tokens / watch.Seconds());  // the first one warms up
      bar.Update(++done_);
    }
    return runs;
  }

  /// Leaves the sequence with `-d` tokens.
  void GoToDepth() {
    const size_t have = std::min<size_t>(quern_sequence_length(engine_.sequence()), depth_.size());
    engine_.Truncate(have);
    engine_.Feed(std::span(depth_).subspan(have), {});
  }

  /// `count` tokens of every stream, one of each a step. All streams go on from the same depth.
  void DecodeTokens(uint32_t count) {
    quern_error error = {};
    std::vector<SequenceHandle> forks;
    std::vector<quern_sequence*> sequences = {engine_.sequence()};
    for (uint32_t i = 1; i < flags_.streams; ++i) {
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

  const BenchFlags& flags_;
  Engine& engine_;
  std::vector<int32_t> depth_, prompt_;
  uint64_t done_ = 0;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// Null when nothing ran.
Json Summary(const std::vector<double>& runs) {
  if (runs.empty()) return nullptr;
  return {{"median", Median(runs)},
          {"min", *std::min_element(runs.begin(), runs.end())},
          {"max", *std::max_element(runs.begin(), runs.end())},
          {"runs", runs}};
}

std::string Cell(const std::string& text, size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

void PrintRow(const std::string& test, const Json& summary) {
  if (summary.is_null()) return;
  std::string line = test + std::string(16 - std::min<size_t>(test.size(), 16), ' ');
  for (const char* figure : {"median", "min", "max"}) {
    line += Cell(FormatFixed(summary.at(figure), 1), 12);
  }
  WriteOutput(line + "\n");
}

std::string Heading(const Json& report) {
  return report.at("model").get<std::string>() + ", " + report.at("isa").get<std::string>() +
         ", threads: " + report.at("threads").dump() + ", " + report.at("machine").value("cpu", "");
}

void PrintTable(const BenchFlags& flags, const Json& report) {
  WriteOutput(Heading(report) + "\n" + "tokens/s        " + Cell("median", 12) + Cell("min", 12) +
              Cell("max", 12) + "\n");
  const std::string depth = flags.depth ? " @ " + std::to_string(flags.depth) : "";
  PrintRow("pp" + std::to_string(flags.prompt) + depth, report.at("prefill_tokens_per_second"));
  const std::string streams = flags.streams > 1 ? " x " + std::to_string(flags.streams) : "";
  PrintRow("tg" + std::to_string(flags.generate) + streams + depth,
           report.at("decode_tokens_per_second"));
}

void PrintProfile(const Json& profile) {
  std::vector<Json> kernels = profile.at("kernels");
  std::sort(kernels.begin(), kernels.end(), [](const Json& a, const Json& b) {
    return a.at("seconds").get<double>() > b.at("seconds").get<double>();
  });
  WriteOutput(Cell("seconds", 12) + Cell("calls", 12) + "  role     kernel\n");
  for (const Json& kernel : kernels) {
    WriteOutput(Cell(FormatFixed(kernel.at("seconds"), 4), 12) +
                Cell(kernel.at("calls").dump(), 12) + "  " + kernel.at("role").get<std::string>() +
                "  " + (kernel.at("role") == "decode" ? " " : "") +
                kernel.at("name").get<std::string>() + "\n");
  }
}

/// A context that holds what is measured, unless one was given; with --kernels, room for the prompt
/// in one step.
SessionFlags FitContext(const BenchFlags& flags) {
  SessionFlags session = flags.session;
  if (flags.kernels && session.chunk == 0) session.chunk = std::clamp(flags.prompt, 1u, 1u << 20);
  const uint64_t needed = uint64_t{flags.depth} + std::max(flags.prompt, flags.generate);
  if (session.context == 0) session.context = std::max<uint64_t>(needed, 1);
  // Streams share the pages of the depth, but for the last one.
  session.kv_tokens = session.context + (flags.streams - 1) * (uint64_t{flags.generate} + 64);
  return session;
}

void WriteFile(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.Write(text.data(), text.size());
  file.Commit();
}

/// What the figures are of.
Json DescribeRun(const BenchFlags& flags, const Engine& engine, const Json& model) {
  return {{"model", model.at("model").at("name")},
          {"artifact", flags.model},
          {"artifact_hash", model.value("hash", "")},
          {"device", engine.facts().device},
          {"isa", engine.facts().target},
          {"threads", engine.facts().threads},
          {"machine", DescribeMachine()},
          {"prompt", flags.prompt},
          {"generate", flags.generate},
          {"depth", flags.depth},
          {"streams", flags.streams},
          {"repetitions", flags.repetitions}};
}

int RunKernels(const BenchFlags& flags) {
  Engine engine(flags.model, FitContext(flags), !flags.output.quiet);
  const auto model = Json::parse(quern_model_json(engine.model()));
  Bench bench(flags, engine);
  std::vector<MeasuredStep> steps;
  {
    const uint64_t kinds = (flags.prompt > 0) + (flags.generate > 0);
    ProgressBar bar("bench", kinds * (flags.repetitions + 1), !flags.output.quiet);
    steps = bench.Steps(bar);
  }
  Json report = DescribeRun(flags, engine, model);
  const Json kernels = ReportKernels(steps, model, engine.facts());
  const std::string heading = Heading(report);
  if (!flags.page.empty()) WriteFile(flags.page, KernelPage(kernels, heading));
  if (!flags.trace.empty()) WriteFile(flags.trace, KernelTrace(steps, kernels).dump() + "\n");
  if (flags.output.json) {
    report["kernels"] = kernels;
    WriteJson(report);
  } else {
    WriteOutput(heading + "\n" + KernelTables(kernels));
  }
  return QUERN_OK;
}

int RunBench(const BenchFlags& flags) {
  if (flags.prompt == 0 && flags.generate == 0) {
    throw CommandError(QUERN_USAGE, "-p 0 and -n 0 leave nothing to measure");
  }
  if (flags.kernels) return RunKernels(flags);
  Engine engine(flags.model, FitContext(flags), !flags.output.quiet);
  if (flags.profile) quern_session_set_profiling(engine.session(), 1);
  Bench bench(flags, engine);
  Json report;
  {
    const uint64_t tests = (flags.prompt > 0) + (flags.generate > 0);
    ProgressBar bar("bench", tests * (flags.repetitions + 1), !flags.output.quiet);
    const auto model = Json::parse(quern_model_json(engine.model()));
    report = DescribeRun(flags, engine, model);
    report["prefill_tokens_per_second"] = Summary(bench.Prefill(bar));
    report["decode_tokens_per_second"] = Summary(bench.Decode(bar));
  }
  if (flags.profile) report["profile"] = ReadProfile(engine.session());
  if (flags.output.json) {
    WriteJson(report);
    return QUERN_OK;
  }
  PrintTable(flags, report);
  if (flags.profile) PrintProfile(report.at("profile"));
  return QUERN_OK;
}

}  // namespace

Action SetUpBench(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();
  const CLI::Validator count = CLI::Range(uint32_t{0}, uint32_t{1} << 24).description("");
  AddModelArgument(app, flags->model);
  app.add_option("-p,--prompt", flags->prompt, "prompt tokens to process at once (default: 512)")
      ->check(count)
      ->type_name("N");
  app.add_option("-n,--generate", flags->generate, "tokens to generate one by one (default: 64)")
      ->check(count)
      ->type_name("N");
  app.add_option("-d,--depth", flags->depth, "tokens that are in the context before (default: 0)")
      ->check(count)
      ->type_name("N");
  app.add_option("-s,--streams", flags->streams,
                 "sequences that decode together; their tokens are counted together (default: 1)")
      ->check(CLI::Range(1, 1024).description(""))
      ->type_name("N");
  app.add_option("-r,--repetitions", flags->repetitions,
                 "measured runs behind a warm-up (default: 5)")
      ->check(CLI::Range(1, 1000).description(""))
      ->type_name("N");
  CLI::Option* profile =
      app.add_flag("--profile", flags->profile, "measure every kernel too, which costs a little");
  CLI::Option* kernels = app.add_flag("--kernels", flags->kernels,
                                      "every kernel of one prompt step and one decode step, beside "
                                      "what this machine can do");
  kernels->excludes(profile);
  app.add_option("--html", flags->page, "with --kernels: a page with the roofline plot")
      ->needs(kernels)
      ->type_name("FILE");
  app.add_option("--trace", flags->trace,
                 "with --kernels: both steps for chrome://tracing or Perfetto")
      ->needs(kernels)
      ->type_name("FILE");
  AddSessionFlags(app, flags->session);
  AddOutputFlags(app, flags->output);
  return [flags] { return RunBench(*flags); };
}

}  // namespace quern::tools

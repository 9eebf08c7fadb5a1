// quern bench: tokens per second, with llama-bench's meanings. Prefill: `-p` random tokens at once
// behind `-d` others. Decode: `-n` tokens one by one behind `-d` others, each the best token of the
// logits before it; with `-s` of several sequences, a token of each a step.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/tools/atomic_file.h"
#include "runtime/tools/bench_runs.h"
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
  BenchPlan plan;
  bool profile = false;
  bool kernels = false;
  bool read_limit = false;
  std::string page;
  std::string trace;
  SessionFlags session;
  OutputFlags output;
};

/// Null when nothing ran.
Json Summary(const std::vector<double>& runs) {
  if (runs.empty()) return nullptr;
  return {{"median", MedianOf(runs)},
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
  const std::string depth = flags.plan.depth ? " @ " + std::to_string(flags.plan.depth) : "";
  PrintRow("pp" + std::to_string(flags.plan.prompt) + depth,
           report.at("prefill_tokens_per_second"));
  const std::string streams =
      flags.plan.streams > 1 ? " x " + std::to_string(flags.plan.streams) : "";
  PrintRow("tg" + std::to_string(flags.plan.generate) + streams + depth,
           report.at("decode_tokens_per_second"));
  if (!report.contains("read_limit")) return;
  const Json& limit = report.at("read_limit");
  PrintRow("read loop, GB/s", limit.at("gb_per_second"));
  Json percent = limit.at("share");
  for (const char* figure : {"median", "min", "max"}) {
    percent[figure] = 100 * percent.at(figure).get<double>();
  }
  PrintRow("share of it, %", percent);
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
  if (flags.kernels && session.chunk == 0)
    session.chunk = std::clamp(flags.plan.prompt, 1u, 1u << 20);
  const uint64_t needed =
      uint64_t{flags.plan.depth} + std::max(flags.plan.prompt, flags.plan.generate);
  if (session.context == 0) session.context = std::max<uint64_t>(needed, 1);
  // Streams share the pages of the depth, but for the last one.
  session.kv_tokens =
      session.context + (flags.plan.streams - 1) * (uint64_t{flags.plan.generate} + 64);
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
          {"prompt", flags.plan.prompt},
          {"generate", flags.plan.generate},
          {"depth", flags.plan.depth},
          {"streams", flags.plan.streams},
          {"repetitions", flags.plan.repetitions}};
}

int RunKernels(const BenchFlags& flags) {
  Engine engine(flags.model, FitContext(flags), !flags.output.quiet);
  const auto model = Json::parse(quern_model_json(engine.model()));
  Bench bench(flags.plan, engine);
  std::vector<MeasuredStep> steps;
  {
    const uint64_t kinds = (flags.plan.prompt > 0) + (flags.plan.generate > 0);
    ProgressBar bar("bench", kinds * (flags.plan.repetitions + 1), !flags.output.quiet);
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
  if (flags.plan.prompt == 0 && flags.plan.generate == 0) {
    throw CommandError(QUERN_USAGE, "-p 0 and -n 0 leave nothing to measure");
  }
  if (flags.read_limit && flags.plan.generate == 0) {
    throw CommandError(QUERN_USAGE, "--read-limit is decode's, and -n 0 leaves none to measure");
  }
  if (flags.kernels) return RunKernels(flags);
  Engine engine(flags.model, FitContext(flags), !flags.output.quiet);
  if (flags.read_limit && engine.facts().device != "cpu") {
    throw CommandError(QUERN_USAGE,
                       "--read-limit reads the CPU's memory; leave it, or use "
                       "--device=cpu");
  }
  if (flags.profile) quern_session_set_profiling(engine.session(), 1);
  Bench bench(flags.plan, engine);
  Json report;
  {
    const uint64_t tests = (flags.plan.prompt > 0) + (flags.plan.generate > 0);
    ProgressBar bar("bench", tests * (flags.plan.repetitions + 1), !flags.output.quiet);
    const auto model = Json::parse(quern_model_json(engine.model()));
    report = DescribeRun(flags, engine, model);
    report["prefill_tokens_per_second"] = Summary(bench.Prefill(bar));
    if (flags.read_limit) {
      const Bench::BesideReads found = bench.DecodeBesideReads(bar);
      std::vector<double> reads = found.reads;
      for (double& rate : reads) rate *= 1e-9;
      report["decode_tokens_per_second"] = Summary(found.decode);
      report["read_limit"] = {{"step_bytes", found.step_bytes},
                              {"gb_per_second", Summary(reads)},
                              {"share", Summary(found.shares)}};
    } else {
      report["decode_tokens_per_second"] = Summary(bench.Decode(bar));
    }
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
  app.add_option("-p,--prompt", flags->plan.prompt,
                 "prompt tokens to process at once (default: 512)")
      ->check(count)
      ->type_name("N");
  app.add_option("-n,--generate", flags->plan.generate,
                 "tokens to generate one by one (default: 64)")
      ->check(count)
      ->type_name("N");
  app.add_option("-d,--depth", flags->plan.depth,
                 "tokens that are in the context before (default: 0)")
      ->check(count)
      ->type_name("N");
  app.add_option("-s,--streams", flags->plan.streams,
                 "sequences that decode together; their tokens are counted together (default: 1)")
      ->check(CLI::Range(1, 1024).description(""))
      ->type_name("N");
  app.add_option("-r,--repetitions", flags->plan.repetitions,
                 "measured runs behind a warm-up (default: 5)")
      ->check(CLI::Range(1, 1000).description(""))
      ->type_name("N");
  CLI::Option* profile =
      app.add_flag("--profile", flags->profile, "measure every kernel too, which costs a little");
  CLI::Option* kernels = app.add_flag("--kernels", flags->kernels,
                                      "every kernel of one prompt step and one decode step, beside "
                                      "what this machine can do");
  kernels->excludes(profile);
  app.add_flag(
         "--read-limit", flags->read_limit,
         "decode in turn with a plain loop that reads as many bytes as a step, and what share "
         "of the loop's rate decode reaches")
      ->excludes(kernels)
      ->excludes(profile);
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

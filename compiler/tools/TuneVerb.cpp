#include "compiler/tools/TuneVerb.h"

#include "codegen/artifact/OutputFile.h"
#include "compiler/tools/QuantizeOption.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

#include <cmath>
#include <cstdio>

using namespace quern;
namespace json = llvm::json;

static constexpr const char *kTuneExamples = R"(
Examples:
  quern tune model.gguf -o model.tuning
      searches for a minute what suits this machine
  quern compile model.gguf -o model.quern --tuning=model.tuning
      compiles with what was found, without a search
  quern tune old.quern -o here.tuning && quern compile old.quern -o new.quern --tuning=here.tuning
      the same where only the artifact is at hand
  sort -u one.tuning two.tuning > both.tuning
      merges what two machines found

Exit codes: as quern compile; 5 when this machine cannot run the target.)";

void quern::addTune(CLI::App &app, TuneCommandLine &line) {
  CLI::App *verb = app.add_subcommand(
      "tune", "Search the tiles of a model's kernels on this machine");
  verb->footer(kTuneExamples);
  CompileOptions &compile = line.options.compile;
  verb->add_option("MODEL", compile.input,
                   "MODEL.gguf, X.mlir, or an artifact M.quern")
      ->required();
  verb->add_option("-o,--output", line.output,
                   "The database; what an existing one holds is kept "
                   "(default: standard output)");
  verb->add_option("--weights", compile.weights,
                   "The model file with the weights that X.mlir names");
  verb->add_option("--target", line.target,
                   "The target to tune for, which must run here (default: "
                   "host)");
  verb->add_option("--budget", line.options.budget,
                   "Seconds to search: 60, 60s or 5m (default: 60s)")
      ->transform(CLI::AsNumberWithUnit(
          std::map<std::string, double>{{"s", 1}, {"m", 60}}))
      ->check(CLI::Range(0.0, 1e6).description(""));
  addQuantizeOption(verb, compile.quantizeFormat,
                    "As quern compile: kernels depend on it");
  verb->add_flag("--precise", compile.precise,
                 "As quern compile: kernels depend on it");
  verb->add_option("--shares", compile.shares,
                   "As quern compile: kernels depend on it");
  verb->add_flag("--json", line.json,
                 "Report as JSON on standard output; needs -o");
  verb->add_flag("-q,--quiet", line.quiet, "No progress, errors only");
}

static llvm::Error resolve(TuneCommandLine &line) {
  if (line.json && line.output.empty())
    return compileError(ExitCode::Usage,
                        "--json and the database would both go to standard "
                        "output; add -o FILE");
  std::string error;
  const Target *target = resolveTarget(line.target, error);
  if (!target)
    return compileError(line.target == "host" ? ExitCode::Unsupported
                                              : ExitCode::Usage,
                        "--target=" + line.target + ": " + error);
  if (target->isGpu())
    return compileError(ExitCode::Unsupported,
                        "--target=" + line.target +
                            ": GPU kernels are not measured; name a target of "
                            "the CPU");
  CompileOptions &compile = line.options.compile;
  compile.targets = {std::string(target->name)};
  return llvm::Error::success();
}

namespace {
class TuneProgress : public TuneObserver {
public:
  TuneProgress(bool quiet, double budget) : quiet(quiet), budget(budget) {}
  void roundDone(size_t round, size_t records, double seconds) override {
    if (!quiet)
      std::fprintf(stderr, "round %zu: %zu timings, %.0f of %.0f s\n", round,
                   records, seconds, budget);
  }

private:
  bool quiet;
  double budget;
};
} // namespace

/// How much faster the tile is, in per cent.
static double fasterBy(double logarithm) {
  return 100 * (std::exp(logarithm) - 1);
}

static std::string tileOf(const TunedKernel &tuned) {
  return llvm::StringRef(tuned.str()).split('=').second.str();
}

static void printReport(const TuneSummary &summary) {
  std::fprintf(stderr, "%zu timings in %zu rounds on %s, threads: %lld\n",
               summary.records, summary.rounds, summary.cpu.c_str(),
               static_cast<long long>(summary.threads));
  for (const auto &[name, tuned] : summary.adopted) {
    std::string points;
    for (const TuningRecord &record : tuned.records)
      points += llvm::formatv(", {0} rows {1:F1} us, default {2:F1} us",
                              record.rows, 1e-3 * record.nanoseconds,
                              1e-3 * record.overNanoseconds);
    std::fprintf(stderr, "%s %s: tile %s, %.1f %% faster%s\n", name.c_str(),
                 tuned.target.c_str(), tileOf(tuned).c_str(),
                 fasterBy(tuned.gain), points.c_str());
  }
  if (summary.adopted.empty())
    std::fprintf(stderr, "nothing is faster than the default tiles\n");
}

static void printJson(const TuneSummary &summary, const TuneCommandLine &line,
                      size_t records) {
  json::Array adopted;
  for (const auto &[name, tuned] : summary.adopted) {
    json::Array points;
    for (const TuningRecord &record : tuned.records)
      points.push_back(
          json::Object{{"cpu", record.cpu},
                       {"threads", record.threads},
                       {"rows", record.rows},
                       {"nanoseconds", record.nanoseconds},
                       {"default_nanoseconds", record.overNanoseconds},
                       {"noise", 1e-3 * static_cast<double>(record.noise)}});
    adopted.push_back(json::Object{{"name", name},
                                   {"kernel", tuned.kernel},
                                   {"target", tuned.target},
                                   {"tile", tileOf(tuned)},
                                   {"gain", std::exp(tuned.gain) - 1},
                                   {"points", std::move(points)}});
  }
  llvm::outs() << json::Value(json::Object{
                      {"database", line.output},
                      {"records", static_cast<int64_t>(records)},
                      {"target", summary.target},
                      {"cpu", summary.cpu},
                      {"threads", summary.threads},
                      {"rounds", static_cast<int64_t>(summary.rounds)},
                      {"timings", static_cast<int64_t>(summary.records)},
                      {"adopted", std::move(adopted)}})
               << "\n";
}

llvm::Error quern::runTune(TuneCommandLine &line) {
  if (llvm::Error error = resolve(line))
    return error;
  TuningDatabase database;
  if (!line.output.empty() && llvm::sys::fs::exists(line.output)) {
    llvm::Expected<TuningDatabase> known = TuningDatabase::read(line.output);
    if (!known)
      return known.takeError();
    database = std::move(*known);
  }
  TuneProgress progress(line.quiet || line.json, line.options.budget);
  llvm::Expected<TuneSummary> summary =
      tuneModel(line.options, database, progress);
  if (!summary)
    return summary.takeError();
  if (line.output.empty())
    llvm::outs() << database.str();
  else if (llvm::Error error = writeFile(line.output, database.str()))
    return error;
  if (line.json)
    printJson(*summary, line, database.size());
  else if (!line.quiet)
    printReport(*summary);
  return llvm::Error::success();
}

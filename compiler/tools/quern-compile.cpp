//===- quern-compile.cpp - The verbs that need the compiler ---------------===//
//
// `quern compile`, `quern import` and `quern keygen`: the command line `quern`
// runs this binary for them. docs/commands.md describes options and exit codes.
//
//===----------------------------------------------------------------------===//
#include "codegen/target/Target.h"
#include "compiler/pipeline/ArtifactInput.h"
#include "compiler/tools/Emergency.h"
#include "compiler/tools/Progress.h"
#include "compiler/tools/QuantizeOption.h"
#include "compiler/tools/Report.h"
#include "compiler/tools/TuneVerb.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>

using namespace quern;

namespace {
/// The options of both verbs as the command line gives them.
struct CommandLine {
  CompileOptions compile;
  std::vector<std::string> targets;
  std::string kv, compileTo, compileFrom;
  bool json = false;
  bool quiet = false;
  bool noMeasure = false;
  std::string keyName; ///< of keygen
};
} // namespace

static constexpr const char *kCompileExamples = R"(
Examples:
  quern compile model.gguf -o model.quern
      for this machine
  quern compile model.gguf -o model.quern --target=avx2,avx512-vnni,amx
      for several kinds of machine; the best one is chosen at load
  quern compile f16.gguf -o small.quern --quantize=int8
      with float weights rounded to 8 bits
  quern compile model.gguf -o model.quern --explain --dump-ir-to=ir
      what fused and what did not, and the module after every phase
  quern compile ir/05-tile.mlir --compile-from=tile --weights model.gguf -o model.quern
      go on after the tile phase, with the tiles that were edited

Exit codes: 0 ok, 1 failure, 2 usage, 3 malformed input, 4 unsupported,
5 incompatible, 6 out of memory, 130 and 143 when interrupted.)";

static constexpr const char *kImportExamples = R"(
Examples:
  quern import model.gguf > model.mlir
  quern compile model.mlir --weights model.gguf -o model.quern)";

static constexpr const char *kKeygenExamples = R"(
Examples:
  quern keygen mill
  quern compile model.gguf -o model.quern --sign-key mill.key
  quern run model.quern --trust mill.pub -p "A quern is")";

static void addCompile(CLI::App &app, CommandLine &line) {
  CLI::App *verb =
      app.add_subcommand("compile", "Compile a model into one artifact");
  verb->footer(kCompileExamples);
  CompileOptions &options = line.compile;
  verb->add_option("MODEL", options.input,
                   "MODEL.gguf, X.mlir, or an artifact to make other code for")
      ->required();
  verb->add_option("-o,--output", options.output,
                   "The artifact; with --compile-to an IR phase, the module");
  verb->add_option("--weights", options.weights,
                   "The model file with the weights that X.mlir names");
  verb->add_option("--target", line.targets,
                   "host, avx2, avx512-vnni or amx; several with commas "
                   "(default: host)")
      ->delimiter(',');
  addQuantizeOption(verb, options.quantizeFormat,
                    "Round float weights to int8 (q8_0), int4 (q4_0) or fp8 "
                    "(e4m3)");
  verb->add_flag("--no-measure", line.noMeasure,
                 "Do not measure what --quantize cost");
  verb->add_flag("--precise", options.precise,
                 "Float activations and a float32 KV cache");
  verb->add_option("--kv", line.kv,
                   "Keys and values of GPUs: f16 (default) or int8")
      ->check(CLI::IsMember({"f16", "int8"}));
  verb->add_option("--shares", options.shares,
                   "Parts the work is cut in (default: 2)");
  verb->add_option("--sign-key", options.signKey,
                   "Sign the artifact with the secret key in this file");
  verb->add_option("--tuning", options.tuning,
                   "Take the tiles of this database, which quern tune made");
  verb->add_option("--compile-to", line.compileTo,
                   "The last phase (default: artifact)");
  verb->add_option("--compile-from", line.compileFrom,
                   "MODEL is the module after this phase; go on after it");
  verb->add_option("--dump-ir-to", options.dumpIrTo,
                   "Write the module after every phase into this folder");
  verb->add_option("--dump-kernels-to", options.dumpKernelsTo,
                   "Write every kernel of every target into this folder");
  verb->add_option("--disable-pass", options.disabledPasses,
                   "Switch an optional pass off; may be given several times")
      ->allow_extra_args(false);
  verb->add_flag("--verify-each", options.verifyEach,
                 "Verify the module after every pass");
  verb->add_flag(
      "--explain", options.explain,
      "Say what fused, what did not and why, and each kernel's tile");
  verb->add_flag("--json", line.json, "Report as JSON on standard output");
  verb->add_flag("-q,--quiet", line.quiet, "No progress, errors only");
}

static void addImport(CLI::App &app, CommandLine &line) {
  CLI::App *verb =
      app.add_subcommand("import", "Print a model as text of the lm dialect");
  verb->footer(kImportExamples);
  verb->add_option("MODEL", line.compile.input, "MODEL.gguf")->required();
  verb->add_option("-o,--output", line.compile.output,
                   "The text (default: standard output)");
  verb->callback([&line] {
    line.quiet = true;
    line.compileTo = "import";
  });
}

static void addKeygen(CLI::App &app, CommandLine &line) {
  CLI::App *verb = app.add_subcommand(
      "keygen", "Make a key pair to sign artifacts with: NAME.key, which is "
                "secret, and NAME.pub");
  verb->footer(kKeygenExamples);
  verb->add_option("NAME", line.keyName, "Of the two files")->required();
}

static llvm::Error usage(const llvm::Twine &message) {
  return compileError(ExitCode::Usage, message);
}

static llvm::Error resolvePhase(llvm::StringRef option, const std::string &name,
                                std::optional<Phase> &phase) {
  if (name.empty() || (phase = parsePhase(name)))
    return llvm::Error::success();
  std::string known;
  for (const PhaseInfo &info : phases())
    known += (known.empty() ? "" : ", ") + info.name.str();
  return usage(option + "=" + name + " names none of the phases " + known);
}

/// Puts targets in the table's order, each once.
static llvm::Error resolveTargets(const CommandLine &line,
                                  std::vector<std::string> &names) {
  std::vector<std::string> wanted = line.targets;
  // Programs that have tiles say themselves what they are for.
  if (wanted.empty() && line.compileFrom.empty() &&
      !isArtifactPath(line.compile.input))
    wanted.push_back("host");
  std::vector<const Target *> found;
  for (const std::string &name : wanted) {
    std::string error;
    const Target *target = resolveTarget(name, error);
    if (!target)
      return compileError(name == "host" ? ExitCode::Unsupported
                                         : ExitCode::Usage,
                          "--target=" + name + ": " + error);
    found.push_back(target);
  }
  for (std::span<const Target> kind : {targets(), gpuTargets()})
    for (const Target &target : kind)
      if (llvm::is_contained(found, &target))
        names.emplace_back(target.name);
  return llvm::Error::success();
}

/// Turns names into what they stand for.
static llvm::Error resolve(CommandLine &line) {
  CompileOptions &options = line.compile;
  std::optional<Phase> last;
  if (llvm::Error error = resolvePhase("--compile-to", line.compileTo, last))
    return error;
  options.compileTo = last.value_or(Phase::Artifact);
  if (llvm::Error error =
          resolvePhase("--compile-from", line.compileFrom, options.compileFrom))
    return error;
  options.int8Kv = line.kv == "int8";
  for (std::string &pass : options.disabledPasses)
    if (llvm::StringRef(pass).starts_with("lm-"))
      pass.erase(0, 3);
  if (line.json && isIrPhase(options.compileTo) &&
      (options.output.empty() || options.output == "-"))
    return usage("--json and the module would both go to standard output; add "
                 "-o FILE");
  // Import prints the model for any target.
  if (options.compileTo == Phase::Import)
    return llvm::Error::success();
  return resolveTargets(line, options.targets);
}

/// Measures what --quantize cost, where there is something to measure and
/// somebody to tell. The artifact is made by now: that it could not be measured
/// is no failure.
static QuantizationReport measure(const CommandLine &line,
                                  const CompileSummary &summary,
                                  Progress &progress) {
  QuantizationReport report;
  if (!line.compile.quantizeFormat || !summary.artifact ||
      !summary.artifact->quantizedFrom || line.noMeasure ||
      (line.quiet && !line.json))
    return report;
  const auto start = std::chrono::steady_clock::now();
  llvm::Expected<QuantizationLoss> loss = measureQuantizationLoss(line.compile);
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  if (loss)
    report.loss = std::move(*loss);
  else
    report.notMeasured = llvm::toString(loss.takeError());
  progress.stepDone("measure", seconds.count());
  return report;
}

static llvm::Error run(CommandLine &line) {
  if (!line.keyName.empty())
    return writeNewKey(line.keyName);
  if (llvm::Error error = resolve(line))
    return error;
  Progress progress(line.quiet || line.json,
                    line.compile.explain && !line.json);
  llvm::Expected<CompileSummary> summary = compileModel(line.compile, progress);
  if (!summary) {
    progress.clearBar();
    return summary.takeError();
  }
  const QuantizationReport quantization = measure(line, *summary, progress);
  if (line.json)
    printJsonReport(line.compile, *summary, quantization, progress);
  else if (!line.quiet)
    printReport(line.compile, *summary, quantization);
  return llvm::Error::success();
}

int main(int argc, char **argv) {
  const char *verb = argc > 1 ? argv[1] : "";
  if (!llvm::is_contained({"compile", "import", "tune", "keygen"},
                          llvm::StringRef(verb)))
    verb = "";
  // Asked of the arguments: an error may come before they are parsed.
  const bool json =
      std::find(argv, argv + argc, llvm::StringRef("--json")) != argv + argc;
  installEmergencyExits(verb, json);
  CommandLine line;
  TuneCommandLine tune;
  CLI::App app("Compile language models into artifacts of the Quern runtime",
               "quern");
  app.require_subcommand(1);
  addCompile(app, line);
  addImport(app, line);
  addTune(app, tune);
  addKeygen(app, line);
  auto fail = [&](ExitCode code, const std::string &message) {
    printError(verb, code, message, json);
    return static_cast<int>(code);
  };
  try {
    app.parse(argc, argv);
    int code = 0;
    llvm::handleAllErrors(
        app.got_subcommand("tune") ? runTune(tune) : run(line),
        [&](const CompileError &failed) {
          code = fail(failed.code(), failed.message());
        },
        [&](const llvm::ErrorInfoBase &failed) {
          code = fail(ExitCode::Failure, failed.message());
        });
    return code;
  } catch (const CLI::Success &request) {
    return app.exit(request); // --help
  } catch (const CLI::ParseError &error) {
    return fail(ExitCode::Usage, std::string(error.what()) + "; see quern " +
                                     verb + (*verb ? " " : "") + "--help");
  }
}

#include "compiler/tools/Report.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/JSON.h"

#include <cstdio>

using namespace quern;
namespace json = llvm::json;

/// "270 MB -> 143 MB, mean KL 0.0021, top-1 98.4 % over 96 positions (...)".
static std::string describe(const ArtifactSummary &artifact,
                            const QuantizationReport &quantization) {
  if (!artifact.quantizedFrom)
    return "nothing to do, the model has no float matrix";
  std::string text = formatBytes(artifact.quantizedFrom) + " -> " +
                     formatBytes(artifact.quantizedTo);
  if (!quantization.notMeasured.empty())
    text += ", not measured: " + quantization.notMeasured;
  if (!quantization.loss)
    return text;
  const QuantizationLoss &loss = *quantization.loss;
  char numbers[96];
  std::snprintf(numbers, sizeof(numbers),
                ", mean KL %.2g, top-1 %.1f %% over %zu positions (target ",
                loss.meanKl, 100 * loss.top1, loss.positions);
  return text + numbers + loss.target + ")";
}

void quern::printReport(const CompileOptions &options,
                        const CompileSummary &summary,
                        const QuantizationReport &quantization) {
  if (!summary.artifact)
    return;
  const ArtifactSummary &artifact = *summary.artifact;
  if (options.quantizeFormat)
    std::fprintf(stderr, "quantize: %s\n",
                 describe(artifact, quantization).c_str());
  std::string code;
  for (const TargetSummary &target : summary.targets)
    code += ", code " + target.target + " " + formatBytes(target.codeBytes);
  std::fprintf(stderr, "%s: %s (weights %s, %s in the source%s)\n",
               options.output.c_str(), formatBytes(artifact.fileBytes).c_str(),
               formatBytes(artifact.weightBytes).c_str(),
               formatBytes(artifact.sourceWeightBytes).c_str(), code.c_str());
  std::fprintf(stderr, "blake2b-256 %s\n", hexDigest(artifact.hash).c_str());
}

static json::Object artifactObject(const CompileOptions &options,
                                   const ArtifactSummary &artifact) {
  return json::Object{
      {"path", options.output},
      {"bytes", artifact.fileBytes},
      {"hash", hexDigest(artifact.hash)},
      {"weight_bytes", artifact.weightBytes},
      {"source_weight_bytes", artifact.sourceWeightBytes},
      {"parameters", artifact.parameters},
  };
}

static json::Object quantizeObject(const std::string &format,
                                   const ArtifactSummary &artifact,
                                   const QuantizationReport &quantization) {
  json::Object object{{"format", format},
                      {"from_bytes", artifact.quantizedFrom},
                      {"to_bytes", artifact.quantizedTo}};
  if (const auto &loss = quantization.loss) {
    object["mean_kl"] = loss->meanKl;
    object["top1"] = loss->top1;
    object["positions"] = loss->positions;
    object["target"] = loss->target;
  }
  if (!quantization.notMeasured.empty())
    object["not_measured"] = quantization.notMeasured;
  return object;
}

void quern::printJsonReport(const CompileOptions &options,
                            const CompileSummary &summary,
                            const QuantizationReport &quantization,
                            const Progress &progress) {
  json::Array phases, targets, explain;
  for (auto [phase, seconds] : summary.phases)
    phases.push_back(json::Object{{"name", phaseInfo(phase).name.str()},
                                  {"seconds", seconds}});
  for (const TargetSummary &target : summary.targets)
    targets.push_back(json::Object{{"name", target.target},
                                   {"code_bytes", target.codeBytes}});
  for (const auto &[phase, line] : progress.lines)
    explain.push_back(
        json::Object{{"phase", phaseInfo(phase).name.str()}, {"line", line}});
  json::Object report{{"phases", std::move(phases)},
                      {"targets", std::move(targets)},
                      {"shares", summary.used.shares},
                      {"precise", summary.used.precise}};
  if (options.explain)
    report["explain"] = std::move(explain);
  if (summary.artifact)
    report["artifact"] = artifactObject(options, *summary.artifact);
  if (summary.artifact && options.quantizeFormat)
    report["quantize"] = quantizeObject(*options.quantizeFormat,
                                        *summary.artifact, quantization);
  llvm::outs() << json::Value(std::move(report)) << "\n";
}

/// The code's name in JSON, as docs/commands.md lists them.
static llvm::StringRef kindOf(ExitCode code) {
  switch (code) {
  case ExitCode::Ok:
    return "ok";
  case ExitCode::Failure:
    return "failure";
  case ExitCode::Usage:
    return "usage";
  case ExitCode::Malformed:
    return "malformed";
  case ExitCode::Unsupported:
    return "unsupported";
  case ExitCode::Incompatible:
    return "incompatible";
  case ExitCode::OutOfMemory:
    return "out_of_memory";
  }
  return "failure";
}

void quern::printError(llvm::StringRef verb, ExitCode code, std::string message,
                       bool json) {
  for (char &c : message)
    if (llvm::isASCII(c) && !llvm::isPrint(c))
      c = ' ';
  llvm::errs() << "quern" << (verb.empty() ? "" : " ") << verb
               << ": error: " << message << "\n";
  if (!json)
    return;
  json::Object error{{"code", static_cast<int>(code)},
                     {"kind", kindOf(code)},
                     {"message", json::fixUTF8(message)}};
  llvm::outs() << json::Value(json::Object{{"error", std::move(error)}})
               << "\n";
}

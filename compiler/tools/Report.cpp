#include "compiler/tools/Report.h"

#include "llvm/Support/JSON.h"

#include <cstdio>

using namespace quern;
namespace json = llvm::json;

void quern::printReport(const CompileOptions &options,
                        const CompileSummary &summary) {
  if (!summary.artifact)
    return;
  const ArtifactSummary &artifact = *summary.artifact;
  if (artifact.quantizedFrom)
    std::fprintf(stderr, "quantized  %s of float weights to %s (%s)\n",
                 formatBytes(artifact.quantizedFrom).c_str(),
                 formatBytes(artifact.quantizedTo).c_str(),
                 options.quantizeFormat.value_or("").c_str());
  else if (options.quantizeFormat)
    std::fprintf(stderr, "quantized  nothing: the model has no float matrix\n");
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
      {"quantized_from_bytes", artifact.quantizedFrom},
      {"quantized_to_bytes", artifact.quantizedTo},
      {"parameters", artifact.parameters},
  };
}

void quern::printJsonReport(const CompileOptions &options,
                            const CompileSummary &summary,
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
  llvm::outs() << json::Value(std::move(report)) << "\n";
}

void quern::printJsonError(ExitCode code, const std::string &message) {
  llvm::outs() << json::Value(json::Object{
                      {"error", json::Object{{"code", static_cast<int>(code)},
                                             {"message", message}}}})
               << "\n";
}

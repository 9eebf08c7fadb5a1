// quern doctor: what this machine can run, and why not more.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "runtime/tools/command.h"
#include "runtime/tools/error.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/machine.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

/// The compiler's targets by what each adds to the one before. An artifact lists for itself what
/// its code needs (`quern inspect`); this is for machines that have no artifact yet.
struct TargetFeatures {
  const char* name;
  std::vector<const char*> adds;
};
const std::vector<TargetFeatures>& Targets() {
  static const std::vector<TargetFeatures> targets = {
      {"avx2", {"avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe"}},
      {"avx512-vnni", {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"}},
      {"amx", {"avx512bf16", "amx-tile", "amx-int8", "amx-bf16"}},
  };
  return targets;
}

/// [{"name", "supported", "missing"}] for a machine with these features.
Json JudgeTargets(const Json& features) {
  Json judged = Json::array();
  Json missing = Json::array();
  for (const TargetFeatures& target : Targets()) {
    for (const char* feature : target.adds) {
      if (std::find(features.begin(), features.end(), feature) == features.end()) {
        missing.push_back(feature);
      }
    }
    judged.push_back({{"name", target.name}, {"supported", missing.empty()}, {"missing", missing}});
  }
  return judged;
}

std::string Words(const Json& strings) {
  std::string words;
  for (const Json& each : strings) {
    words += (words.empty() ? "" : " ") + each.get<std::string>();
  }
  return words;
}

void Print(const Json& report) {
  const auto line = [](const std::string& label, const std::string& text) {
    WriteOutput(label + std::string(label.size() < 12 ? 12 - label.size() : 1, ' ') + text + "\n");
  };
  line("quern", report.at("version"));
  line("cpu", report.at("cpu").get<std::string>() + ", " + report.at("cpus").dump() + " usable");
  line("memory", FormatBytes(report.at("memory_bytes")));
  line("features", Words(report.at("features")));
  for (const Json& target : report.at("targets")) {
    line("target",
         target.at("name").get<std::string>() + ": " +
             (target.at("supported").get<bool>() ? "runs here"
                                                 : "lacks " + Words(target.at("missing"))));
  }
  if (report.at("amx_emulator").get<bool>()) line("amx", "emulated (QUERN_AMX_EMULATOR)");
  for (const Json& gpu : report.at("gpus")) {
    line("gpu", gpu.at("name").get<std::string>() + ": " +
                    gpu.at("description").get<std::string>() + ", compute capability " +
                    gpu.at("compute_capability").get<std::string>() + ", " +
                    FormatBytes(gpu.at("memory_bytes")) + ", driver for CUDA " +
                    gpu.at("driver_version").get<std::string>() + " (PTX " +
                    gpu.at("ptx_version").get<std::string>() + ")");
  }
  if (report.at("gpus").empty()) line("gpu", "none: " + report.at("gpu_detail").get<std::string>());
  const std::string compiler = report.at("compiler").is_null() ? "" : report.at("compiler");
  line("compiler", compiler.empty() ? "none: 'quern compile' and 'quern import' need quern-compile "
                                      "beside quern or in ../libexec/quern"
                                    : compiler);
  for (const Json& check : report.at("checks")) {
    const std::string detail = check.at("detail");
    line(check.at("ok").get<bool>() ? "ok" : "FAILED",
         check.at("name").get<std::string>() + (detail.empty() ? "" : ": " + detail));
  }
}

int Doctor(bool json) {
  Json report = DescribeMachine();
  report["targets"] = JudgeTargets(report.at("features"));
  const std::string compiler = FindCompiler();
  report["compiler"] = compiler.empty() ? Json(nullptr) : Json(compiler);
  if (json) {
    WriteJson(report);
  } else {
    Print(report);
  }
  for (const Json& check : report.at("checks")) {
    if (!check.at("ok").get<bool>()) return check.at("code").get<int>();
  }
  return QUERN_OK;
}

}  // namespace

Action SetUpDoctor(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  AddJsonFlag(app, *json);
  return [json] { return Doctor(*json); };
}

}  // namespace quern::tools

// What each kernel of a step took, moved and computed, beside what the machine can do: `quern bench
// --kernels`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/tools/engine.h"

namespace quern::tools {

/// One step as quern_session_profile describes it.
struct MeasuredStep {
  /// Tokens that were in the context before it.
  uint64_t depth = 0;
  /// Of the repetition with the median time.
  nlohmann::ordered_json profile;
};

/// {"limits", "steps"}, docs/commands.md has the fields. Measures the limits of the CPU's targets,
/// with the session's threads. `model` is quern_model_json's object.
nlohmann::ordered_json ReportKernels(const std::vector<MeasuredStep>& steps,
                                     const nlohmann::ordered_json& model,
                                     const SessionFacts& session);

/// The report as tables for people.
std::string KernelTables(const nlohmann::ordered_json& report);

/// The report, the same figures, as a page with a roofline plot that needs nothing else. `heading`
/// may hold anything.
std::string KernelPage(const nlohmann::ordered_json& report, const std::string& heading);

/// The steps as Chrome's trace events: a process a step, a track a thread, in it layers and within
/// these dispatches and joins. `report` is that of the same steps.
nlohmann::ordered_json KernelTrace(const std::vector<MeasuredStep>& steps,
                                   const nlohmann::ordered_json& report);

}  // namespace quern::tools

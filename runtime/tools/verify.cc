// quern verify: is this artifact sound?

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/tools/accuracy.h"
#include "runtime/tools/command.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/handles.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

struct VerifyFlags {
  std::string model;
  bool full = false;
  bool accuracy = false;
  TrustFlags trust;
  SessionFlags session;
  bool json = false;
};

/// Measures again what the record for this device and target promises. As a check of the report.
nlohmann::ordered_json CheckAccuracy(const VerifyFlags& flags) {
  SessionFlags session = flags.session;
  session.trust = flags.trust;
  Engine engine(flags.model, session, false);
  const SessionFacts& facts = engine.facts();
  const std::string where = facts.target + " on " + DeviceKind(facts.device);
  const std::optional<AccuracyRecord> record = FindAccuracyRecord(engine);
  if (!record) {
    return {{"name", "accuracy"},
            {"ok", false},
            {"code", QUERN_ACCURACY},
            {"detail", "not measured for " + where + "; quern eval --record does that"}};
  }
  const Reference reference = ReadReference(engine.model(), record->reference);
  const Accuracy measured = MeasureAccuracy(engine, reference);
  const bool kept = measured.mean_kl <= record->max_mean_kl && measured.top1 >= record->min_top1;
  const std::string limits = "at most " + FormatFixed(record->max_mean_kl, 5) + " and at least " +
                             FormatFixed(100 * record->min_top1, 1) + " %";
  return {{"name", "accuracy"},
          {"ok", kept},
          {"code", kept ? QUERN_OK : QUERN_ACCURACY},
          {"detail", where + ": " + DescribeAccuracy(measured, reference.perplexity) +
                         (kept ? ", as promised: " : ", wanted ") + limits +
                         (kept ? "" : "; compile the model again, or record what is true")}};
}

/// The report of quern_verify, with the check of the accuracy where it was asked for and the file
/// is sound; `code` and `message` become those of the first failed check.
nlohmann::ordered_json MakeReport(const VerifyFlags& flags, quern_status_code& code,
                                  quern_error& error) {
  char* text = nullptr;
  const std::string keys = flags.trust.Keys();
  const quern_model_options options = ModelOptions(flags.full, keys);
  code = quern_verify(flags.model.c_str(), &options, &text, &error);
  const TextHandle owner(text);
  if (text == nullptr) Check(code, error);
  auto report = nlohmann::ordered_json::parse(text);
  if (!flags.accuracy || code != QUERN_OK) return report;
  const auto check = CheckAccuracy(flags);
  report["checks"].push_back(check);
  report["ok"] = check.at("ok");
  code = static_cast<quern_status_code>(check.at("code").get<int>());
  const std::string detail = check.at("detail");
  detail.copy(error.message, sizeof(error.message) - 1);
  return report;
}

int Verify(const VerifyFlags& flags) {
  quern_error error = {};
  quern_status_code code = QUERN_OK;
  const auto report = MakeReport(flags, code, error);
  if (flags.json) {
    WriteJson(report);
    return code;
  }
  for (const auto& check : report.at("checks")) {
    const std::string detail = check.at("detail");
    WriteOutput(std::string(check.at("ok").get<bool>() ? "ok      " : "FAILED  ") +
                check.at("name").get<std::string>() + (detail.empty() ? "" : ": " + detail) + "\n");
  }
  Check(code, error);
  return QUERN_OK;
}

}  // namespace

Action SetUpVerify(CLI::App& app) {
  auto flags = std::make_shared<VerifyFlags>();
  AddModelArgument(app, flags->model);
  app.add_flag("--full,--check-weights", flags->full,
               "hash the weights too, which reads all of them");
  app.add_flag("--accuracy", flags->accuracy,
               "measure again and compare with the artifact's record of it");
  AddDeviceFlags(app, flags->session);
  AddTrustFlag(app, flags->trust);
  AddJsonFlag(app, flags->json);
  return [flags] { return Verify(*flags); };
}

}  // namespace quern::tools

// quern verify: is this artifact sound?

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/tools/command.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/handles.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

struct VerifyFlags {
  std::string model;
  bool full = false;
  TrustFlags trust;
  bool json = false;
};

int Verify(const VerifyFlags& flags) {
  char* text = nullptr;
  quern_error error = {};
  const std::string keys = flags.trust.Keys();
  const quern_model_options options = ModelOptions(flags.full, keys);
  const quern_status_code code = quern_verify(flags.model.c_str(), &options, &text, &error);
  const TextHandle owner(text);
  if (text == nullptr) Check(code, error);
  const auto report = nlohmann::ordered_json::parse(text);
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
  AddTrustFlag(app, flags->trust);
  AddJsonFlag(app, flags->json);
  return [flags] { return Verify(*flags); };
}

}  // namespace quern::tools

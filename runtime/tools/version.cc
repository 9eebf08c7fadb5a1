// quern version.

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "quern.h"
#include "runtime/tools/command.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/output.h"

namespace quern::tools {

Action SetUpVersion(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  AddJsonFlag(app, *json);
  return [json] {
    if (*json) {
      WriteJson({{"version", quern_version()}, {"api_version", quern_api_version()}});
    } else {
      WriteOutput(std::string("quern ") + quern_version() + "\n");
    }
    return QUERN_OK;
  };
}

}  // namespace quern::tools

#include "runtime/tools/help.h"

#include "quern.h"
#include "runtime/tools/command.h"
#include "runtime/tools/error.h"

namespace quern::tools {
namespace {

std::string Row(const std::string& name, size_t width, const std::string& text) {
  return "  " + name + std::string(width > name.size() ? width - name.size() : 1, ' ') + text +
         "\n";
}

}  // namespace

std::string GeneralHelp() {
  std::string help =
      std::string("quern ") + quern_version() +
      ": runs language models that were compiled to one file.\n\n"
      "Usage: quern COMMAND [OPTIONS]; quern COMMAND --help tells more.\n\nCommands:\n";
  for (const Command& command : Commands()) help += Row(command.name, 12, command.summary);
  help +=
      "\nExample:\n"
      "  quern compile model.gguf -o model.quern\n"
      "  quern run model.quern -p \"A quern is\"\n\n"
      "Results go to standard output, everything else to standard error.\n\nExit codes:\n";
  for (const ExitCode& row : ExitCodes()) help += Row(std::to_string(row.code), 5, row.meaning);
  help += "\nEnvironment:\n";
  help += Row("NO_COLOR", 12, "not empty: no colour on terminals");
  return help;
}

}  // namespace quern::tools

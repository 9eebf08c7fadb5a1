#include "runtime/tools/report.h"

#include <nlohmann/json.hpp>

#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

std::string Rate(size_t tokens, double seconds) {
  std::string text = std::to_string(tokens) + " tokens in " + FormatFixed(seconds, 2) + " s";
  if (tokens > 0 && seconds > 0) {
    text += " (" + FormatFixed(static_cast<double>(tokens) / seconds, 1) + "/s)";
  }
  return text;
}

}  // namespace

void ReportAnswer(const OutputFlags& flags, const SessionFacts& session, const PromptFacts& prompt,
                  const Answer& answer) {
  if (flags.json) {
    WriteJson({{"text", answer.text},
               {"tokens", answer.tokens},
               {"finish", answer.finish},
               {"prompt_tokens", prompt.tokens},
               {"prompt_seconds", prompt.seconds},
               {"generated_tokens", answer.tokens.size()},
               {"generate_seconds", answer.seconds},
               {"isa", session.target},
               {"threads", session.threads}});
  } else if (!answer.text.empty() && OutputIsTerminal()) {
    WriteOutput("\n");
  }
  if (flags.quiet) return;
  WriteNote("prompt " + Rate(prompt.fed, prompt.seconds) + ", answer " +
            Rate(answer.tokens.size(), answer.seconds) + "; " + session.target +
            ", threads: " + std::to_string(session.threads) + "; finish: " + answer.finish);
}

}  // namespace quern::tools

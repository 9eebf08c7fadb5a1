// What `run` and `chat` tell about an answer.
#pragma once

#include <cstddef>

#include "runtime/tools/engine.h"
#include "runtime/tools/flags.h"

namespace quern::tools {

/// The prompt of an answer.
struct PromptFacts {
  size_t tokens = 0;   ///< Of the whole prompt.
  size_t fed = 0;      ///< Of them new, so that they had to be processed.
  double seconds = 0;  ///< Spent on those.
};

/// Ends the line on a terminal; writes the JSON object, or a line of statistics unless quiet.
void ReportAnswer(const OutputFlags& flags, const SessionFacts& session, const PromptFacts& prompt,
                  const Answer& answer);

}  // namespace quern::tools

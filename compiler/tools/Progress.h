//===- Progress.h - What a compilation tells while it runs ------*- C++ -*-===//
#ifndef QUERN_COMPILER_TOOLS_PROGRESS_H
#define QUERN_COMPILER_TOOLS_PROGRESS_H

#include "compiler/pipeline/Compiler.h"

#include <string>
#include <vector>

namespace quern {

/// "97.6 MB": powers of 1000, three digits.
std::string formatBytes(uint64_t bytes);

/// Writes phases and their seconds to standard error, with a bar on a terminal
/// while weights are packed, and keeps the lines of --explain.
class Progress : public CompileObserver {
public:
  /// `quiet`: nothing is written. `explainToStderr`: lines are written as they
  /// come.
  Progress(bool quiet, bool explainToStderr);

  void phaseBegun(Phase phase) override;
  void phaseDone(Phase phase, double seconds) override;
  void packed(uint64_t done, uint64_t total) override;
  void explained(Phase phase, const std::string &line) override;

  /// Writes the seconds of something that is no phase.
  void stepDone(const char *name, double seconds);

  /// Ends an unfinished bar, so that an error begins on a line of its own.
  void clearBar();

  /// Lines of --explain, by phase.
  std::vector<std::pair<Phase, std::string>> lines;

private:
  bool quiet;
  bool explainToStderr;
  bool terminal;
  bool barShown = false;
  int lastPercent = -1;
};

} // namespace quern

#endif // QUERN_COMPILER_TOOLS_PROGRESS_H

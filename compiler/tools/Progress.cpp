#include "compiler/tools/Progress.h"

#include <cstdio>
#include <unistd.h>

using namespace quern;

std::string quern::formatBytes(uint64_t bytes) {
  static constexpr const char *kUnits[] = {"bytes", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  char text[32];
  const int decimals = unit == 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  std::snprintf(text, sizeof(text), "%.*f %s", decimals, value, kUnits[unit]);
  return text;
}

Progress::Progress(bool quiet, bool explainToStderr)
    : quiet(quiet), explainToStderr(explainToStderr),
      terminal(isatty(STDERR_FILENO)) {}

void Progress::phaseBegun(Phase phase) { lastPercent = -1; }

void Progress::phaseDone(Phase phase, double seconds) {
  stepDone(phaseInfo(phase).name.data(), seconds);
}

void Progress::stepDone(const char *name, double seconds) {
  if (quiet)
    return;
  clearBar();
  std::fprintf(stderr, "%-10s %7.2f s\n", name, seconds);
}

void Progress::packed(uint64_t done, uint64_t total) {
  const int percent = total ? static_cast<int>(done * 100 / total) : 100;
  if (quiet || !terminal || percent == lastPercent)
    return;
  lastPercent = percent;
  barShown = true;
  static constexpr int kWidth = 30;
  const std::string filled(static_cast<size_t>(percent * kWidth / 100), '#');
  std::fprintf(stderr, "\r\033[Kpacking    [%-*s] %3d %%  %s of %s", kWidth,
               filled.c_str(), percent, formatBytes(done).c_str(),
               formatBytes(total).c_str());
  std::fflush(stderr);
}

void Progress::explained(Phase phase, const std::string &line) {
  lines.emplace_back(phase, line);
  if (!explainToStderr)
    return;
  clearBar();
  std::fprintf(stderr, "  %s: %s\n", phaseInfo(phase).name.data(),
               line.c_str());
}

void Progress::clearBar() {
  if (barShown)
    std::fprintf(stderr, "\r\033[K");
  barShown = false;
}

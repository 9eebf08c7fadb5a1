// What commands write: results on standard output, everything else on standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace quern::tools {

/// `text` with a space for each control character, U+0080 to U+009F among them: texts from outside
/// steer no terminal.
std::string OneLine(std::string_view text);

/// Writes all of `text` to standard output at once. Error: FAILURE when it cannot be written.
void WriteOutput(std::string_view text);

/// Writes `value` as one line of JSON to standard output. Ill-formed UTF-8 becomes U+FFFD.
void WriteJson(const nlohmann::ordered_json& value);

/// Whether standard output is a terminal.
bool OutputIsTerminal();
/// Whether standard error is a terminal.
bool NotesAreTerminal();

/// A line for people on standard error. Never fails.
void WriteNote(std::string_view line);

/// Writes `quern run: error: message` (`command` may be empty) in one line to standard error, and
/// with `json` also {"error": {"code", "kind", "message"}} to standard output. Control characters
/// become spaces: messages quote names from outside. Never fails.
void WriteError(std::string_view command, int code, std::string_view message, bool json);

/// "98.1 MB".
std::string FormatBytes(uint64_t bytes);
/// `value` with `digits` digits behind the point.
std::string FormatFixed(double value, int digits);

/// A bar on standard error where that is a terminal; nothing elsewhere. Gone when destroyed.
class ProgressBar {
 public:
  /// `enabled`: false draws nothing.
  ProgressBar(std::string label, uint64_t total, bool enabled);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// `done` of `total` are done.
  void Update(uint64_t done);

 private:
  std::string label_;
  uint64_t total_;
  bool enabled_;
  bool drawn_ = false;
};

/// Seconds since it was made.
class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace quern::tools

#include "runtime/tools/output.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/tools/error.h"

namespace quern::tools {
namespace {

constexpr int kBarWidth = 32;

/// Errno of the first failed write, or 0.
int WriteAll(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

std::string Dump(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

/// https://no-color.org: set and not empty means no colour.
bool UseColor() {
  const char* no_color = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return NotesAreTerminal() && (no_color == nullptr || *no_color == '\0') &&
         (terminal == nullptr || std::strcmp(terminal, "dumb") != 0);
}

}  // namespace

std::string OneLine(std::string_view text) {
  std::string line;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool two_bytes = byte == 0xc2 && next >= 0x80 && next < 0xa0;
    line += two_bytes || byte < 0x20 || byte == 0x7f ? ' ' : text[i];
    if (two_bytes) ++i;
  }
  return line;
}

void WriteOutput(std::string_view text) {
  if (const int error = WriteAll(STDOUT_FILENO, text)) {
    throw CommandError(QUERN_FAILURE,
                       std::string("cannot write to standard output: ") + std::strerror(error));
  }
}

void WriteJson(const nlohmann::ordered_json& value) { WriteOutput(Dump(value) + "\n"); }

bool OutputIsTerminal() { return isatty(STDOUT_FILENO) == 1; }
bool NotesAreTerminal() { return isatty(STDERR_FILENO) == 1; }

void WriteNote(std::string_view line) { WriteAll(STDERR_FILENO, std::string(line) + "\n"); }

void WriteError(std::string_view command, int code, std::string_view message, bool json) {
  const std::string line = OneLine(message);
  const std::string label = UseColor() ? "\x1b[1;31merror:\x1b[0m " : "error: ";
  WriteNote("quern" + (command.empty() ? "" : " " + std::string(command)) + ": " + label + line);
  if (!json) return;
  const nlohmann::ordered_json error = {
      {"error", {{"code", code}, {"kind", ExitKind(code)}, {"message", line}}}};
  WriteAll(STDOUT_FILENO, Dump(error) + "\n");
}

std::string FormatBytes(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"bytes", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1000 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  const int digits = unit == 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return FormatFixed(value, digits) + " " + kUnits[unit];
}

std::string FormatFixed(double value, int digits) {
  char text[64];
  const int length = std::snprintf(text, sizeof text, "%.*f", digits, value);
  return std::string(text, std::min<size_t>(std::max(length, 0), sizeof text - 1));
}

ProgressBar::ProgressBar(std::string label, uint64_t total, bool enabled)
    : label_(std::move(label)),
      total_(total),
      enabled_(enabled && total > 0 && NotesAreTerminal()) {}

ProgressBar::~ProgressBar() {
  if (drawn_) WriteAll(STDERR_FILENO, "\r\x1b[K");
}

void ProgressBar::Update(uint64_t done) {
  if (!enabled_) return;
  const auto filled = static_cast<size_t>(kBarWidth * std::min(done, total_) / total_);
  std::string line = "\r" + label_ + " [" + std::string(filled, '#') +
                     std::string(kBarWidth - filled, ' ') + "] " + std::to_string(done) + "/" +
                     std::to_string(total_);
  WriteAll(STDERR_FILENO, line);
  drawn_ = true;
}

}  // namespace quern::tools

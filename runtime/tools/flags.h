// Options that several commands share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quern.h"

namespace CLI {
class App;
}

namespace quern::tools {

/// The artifact a command works on: the first positional argument.
void AddModelArgument(CLI::App& app, std::string& model);

/// How results are printed.
struct OutputFlags {
  bool json = false;
  bool quiet = false;
};
void AddJsonFlag(CLI::App& app, bool& json);
/// --json and --quiet.
void AddOutputFlags(CLI::App& app, OutputFlags& flags);

/// Whose artifacts are run.
struct TrustFlags {
  std::vector<std::string> files;
  /// What the files hold, for quern_model_options. Empty: anybody's. Errors: those of ReadText, and
  /// USAGE for an empty file.
  std::string Keys() const;
};
void AddTrustFlag(CLI::App& app, TrustFlags& flags);

/// How a session is made; zero means the default of quern.h.
struct SessionFlags {
  uint32_t threads = 0;
  std::string device;
  std::string isa;
  uint64_t context = 0;
  uint64_t kv_tokens = 0;  ///< Of all sequences together.
  uint32_t chunk = 0;      ///< Most rows of one prefill step.
  bool pin_threads = false;
  bool check_weights = false;
  TrustFlags trust;
};
/// Of these, --device, --force-isa and --threads: what a measurement depends on.
void AddDeviceFlags(CLI::App& app, SessionFlags& flags);
void AddSessionFlags(CLI::App& app, SessionFlags& flags);

/// How an answer is chosen and when it ends.
struct GenerationFlags {
  int64_t max_tokens = 0;  ///< Below 0: no limit.
  quern_sampling sampling = QUERN_SAMPLING_INIT;
  std::vector<std::string> stop;
  bool ignore_end = false;
};
/// `max_tokens`: the default of -n.
void AddGenerationFlags(CLI::App& app, GenerationFlags& flags, int64_t max_tokens);

/// Token numbers separated by commas or white space. `option` names them in errors.
/// Error: USAGE for anything else.
std::vector<int32_t> ParseTokens(std::string_view option, std::string_view text);

/// All of the file at `path`, or of standard input for "-". Errors: FAILURE (cannot read), USAGE
/// (more than 256 MiB, the most that can be tokenized).
std::string ReadText(const std::string& path);

}  // namespace quern::tools

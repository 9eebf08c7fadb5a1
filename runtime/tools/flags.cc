#include "runtime/tools/flags.h"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "runtime/tools/error.h"

namespace quern::tools {

void AddModelArgument(CLI::App& app, std::string& model) {
  app.add_option("MODEL", model, "artifact made by `quern compile`")->required()->type_name("");
}

void AddJsonFlag(CLI::App& app, bool& json) {
  app.add_flag("--json", json, "print one JSON object on standard output");
}

void AddOutputFlags(CLI::App& app, OutputFlags& flags) {
  AddJsonFlag(app, flags.json);
  app.add_flag("-q,--quiet", flags.quiet, "no progress and no statistics on standard error");
}

std::string TrustFlags::Keys() const {
  std::string keys;
  // The line end keeps an empty file from meaning that nobody is asked for.
  for (const std::string& file : files) keys += ReadText(file) + "\n";
  return keys;
}

void AddTrustFlag(CLI::App& app, TrustFlags& flags) {
  app.add_option("--trust", flags.files,
                 "refuse an artifact without a signature by the public key in FILE; may be given "
                 "several times")
      ->allow_extra_args(false)
      ->type_name("FILE");
}

void AddDeviceFlags(CLI::App& app, SessionFlags& flags) {
  app.add_option("-t,--threads", flags.threads,
                 "threads (default: one a CPU; never more than the artifact's shares)")
      ->type_name("N");
  app.add_option("--device", flags.device,
                 "cpu (default), cuda:N, or ptx-emulator[:sm_90a]: a GPU's code on the CPU")
      ->type_name("DEVICE");
  app.add_option("--force-isa", flags.isa, "target to run, such as avx2 (default: the best one)")
      ->type_name("TARGET");
}

void AddSessionFlags(CLI::App& app, SessionFlags& flags) {
  AddDeviceFlags(app, flags);
  app.add_option("--ctx-size", flags.context,
                 "most tokens of prompt and answer (default: the model's)")
      ->type_name("N");
  app.add_option("--chunk", flags.chunk,
                 "prompt tokens of one step (default: 512; results do not depend on it)")
      ->check(CLI::Range(uint32_t{1}, uint32_t{1} << 20).description(""))
      ->type_name("N");
  app.add_flag("--pin-threads", flags.pin_threads, "bind threads to CPUs");
  app.add_flag("--check-weights", flags.check_weights, "hash all weights before running");
  AddTrustFlag(app, flags.trust);
}

void AddGenerationFlags(CLI::App& app, GenerationFlags& flags, int64_t max_tokens) {
  flags.max_tokens = max_tokens;
  quern_sampling& sampling = flags.sampling;
  app.add_option("-n,--max-tokens", flags.max_tokens,
                 "most tokens to generate (-1: until the model ends; default: " +
                     std::to_string(max_tokens) + ")")
      ->type_name("N");
  app.add_option("--temp", sampling.temperature, "temperature (default: 0, the best token)")
      ->type_name("X");
  app.add_option("--top-k", sampling.top_k, "keep the K best tokens (default: 0, all)")
      ->type_name("K");
  app.add_option("--top-p", sampling.top_p, "keep the likeliest tokens up to this sum (default: 1)")
      ->type_name("P");
  app.add_option("--min-p", sampling.min_p,
                 "keep tokens at least this likely relative to the best (default: 0)")
      ->type_name("P");
  app.add_option("--repeat-penalty", sampling.repeat_penalty,
                 "weaken the last 64 tokens by this factor (default: 1)")
      ->type_name("X");
  app.add_option("--seed", sampling.seed, "of the random numbers (default: 0)")->type_name("N");
  app.add_option("--stop", flags.stop, "end before this text; may be given several times")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  app.add_flag("--ignore-end", flags.ignore_end, "go on after the model's end token");
}

std::vector<int32_t> ParseTokens(std::string_view option, std::string_view text) {
  constexpr std::string_view kSeparators = ", \t\r\n";
  std::vector<int32_t> tokens;
  while (true) {
    const size_t begin = text.find_first_not_of(kSeparators);
    if (begin == std::string_view::npos) break;
    text.remove_prefix(begin);
    const std::string_view item = text.substr(0, text.find_first_of(kSeparators));
    int32_t token = 0;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), token);
    if (error != std::errc() || end != item.data() + item.size()) {
      throw CommandError(
          QUERN_USAGE, std::string(option) + ": item " + std::to_string(tokens.size() + 1) +
                           " is '" + std::string(item.substr(0, 32)) + "', wanted a token number");
    }
    tokens.push_back(token);
    text.remove_prefix(item.size());
  }
  if (tokens.empty()) {
    throw CommandError(QUERN_USAGE, std::string(option) + ": no token; give numbers like 1,2,3");
  }
  return tokens;
}

std::string ReadText(const std::string& path) {
  constexpr size_t kMostBytes = size_t{256} << 20;
  const int file = path == "-" ? dup(STDIN_FILENO) : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::string text;
  ssize_t count = file < 0 ? -1 : 1;
  while (count > 0 && text.size() <= kMostBytes) {
    char buffer[1 << 16];
    count = read(file, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR)
      count = 1;
    else if (count > 0)
      text.append(buffer, static_cast<size_t>(count));
  }
  const int error = errno;
  if (file >= 0) close(file);
  if (count < 0) {
    throw CommandError(QUERN_FAILURE, "cannot read '" + path + "': " + std::strerror(error) +
                                          "; give a file that can be read");
  }
  if (text.size() > kMostBytes) {
    throw CommandError(QUERN_USAGE, "'" + path + "' is longer than 256 MiB; give a shorter text");
  }
  return text;
}

}  // namespace quern::tools

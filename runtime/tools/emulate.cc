// quern emulate: a GPU kernel on the CPU, with everything it does wrong.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/tools/command.h"
#include "runtime/tools/emulate_arguments.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/handles.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

struct EmulateFlags {
  std::string file;
  std::string kernel;
  std::vector<uint32_t> grid, block, cluster;
  quern_emulate_options options = QUERN_EMULATE_OPTIONS_INIT;
  std::vector<std::string> arguments;
  std::vector<std::string> dumps;
  bool coverage = false;
  bool no_races = false;
  bool json = false;
};

/// Where a buffer is written afterwards.
struct Dump {
  size_t argument;
  std::string path;
};

Dump ParseDump(const std::string& text, const std::vector<KernelArgument>& arguments) {
  const size_t equals = text.find('=');
  const std::string number = text.substr(0, equals);
  const bool digits =
      !number.empty() && number.size() < 6 && std::all_of(number.begin(), number.end(), ::isdigit);
  const size_t index = digits ? std::stoul(number) : arguments.size();
  if (equals == std::string::npos || index >= arguments.size() || !arguments[index].is_buffer) {
    throw CommandError(QUERN_USAGE, "--dump " + text +
                                        ": wanted N=FILE.npy, with N the place of a buffer among "
                                        "the --arg, from 0");
  }
  return {index, text.substr(equals + 1)};
}

/// The lines of PTX, numbered from 1 as findings number them.
class Source {
 public:
  explicit Source(const std::string& text) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      const size_t first = std::min(text.find_first_not_of(" \t", begin), end);
      lines_.push_back(text.substr(first, end - first));
      begin = end + 1;
    }
  }
  std::string Line(uint64_t number) const {
    return number >= 1 && number <= lines_.size() ? lines_[number - 1] : std::string();
  }

 private:
  std::vector<std::string> lines_;
};

std::string FindingText(const Json& findings, const Source& source) {
  std::string text;
  for (const Json& each : findings) {
    text += each.at("kind").get<std::string>() + ": " + each.at("message").get<std::string>() +
            " (seen " + each.at("count").dump() + " times)\n    line " + each.at("line").dump() +
            ": " + source.Line(each.at("line").get<uint64_t>()) + "\n";
  }
  return text;
}

/// Every instruction with the warps that executed it; '!' marks those that none did.
std::string CoverageText(const Json& lines, const Source& source) {
  std::string text = "\n        line      warps\n";
  uint64_t missed = 0;
  for (const Json& each : lines) {
    const auto line = each.at("line").get<uint64_t>(), warps = each.at("warps").get<uint64_t>();
    missed += warps == 0;
    char numbers[64];
    std::snprintf(numbers, sizeof numbers, "%c %10llu %10llu  ", warps ? ' ' : '!',
                  static_cast<unsigned long long>(line), static_cast<unsigned long long>(warps));
    text += numbers + source.Line(line) + "\n";
  }
  return text + std::to_string(lines.size() - missed) + " of " + std::to_string(lines.size()) +
         " instructions were executed\n";
}

std::string ReportText(const Json& report, const Source& source, bool races) {
  std::string text = report.at("kernel").get<std::string>() + " (" +
                     report.at("target").get<std::string>() + "): " + report.at("threads").dump() +
                     " threads, " + report.at("instructions").dump() + " warp instructions\n";
  text += FindingText(report.at("races"), source) + FindingText(report.at("lints"), source);
  if (races && report.at("clean").get<bool>())
    text += "no race on shared memory, no missing wait or fence\n";
  if (report.contains("lines")) text += CoverageText(report.at("lines"), source);
  return text;
}

/// Up to three sizes, x first.
void CopySizes(const std::vector<uint32_t>& from, uint32_t (&to)[3]) {
  std::copy(from.begin(), from.end(), to);
}

quern_emulate_options Options(const EmulateFlags& flags) {
  quern_emulate_options options = flags.options;
  if (!flags.kernel.empty()) options.kernel = flags.kernel.c_str();
  CopySizes(flags.grid, options.grid);
  CopySizes(flags.block, options.block);
  CopySizes(flags.cluster, options.cluster);
  options.coverage = flags.coverage;
  options.ignore_races = flags.no_races;
  return options;
}

int Emulate(const EmulateFlags& flags) {
  const std::string ptx = ReadText(flags.file);
  std::vector<KernelArgument> arguments;
  for (const std::string& text : flags.arguments)
    arguments.push_back(ParseKernelArgument(text, flags.options.seed + arguments.size()));
  std::vector<Dump> dumps;
  for (const std::string& text : flags.dumps) dumps.push_back(ParseDump(text, arguments));
  std::vector<quern_emulate_argument> given;
  for (KernelArgument& each : arguments)
    given.push_back({each.bytes.data(), each.bytes.size(), each.is_buffer});

  const quern_emulate_options options = Options(flags);
  char* text = nullptr;
  quern_error error = {};
  const quern_status_code code =
      quern_emulate(ptx.data(), ptx.size(), &options, given.data(), given.size(), &text, &error);
  const TextHandle owner(text);
  // What a kernel left behind when it failed is what one wants to look at.
  if (code == QUERN_OK || code == QUERN_FAILURE) {
    for (const Dump& dump : dumps) WriteBuffer(dump.path, arguments[dump.argument]);
  }
  Check(code, error);
  const Json report = Json::parse(text);
  if (flags.json) {
    WriteJson(report);
  } else {
    WriteOutput(ReportText(report, Source(ptx), !flags.no_races));
  }
  return report.at("clean").get<bool>() ? QUERN_OK : QUERN_FAILURE;
}

void AddSizes(CLI::App& app, const char* name, std::vector<uint32_t>& sizes, const char* help) {
  app.add_option(name, sizes, help)
      ->delimiter(',')
      ->expected(1, 3)
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("X,Y,Z");
}

}  // namespace

Action SetUpEmulate(CLI::App& app) {
  auto flags = std::make_shared<EmulateFlags>();
  quern_emulate_options& options = flags->options;
  app.add_option("FILE", flags->file, "PTX text; - reads standard input")
      ->required()
      ->type_name("");
  app.add_option("--kernel", flags->kernel, "which kernel, where the file has several")
      ->type_name("NAME");
  AddSizes(app, "--grid", flags->grid, "blocks of the grid (default: 1)");
  AddSizes(app, "--block", flags->block, "threads of a block (default: 1)");
  AddSizes(app, "--cluster", flags->cluster, "blocks of a cluster (default: what the kernel says)");
  app.add_option("--shared", options.shared_bytes, "dynamic shared memory of a block")
      ->type_name("BYTES");
  app.add_option("--arg", flags->arguments,
                 "next argument: i32:5, buf:f32:512:zero, file:f16:x.bin or raw:map.bin")
      ->allow_extra_args(false)
      ->type_name("ARG");
  app.add_option("--dump", flags->dumps, "afterwards write the buffer that is argument N, from 0")
      ->allow_extra_args(false)
      ->type_name("N=FILE.npy");
  app.add_option("--seed", options.seed,
                 "another order of warps, other random buffers (default: 0)")
      ->type_name("N");
  app.add_option("-t,--threads", options.threads, "blocks executed at the same time (default: 1)")
      ->type_name("N");
  app.add_option("--max-steps", options.max_steps,
                 "end a block after so many warp instructions (default: 2^34)")
      ->type_name("N");
  app.add_flag("--coverage", flags->coverage, "count the executions of every instruction");
  app.add_flag("--no-races", flags->no_races, "do not look for races and missing fences");
  AddJsonFlag(app, flags->json);
  return [flags] { return Emulate(*flags); };
}

}  // namespace quern::tools

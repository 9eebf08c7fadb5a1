#include "runtime/tools/error.h"

#include <csignal>

namespace quern::tools {
namespace {

constexpr ExitCode kExitCodes[] = {
    {QUERN_OK, "ok", "done"},
    {QUERN_FAILURE, "failure", "the work failed: a file that cannot be read or written"},
    {QUERN_USAGE, "usage", "the command line has no meaning"},
    {QUERN_MALFORMED, "malformed", "a file breaks its own format"},
    {QUERN_UNSUPPORTED, "unsupported", "well formed, but Quern has no support for it"},
    {QUERN_INCOMPATIBLE, "incompatible", "a sound artifact that this machine cannot run"},
    {QUERN_OUT_OF_MEMORY, "out_of_memory", "memory, or the room for keys and values, is used up"},
    {QUERN_ACCURACY, "accuracy", "results differ more than allowed"},
    {128 + SIGINT, "interrupted", "ended by Ctrl-C"},
    {128 + SIGTERM, "terminated", "ended by SIGTERM"},
};

}  // namespace

std::span<const ExitCode> ExitCodes() { return kExitCodes; }

const char* ExitKind(int code) {
  for (const ExitCode& row : kExitCodes) {
    if (row.code == code) return row.kind;
  }
  return "failure";
}

}  // namespace quern::tools

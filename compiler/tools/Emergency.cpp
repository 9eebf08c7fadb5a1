//===- Emergency.cpp ------------------------------------------------------===//
#include "compiler/tools/Emergency.h"

#include "codegen/artifact/CompileError.h"
#include "llvm/Support/ErrorHandling.h"
#include "llvm/Support/Signals.h"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <new>
#include <unistd.h>

using namespace quern;

namespace {
/// Text that is there before it is needed: no allocation works any more.
struct Exit {
  ExitCode code;
  const char *digits, *kind, *message;
};
} // namespace

static constexpr Exit outOfMemory = {
    ExitCode::OutOfMemory, "6", "out_of_memory",
    "out of memory; close other programs or compile on a larger machine"};
static constexpr Exit lostMapping = {
    ExitCode::Failure, "1", "failure",
    "the model file became shorter or unreadable while it was read; leave it "
    "as it is and compile again"};

static const char *verb = "";
static bool wantsJson = false;

static void write(int descriptor, std::initializer_list<const char *> parts) {
  for (const char *part : parts)
    for (size_t left = std::strlen(part); left > 0;) {
      const ssize_t written = ::write(descriptor, part, left);
      if (written <= 0)
        return;
      part += written;
      left -= static_cast<size_t>(written);
    }
}

/// Calls only what a signal handler may.
[[noreturn]] static void leave(const Exit &exit) {
  llvm::sys::RunInterruptHandlers(); // removes temporary files
  write(STDERR_FILENO,
        {"quern", *verb ? " " : "", verb, ": error: ", exit.message, "\n"});
  if (wantsJson)
    write(STDOUT_FILENO,
          {"{\"error\":{\"code\":", exit.digits, ",\"kind\":\"", exit.kind,
           "\",\"message\":\"", exit.message, "\"}}\n"});
  ::_exit(static_cast<int>(exit.code));
}

/// MLIR writes through what malloc returned without a look at it
/// (Operation::create), so in this process malloc does not return null: every
/// call of every library comes here first, and goes on to the C library's.
extern "C" __attribute__((visibility("default"))) void *malloc(size_t size) {
  using Malloc = void *(size_t);
  static Malloc *const next =
      reinterpret_cast<Malloc *>(::dlsym(RTLD_NEXT, "malloc"));
  void *memory = next(size);
  if (!memory && size > 0)
    leave(outOfMemory);
  return memory;
}

void quern::installEmergencyExits(const char *verbName, bool json) {
  verb = verbName;
  wantsJson = json;
  std::set_new_handler([] { leave(outOfMemory); });
  llvm::install_bad_alloc_error_handler(
      [](void *, const char *, bool) { leave(outOfMemory); });
  // LLVM installs its handlers at the first use of any of these functions;
  // ours comes after.
  llvm::sys::SetInterruptFunction(nullptr);
  struct sigaction action = {};
  action.sa_handler = [](int) { leave(lostMapping); };
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
}

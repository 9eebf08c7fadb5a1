#include "runtime/tools/signals.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>

#include "runtime/tools/error.h"

namespace quern::tools {
namespace {

// Lock-free atomics, the only state a signal handler may share with the program.
std::atomic<int> g_signal{0};
std::atomic<quern_session*> g_session{nullptr};
std::atomic<bool> g_mapping_lost{false};
static_assert(std::atomic<quern_session*>::is_always_lock_free);

void OnSignal(int signal) {
  quern_session* session = g_session.load();
  if (g_signal.exchange(signal) != 0 || session == nullptr) _exit(128 + signal);
  quern_session_cancel(session);
}

constexpr char kMappingLost[] =
    "a file became shorter or unreadable while it was in use; leave the artifact as it is while a "
    "command reads it, and replace it by renaming another one";

/// Zeros where tables were may lead anywhere before the step ends.
void OnLostWay(int) {
  (void)!write(STDERR_FILENO, "quern: error: ", 14);
  (void)!write(STDERR_FILENO, kMappingLost, sizeof(kMappingLost) - 1);
  (void)!write(STDERR_FILENO, "\n", 1);
  _exit(QUERN_FAILURE);
}

/// Runs in the thread that read the page. Returning repeats the read.
void OnBusError(int signal, siginfo_t* info, void*) {
  const auto page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t page = reinterpret_cast<uintptr_t>(info->si_addr) / page_bytes * page_bytes;
  if (info->si_code != BUS_ADRERR ||
      mmap(reinterpret_cast<void*>(page), page_bytes, PROT_READ,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
    std::signal(signal, SIG_DFL);
    return;
  }
  g_mapping_lost.store(true);
  std::signal(SIGSEGV, OnLostWay);
  if (quern_session* session = g_session.load()) quern_session_cancel(session);
}

void Handle(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

sigset_t EndingSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

void InstallSignalHandlers() {
  struct sigaction old = {};
  if (sigaction(SIGINT, nullptr, &old) == 0 && old.sa_handler != SIG_IGN) Handle(SIGINT, OnSignal);
  Handle(SIGTERM, OnSignal);
  Handle(SIGPIPE, SIG_DFL);
  struct sigaction bus = {};
  bus.sa_sigaction = OnBusError;
  bus.sa_flags = SA_SIGINFO;
  sigemptyset(&bus.sa_mask);
  sigaction(SIGBUS, &bus, nullptr);
}

int SignalSeen() { return g_signal.load(); }
void ForgetSignal() { g_signal.store(0); }

void RequireMappings() {
  if (!g_mapping_lost.load()) return;
  throw CommandError(QUERN_FAILURE, kMappingLost);
}

BlockSignals::BlockSignals() {
  const sigset_t set = EndingSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}
BlockSignals::~BlockSignals() {
  const sigset_t set = EndingSignals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

CancelOnSignal::CancelOnSignal(quern_session* session) : outer_(g_session.exchange(session)) {}
CancelOnSignal::~CancelOnSignal() { g_session.store(outer_); }

}  // namespace quern::tools

#include "runtime/tools/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

namespace quern::tools {
namespace {

// Lock-free atomics, the only state a signal handler may share with the program.
std::atomic<int> g_signal{0};
std::atomic<quern_session*> g_session{nullptr};
static_assert(std::atomic<quern_session*>::is_always_lock_free);

void OnSignal(int signal) {
  quern_session* session = g_session.load();
  if (g_signal.exchange(signal) != 0 || session == nullptr) _exit(128 + signal);
  quern_session_cancel(session);
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
}

int SignalSeen() { return g_signal.load(); }
void ForgetSignal() { g_signal.store(0); }

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

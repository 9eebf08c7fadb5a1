// Ctrl-C and SIGTERM: the first one asks the session at work to stop, the second ends the process.
// SIGBUS: a mapped file that became shorter ends the command with an error.
#pragma once

#include "quern.h"

namespace quern::tools {

/// Handles SIGINT (unless it is ignored already, as behind nohup) and SIGTERM; SIGPIPE ends the
/// process quietly. While no session is registered a signal ends the process at once.
void InstallSignalHandlers();

/// The signal that came since the start or ForgetSignal, or 0.
int SignalSeen();
/// After a command went on in spite of a signal: the next signal is again a first one.
void ForgetSignal();

/// Throws QUERN_FAILURE once a page of a mapped file could not be read, because the file became
/// shorter or its disk failed (SIGBUS). The handler puts zeros in such a page's place and cancels
/// the session at work, so that the step ends; what it computed is worthless.
void RequireMappings();

/// Keeps SIGINT and SIGTERM from threads that are started while it lives, so that the handler never
/// runs beside the destruction of a session.
class BlockSignals {
 public:
  BlockSignals();
  ~BlockSignals();
  BlockSignals(const BlockSignals&) = delete;
  BlockSignals& operator=(const BlockSignals&) = delete;
};

/// While it lives, the first signal cancels `session`; with null it ends the process. Scopes nest.
class CancelOnSignal {
 public:
  explicit CancelOnSignal(quern_session* session);
  ~CancelOnSignal();
  CancelOnSignal(const CancelOnSignal&) = delete;
  CancelOnSignal& operator=(const CancelOnSignal&) = delete;

 private:
  quern_session* outer_;
};

}  // namespace quern::tools

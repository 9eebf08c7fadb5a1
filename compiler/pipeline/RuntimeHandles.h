//===- RuntimeHandles.h - quern.h for the compiler --------------*- C++ -*-===//
//
// Owners of the runtime's handles, and its errors as the compiler's.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_PIPELINE_RUNTIMEHANDLES_H
#define QUERN_COMPILER_PIPELINE_RUNTIMEHANDLES_H

#include "codegen/artifact/CompileError.h"
#include "quern.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/Signals.h"

#include <memory>

namespace quern {

struct FreeHandle {
  void operator()(quern_model *model) const { quern_model_free(model); }
  void operator()(quern_session *session) const { quern_session_free(session); }
  void operator()(quern_sequence *sequence) const {
    quern_sequence_free(sequence);
  }
  void operator()(int32_t *tokens) const { quern_free(tokens); }
  void operator()(char *text) const { quern_free(text); }
};
template <typename T> using Handle = std::unique_ptr<T, FreeHandle>;

/// What a function of the runtime returned, as an error. The runtime's codes
/// are the compiler's exit codes.
inline llvm::Error checkRuntime(quern_status_code code,
                                const quern_error &error) {
  if (code == QUERN_OK)
    return llvm::Error::success();
  return compileError(static_cast<ExitCode>(code), error.message);
}

/// Removes a file when it goes, and when a signal ends the process.
struct TemporaryFile {
  explicit TemporaryFile(llvm::StringRef path) : path(path), remover(path) {
    llvm::sys::RemoveFileOnSignal(path);
  }
  ~TemporaryFile() { llvm::sys::DontRemoveFileOnSignal(path); }
  TemporaryFile(const TemporaryFile &) = delete;
  TemporaryFile &operator=(const TemporaryFile &) = delete;

  const std::string path;
  llvm::FileRemover remover;
};

} // namespace quern

#endif // QUERN_COMPILER_PIPELINE_RUNTIMEHANDLES_H

// Errors of the runtime: a code, and one sentence that says what was seen, what was wanted and
// what to do about it. Nothing here throws, prints or aborts.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "runtime/base/one_line.h"

namespace quern {

/// What kind of failure. The values are the exit codes of the command line (docs/commands.md) and
/// the status codes of the C ABI (`quern_status_code` in quern.h); they never change meaning.
enum class StatusCode : int {
  kOk = 0,
  kFailure = 1,       ///< The work failed: an unwritable file, a broken device.
  kUsage = 2,         ///< The caller asked for something that has no meaning.
  kMalformed = 3,     ///< Input from outside breaks its own format.
  kUnsupported = 4,   ///< Well formed, but Quern has no support for it.
  kIncompatible = 5,  ///< A sound artifact that this machine or this runtime cannot run.
  kOutOfMemory = 6,
  kAccuracy = 7,     ///< A numeric contract does not hold.
  kCancelled = 130,  ///< The caller asked for an end, as with Ctrl-C.
};

/// The result of an operation that yields nothing.
class [[nodiscard]] Status {
 public:
  Status() = default;
  /// The message may quote what came from outside: its control characters become spaces.
  Status(StatusCode code, std::string message)
      : code_(code), message_(OneLine(std::move(message))) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  /// One line, no final period: `context is 8192 tokens but the prompt has 9000; shorten it`.
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status Malformed(std::string message) {
  return {StatusCode::kMalformed, std::move(message)};
}
inline Status Unsupported(std::string message) {
  return {StatusCode::kUnsupported, std::move(message)};
}
inline Status Incompatible(std::string message) {
  return {StatusCode::kIncompatible, std::move(message)};
}
inline Status UsageError(std::string message) { return {StatusCode::kUsage, std::move(message)}; }
inline Status Failure(std::string message) { return {StatusCode::kFailure, std::move(message)}; }
inline Status OutOfMemory(std::string message) {
  return {StatusCode::kOutOfMemory, std::move(message)};
}

/// A value or the reason why there is none. Read `value()` only after `ok()`.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}         // NOLINT: implicit on purpose
  Result(Status status) : state_(std::move(status)) {}  // NOLINT: implicit on purpose

  bool ok() const { return std::holds_alternative<T>(state_); }
  const Status& status() const {
    static const Status kNone;
    return ok() ? kNone : std::get<Status>(state_);
  }
  T& value() & { return std::get<T>(state_); }
  const T& value() const& { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace quern

/// Returns the status of `expression` from the enclosing function unless it is ok.
#define QUERN_RETURN_IF_ERROR(expression)          \
  do {                                             \
    ::quern::Status quern_status_ = (expression);  \
    if (!quern_status_.ok()) return quern_status_; \
  } while (false)

#define QUERN_CONCAT_INNER(a, b) a##b
#define QUERN_CONCAT(a, b) QUERN_CONCAT_INNER(a, b)
/// `QUERN_ASSIGN_OR_RETURN(auto x, F());` binds the value of a Result or returns its status.
#define QUERN_ASSIGN_OR_RETURN(declaration, expression)      \
  auto QUERN_CONCAT(quern_result_, __LINE__) = (expression); \
  if (!QUERN_CONCAT(quern_result_, __LINE__).ok())           \
    return QUERN_CONCAT(quern_result_, __LINE__).status();   \
  declaration = std::move(QUERN_CONCAT(quern_result_, __LINE__)).value()

// Errors of importers: what kind, one sentence, and where in the input. Free of
// LLVM.
#ifndef QUERN_COMPILER_IMPORT_IMPORTRESULT_H
#define QUERN_COMPILER_IMPORT_IMPORTRESULT_H

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace quern::importer {

/// What kind of failure. The values are the exit codes of the command line.
enum class ImportErrorCode : int {
  /// The work failed: a file that cannot be opened or mapped.
  Failure = 1,
  /// The caller asked for something that has no meaning.
  Usage = 2,
  /// The input breaks its own format.
  Malformed = 3,
  /// Well formed, but Quern has no support for it.
  Unsupported = 4,
  /// An allocation failed.
  OutOfMemory = 6,
};

/// Why an import stopped.
struct ImportError {
  ImportErrorCode code;
  /// One line, no final period: the field, what was seen, what was wanted, the
  /// remedy.
  std::string message;
  /// Byte offset in the input of the offending field, where there is one.
  std::optional<uint64_t> offset;

  /// The message, with the offset in front when there is one: `byte 24: ...`.
  std::string str() const {
    return offset ? "byte " + std::to_string(*offset) + ": " + message
                  : message;
  }
};

inline ImportError malformed(std::string message,
                             std::optional<uint64_t> offset = std::nullopt) {
  return {ImportErrorCode::Malformed, std::move(message), offset};
}
inline ImportError unsupported(std::string message,
                               std::optional<uint64_t> offset = std::nullopt) {
  return {ImportErrorCode::Unsupported, std::move(message), offset};
}

/// A value, or why there is none. Read the value only after ok().
template <typename T> class [[nodiscard]] ImportResult {
public:
  ImportResult(T value) : state(std::move(value)) {}
  ImportResult(ImportError error) : state(std::move(error)) {}

  bool ok() const { return std::holds_alternative<T>(state); }
  const ImportError &error() const { return std::get<ImportError>(state); }
  T &operator*() & { return std::get<T>(state); }
  const T &operator*() const & { return std::get<T>(state); }
  T &&operator*() && { return std::get<T>(std::move(state)); }
  T *operator->() { return &std::get<T>(state); }
  const T *operator->() const { return &std::get<T>(state); }

private:
  std::variant<T, ImportError> state;
};

/// Why a check failed; empty when it passed.
using ImportCheck = std::optional<ImportError>;

} // namespace quern::importer

#endif // QUERN_COMPILER_IMPORT_IMPORTRESULT_H

// A file that appears whole or not at all.
#pragma once

#include <cstddef>
#include <string>

namespace quern::tools {

/// Writes beside `path` under another name; Commit renames. Without Commit the old file stays and
/// the new one is removed. A path that names something else than a file (a pipe, /dev/null) is
/// written as it is.
class AtomicFile {
 public:
  /// Error: FAILURE when `path` cannot be written.
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Error: FAILURE.
  void Write(const void* bytes, size_t size);
  /// Error: FAILURE.
  void Commit();

 private:
  [[noreturn]] void Fail(const char* what) const;

  std::string path_;       // as given, for messages
  std::string final_;      // where the file comes to lie
  std::string temporary_;  // empty when written in place
  int file_ = -1;
};

}  // namespace quern::tools

// The bytes of a file, mapped or copied.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "runtime/base/status.h"

namespace quern {

/// Read-only bytes that begin at a page boundary.
class FileBytes {
 public:
  FileBytes() = default;
  FileBytes(FileBytes&& other) noexcept;
  FileBytes& operator=(FileBytes&& other) noexcept;
  ~FileBytes();

  /// Maps the file at `path`. Later reads raise SIGBUS where the file was made shorter meanwhile or
  /// the disk fails; Copy has no such surprise.
  static Result<FileBytes> Map(const std::string& path);
  /// Reads the file at `path` into memory.
  static Result<FileBytes> Copy(const std::string& path);
  /// A copy of `bytes`.
  static Result<FileBytes> FromBytes(std::span<const uint8_t> bytes);

  std::span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace quern

// A file mapped read-only into memory. Free of LLVM.
#ifndef QUERN_COMPILER_IMPORT_MAPPEDFILE_H
#define QUERN_COMPILER_IMPORT_MAPPEDFILE_H

#include "compiler/import/ImportResult.h"

#include <span>
#include <string>

namespace quern::importer {

/// Owns a read-only mapping of a regular file. Movable; the bytes stay at their
/// address.
class MappedFile {
public:
  /// Maps the file at `path`. Errors: Failure (missing, unreadable, not a
  /// regular file, no address space). An empty file maps to an empty span.
  static ImportResult<MappedFile> open(const std::string &path);

  MappedFile(MappedFile &&other) noexcept;
  MappedFile &operator=(MappedFile &&other) noexcept;
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return contents; }

private:
  explicit MappedFile(std::span<const uint8_t> contents) : contents(contents) {}
  std::span<const uint8_t> contents;
};

} // namespace quern::importer

#endif // QUERN_COMPILER_IMPORT_MAPPEDFILE_H

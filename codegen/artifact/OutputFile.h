//===- OutputFile.h - A file that is whole or absent ------------*- C++ -*-===//
//
// Output goes to a temporary file beside the wanted one and takes its name only
// when it is complete and on disk. Until then an older file of that name stays
// as it is: after an error, and also when SIGINT or SIGTERM ends the process,
// which removes the temporary file.
//
// Appended bytes are written in whole pieces of 2 MiB: a file system that keeps
// large folios (ext4, xfs) then caches the file in huge pages, and a runtime
// that maps it reads weights with a tenth of the TLB misses.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_OUTPUTFILE_H
#define QUERN_CODEGEN_ARTIFACT_OUTPUTFILE_H

#include "codegen/artifact/CompileError.h"
#include "llvm/Support/FileSystem.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quern {

/// A file under construction. Destroying it without commit() removes it.
class OutputFile {
public:
  /// Begins the file `path`. Errors: Failure (the folder is missing or
  /// unwritable, or `path` is something else than a regular file).
  static llvm::Expected<OutputFile> create(const std::string &path);

  OutputFile(OutputFile &&) = default;
  OutputFile &operator=(OutputFile &&) = delete;
  ~OutputFile();

  /// Reserves disk space, so that a full disk is found before the work.
  llvm::Error reserve(uint64_t bytes);
  /// Appends `bytes`.
  llvm::Error append(std::span<const uint8_t> bytes);
  /// Appends zeros up to the next multiple of `alignment`.
  llvm::Error align(uint64_t alignment);
  /// Replaces bytes that were appended before.
  llvm::Error overwrite(uint64_t offset, std::span<const uint8_t> bytes);
  /// Bytes appended so far.
  uint64_t size() const { return position; }

  /// Cuts reserved space, syncs the file and gives it its name.
  llvm::Error commit();

private:
  OutputFile(std::string path, llvm::sys::fs::TempFile file)
      : path(std::move(path)), file(std::move(file)) {}
  llvm::Error failed(const char *action, int error) const;
  llvm::Error write(uint64_t offset, std::span<const uint8_t> bytes);
  llvm::Error flush();

  std::string path;
  llvm::sys::fs::TempFile file;
  uint64_t position = 0;
  std::vector<uint8_t> tail; ///< appended last, not written yet
};

/// Writes a whole small file, such as dumped IR, under the same promise.
llvm::Error writeFile(const std::string &path, llvm::StringRef contents);

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_OUTPUTFILE_H

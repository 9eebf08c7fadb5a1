// Matrices of float32 as NumPy reads them (numpy.lib.format, version 1.0).
#pragma once

#include <cstddef>
#include <string>

#include "runtime/tools/atomic_file.h"

namespace quern::tools {

/// A (rows, columns) matrix, written row by row.
class NpyFile {
 public:
  /// Error: FAILURE when `path` cannot be written.
  NpyFile(const std::string& path, size_t rows, size_t columns);
  /// The next `rows` rows. Error: FAILURE.
  void WriteRows(const float* values, size_t rows);
  /// After the last row. Error: FAILURE.
  void Commit() { file_.Commit(); }

 private:
  AtomicFile file_;
  size_t columns_;
};

}  // namespace quern::tools

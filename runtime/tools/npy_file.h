// Arrays as NumPy reads them (numpy.lib.format, version 1.0).
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "runtime/tools/atomic_file.h"

namespace quern::tools {

/// One array, written from its first element to its last.
class NpyFile {
 public:
  /// `type`: NumPy's name of the little-endian element, "<f4". Error: FAILURE when `path` cannot be
  /// written.
  NpyFile(const std::string& path, const char* type, std::span<const size_t> shape);
  /// The next elements. Error: FAILURE.
  void Write(const void* elements, size_t bytes) { file_.Write(elements, bytes); }
  /// After the last element. Error: FAILURE.
  void Commit() { file_.Commit(); }

 private:
  AtomicFile file_;
};

}  // namespace quern::tools

#include "runtime/tools/npy_file.h"

#include <bit>
#include <cstdint>

namespace quern::tools {

static_assert(std::endian::native == std::endian::little, "the header says '<f4'");

NpyFile::NpyFile(const std::string& path, size_t rows, size_t columns)
    : file_(path), columns_(columns) {
  constexpr size_t kAlignment = 64;  // of the first value
  constexpr size_t kPrefix = 10;     // magic, version, header length
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" +
                       std::to_string(rows) + ", " + std::to_string(columns) + "), }";
  while ((kPrefix + header.size() + 1) % kAlignment != 0) header += ' ';
  header += '\n';
  const auto length = static_cast<uint16_t>(header.size());
  std::string prefix = std::string("\x93NUMPY\x01") + '\0';
  prefix += static_cast<char>(length & 0xff);
  prefix += static_cast<char>(length >> 8);
  file_.Write(prefix.data(), prefix.size());
  file_.Write(header.data(), header.size());
}

void NpyFile::WriteRows(const float* values, size_t rows) {
  file_.Write(values, rows * columns_ * sizeof(float));
}

}  // namespace quern::tools

#include "runtime/tools/npy_file.h"

#include <bit>
#include <cstdint>

namespace quern::tools {

static_assert(std::endian::native == std::endian::little, "the header says '<'");

NpyFile::NpyFile(const std::string& path, const char* type, std::span<const size_t> shape)
    : file_(path) {
  constexpr size_t kAlignment = 64;  // of the first element
  constexpr size_t kPrefix = 10;     // magic, version, header length
  std::string sizes;
  for (const size_t size : shape) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
  if (shape.size() == 1) sizes += ",";  // Python's tuple of one.
  std::string header =
      std::string("{'descr': '") + type + "', 'fortran_order': False, 'shape': (" + sizes + "), }";
  while ((kPrefix + header.size() + 1) % kAlignment != 0) header += ' ';
  header += '\n';
  const auto length = static_cast<uint16_t>(header.size());
  std::string prefix = std::string("\x93NUMPY\x01") + '\0';
  prefix += static_cast<char>(length & 0xff);
  prefix += static_cast<char>(length >> 8);
  file_.Write(prefix.data(), prefix.size());
  file_.Write(header.data(), header.size());
}

}  // namespace quern::tools

#include "compiler/import/MappedFile.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace quern::importer {
namespace {

ImportError failure(const std::string &path, const std::string &why) {
  return {ImportErrorCode::Failure,
          "cannot read " + path + ": " + why +
              "; give the path of a model file that can be read",
          {}};
}

/// Closes a file descriptor at the end of a scope.
struct DescriptorCloser {
  int descriptor;
  ~DescriptorCloser() { ::close(descriptor); }
};

} // namespace

ImportResult<MappedFile> MappedFile::open(const std::string &path) {
  // Non-blocking, so that a FIFO is refused below and not waited for.
  int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0)
    return failure(path, std::strerror(errno));
  DescriptorCloser closer{descriptor};
  struct stat status;
  if (::fstat(descriptor, &status) != 0)
    return failure(path, std::strerror(errno));
  if (!S_ISREG(status.st_mode))
    return failure(path, "it is not a regular file");
  size_t size = static_cast<size_t>(status.st_size);
  if (size == 0)
    return MappedFile({});
  void *address =
      ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, /*offset=*/0);
  if (address == MAP_FAILED)
    return failure(path, std::strerror(errno));
  return MappedFile({static_cast<const uint8_t *>(address), size});
}

MappedFile::MappedFile(MappedFile &&other) noexcept
    : contents(std::exchange(other.contents, {})) {}

MappedFile &MappedFile::operator=(MappedFile &&other) noexcept {
  std::swap(contents, other.contents);
  return *this;
}

MappedFile::~MappedFile() {
  if (!contents.empty())
    ::munmap(const_cast<uint8_t *>(contents.data()), contents.size());
}

} // namespace quern::importer

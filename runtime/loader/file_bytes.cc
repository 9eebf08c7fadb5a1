#include "runtime/loader/file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace quern {
namespace {

Status SystemError(const char* what, const std::string& path) {
  return Failure(std::string("cannot ") + what + " " + path + ": " + std::strerror(errno) +
                 "; give the path of an artifact that can be read");
}

/// An open file, its size known.
class OpenFile {
 public:
  OpenFile() = default;
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile() {
    if (fd >= 0) close(fd);
  }

  Status Open(const std::string& path) {
    // Non-blocking, so that a FIFO is refused below and not waited for.
    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return SystemError("open", path);
    struct stat info;
    if (fstat(fd, &info) != 0) return SystemError("read", path);
    if (!S_ISREG(info.st_mode)) {
      return Failure("cannot read " + path +
                     ": it is not a regular file; give the path of an artifact");
    }
    size = static_cast<size_t>(info.st_size);
    return {};
  }

  int fd = -1;
  size_t size = 0;
};

uint8_t* Anonymous(size_t size) {
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  madvise(data, size, MADV_HUGEPAGE);  // only a hint
  return static_cast<uint8_t*>(data);
}

/// Maps `file` at a multiple of a huge page, where the kernel can back it with huge pages if the
/// file system caches it in such. null: errno says why not.
uint8_t* MapAligned(const OpenFile& file) {
  constexpr size_t kHugePage = size_t{2} << 20;
  size_t reserved = 0;
  if (__builtin_add_overflow(file.size, kHugePage, &reserved)) {
    errno = ENOMEM;
    return nullptr;
  }
  void* range = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (range == MAP_FAILED) return nullptr;
  auto* begin = static_cast<uint8_t*>(range);
  const size_t skipped = -reinterpret_cast<uintptr_t>(begin) % kHugePage;
  uint8_t* data = begin + skipped;
  if (mmap(data, file.size, PROT_READ, MAP_PRIVATE | MAP_FIXED, file.fd, 0) == MAP_FAILED) {
    const int error = errno;
    munmap(begin, reserved);
    errno = error;
    return nullptr;
  }
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  uint8_t* end = data + (file.size + page - 1) / page * page;
  if (skipped > 0) munmap(begin, skipped);
  if (end < begin + reserved) munmap(end, static_cast<size_t>(begin + reserved - end));
  // Only a hint: pages of the file that are read from disk from now on come as huge ones.
  madvise(data, file.size, MADV_HUGEPAGE);
  return data;
}

}  // namespace

FileBytes::FileBytes(FileBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

FileBytes& FileBytes::operator=(FileBytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

FileBytes::~FileBytes() {
  if (data_) munmap(data_, size_);
}

Result<FileBytes> FileBytes::Map(const std::string& path) {
  OpenFile file;
  QUERN_RETURN_IF_ERROR(file.Open(path));
  FileBytes bytes;
  if (file.size == 0) return bytes;
  bytes.data_ = MapAligned(file);
  if (!bytes.data_) return SystemError("map", path);
  bytes.size_ = file.size;
  return bytes;
}

Result<FileBytes> FileBytes::Copy(const std::string& path) {
  OpenFile file;
  QUERN_RETURN_IF_ERROR(file.Open(path));
  FileBytes bytes;
  if (file.size == 0) return bytes;
  bytes.data_ = Anonymous(file.size);
  if (!bytes.data_) {
    return OutOfMemory("cannot get " + std::to_string(file.size) + " bytes for " + path +
                       "; map it instead");
  }
  bytes.size_ = file.size;
  for (size_t done = 0; done < file.size;) {
    const ssize_t got = read(file.fd, bytes.data_ + done, file.size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError("read", path);
    if (got == 0) {
      return Failure(path + " became shorter while it was read: " + std::to_string(done) + " of " +
                     std::to_string(file.size) + " bytes");
    }
    done += static_cast<size_t>(got);
  }
  mprotect(bytes.data_, bytes.size_, PROT_READ);  // a guard, not a need
  return bytes;
}

Result<FileBytes> FileBytes::FromBytes(std::span<const uint8_t> source) {
  FileBytes bytes;
  if (source.empty()) return bytes;
  bytes.data_ = Anonymous(source.size());
  if (!bytes.data_) {
    return OutOfMemory("cannot get " + std::to_string(source.size()) + " bytes for an artifact");
  }
  bytes.size_ = source.size();
  std::copy(source.begin(), source.end(), bytes.data_);
  return bytes;
}

}  // namespace quern

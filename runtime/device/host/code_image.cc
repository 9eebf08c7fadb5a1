#include "runtime/device/host/code_image.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace quern {

CodeImage::CodeImage(CodeImage&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

CodeImage& CodeImage::operator=(CodeImage&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

CodeImage::~CodeImage() {
  if (data_) munmap(data_, size_);
}

Result<CodeImage> CodeImage::Create(std::span<const uint8_t> bytes) {
  CodeImage image;
  if (bytes.empty()) return image;
  void* data =
      mmap(nullptr, bytes.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return OutOfMemory("cannot get " + std::to_string(bytes.size()) + " bytes for kernel code");
  }
  image.data_ = static_cast<std::byte*>(data);
  image.size_ = bytes.size();
  std::memcpy(data, bytes.data(), bytes.size());
  if (mprotect(data, bytes.size(), PROT_READ | PROT_EXEC) != 0) {
    return Failure(std::string("the system refuses to make kernel code executable (") +
                   std::strerror(errno) + "); allow mprotect(PROT_EXEC) for this process");
  }
  return image;
}

KernelEntry CodeImage::Entry(uint64_t offset) const {
  return reinterpret_cast<KernelEntry>(reinterpret_cast<uintptr_t>(data_ + offset));
}

}  // namespace quern

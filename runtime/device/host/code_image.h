// A target's kernels in executable memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/base/status.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {

/// A private copy of a flat code image, mapped read-execute: what was hashed is what runs, whatever
/// happens to the file. It is never writable and executable at once.
class CodeImage {
 public:
  CodeImage() = default;
  CodeImage(CodeImage&& other) noexcept;
  CodeImage& operator=(CodeImage&& other) noexcept;
  ~CodeImage();

  /// Errors: kOutOfMemory; kFailure where the system forbids executable memory.
  static Result<CodeImage> Create(std::span<const uint8_t> bytes);

  uint64_t size() const { return size_; }
  /// The kernel at `offset`. Precondition (the loader checks it): offset < size().
  KernelEntry Entry(uint64_t offset) const;

 private:
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace quern

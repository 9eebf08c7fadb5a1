// Anonymous memory: zeroed, page-aligned, given by the system when it is first touched.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/status.h"

namespace quern {

/// Owns one anonymous mapping.
class HostMemory {
 public:
  HostMemory() = default;
  HostMemory(HostMemory&& other) noexcept;
  HostMemory& operator=(HostMemory&& other) noexcept;
  ~HostMemory();

  /// `bytes` of zeros; 0 gives an empty object. `what` names the memory in the error, kOutOfMemory
  /// with the number of bytes.
  static Result<HostMemory> Allocate(uint64_t bytes, const char* what);

  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

/// Bytes this process may use: the machine's memory, or the limit of its control group where that
/// is lower.
uint64_t MemoryLimit();

}  // namespace quern

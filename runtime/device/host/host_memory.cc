#include "runtime/device/host/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

namespace quern {

HostMemory::HostMemory(HostMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

HostMemory::~HostMemory() {
  if (data_) munmap(data_, size_);
}

Result<HostMemory> HostMemory::Allocate(uint64_t bytes, const char* what) {
  HostMemory memory;
  if (bytes == 0) return memory;
  // MAP_NORESERVE: large pools are mostly never touched; whoever sizes them checks MemoryLimit().
  void* data = bytes > uint64_t{1} << 47 ? MAP_FAILED
                                         : mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return OutOfMemory("cannot get " + std::to_string(bytes) + " bytes for " + what);
  }
  constexpr uint64_t kHugePage = uint64_t{2} << 20;
  if (bytes >= kHugePage) madvise(data, bytes, MADV_HUGEPAGE);  // only a hint
  memory.data_ = static_cast<std::byte*>(data);
  memory.size_ = bytes;
  return memory;
}

uint64_t MemoryLimit() {
  uint64_t limit = static_cast<uint64_t>(std::max(1L, sysconf(_SC_PHYS_PAGES))) *
                   static_cast<uint64_t>(std::max(1L, sysconf(_SC_PAGESIZE)));
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::FILE* file = std::fopen(path, "r");
    if (!file) continue;
    unsigned long long value = 0;
    if (std::fscanf(file, "%llu", &value) == 1 && value > 0) {  // "max" is no number
      limit = std::min<uint64_t>(limit, value);
    }
    std::fclose(file);
  }
  return limit;
}

}  // namespace quern

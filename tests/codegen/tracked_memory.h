// Memory of tests that emulated devices copy: a kernel's arguments are pointers without sizes, so
// whoever allocates says what lies there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace quern::test {

/// Makes [data, data + bytes) known; the range that begins at `data` unknown.
void TrackMemory(const void* data, size_t bytes);
void UntrackMemory(const void* data);

struct TrackedRange {
  uint8_t* data = nullptr;
  size_t bytes = 0;
};
/// The known range that holds `pointer`, or none.
TrackedRange FindTrackedMemory(const void* pointer);

/// A std::allocator whose memory is known.
template <typename T>
struct TrackedAllocator : std::allocator<T> {
  template <typename U>
  struct rebind {
    using other = TrackedAllocator<U>;
  };
  T* allocate(size_t count) {
    T* data = std::allocator<T>::allocate(count);
    TrackMemory(data, count * sizeof(T));
    return data;
  }
  void deallocate(T* data, size_t count) {
    UntrackMemory(data);
    std::allocator<T>::deallocate(data, count);
  }
};
using TrackedInts = std::vector<int32_t, TrackedAllocator<int32_t>>;

}  // namespace quern::test

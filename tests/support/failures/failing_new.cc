#include "tests/support/failures/failing_new.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

thread_local uint64_t g_count = 0;
thread_local uint64_t g_fail_at = 0;
std::atomic<int64_t> g_bytes{0}, g_peak{0}, g_blocks{0};

void* Allocate(size_t size, size_t alignment) {
  if (++g_count == g_fail_at) return nullptr;
  void* memory = alignment
                     ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment)
                     : std::malloc(size ? size : 1);
  if (!memory) return nullptr;
  ++g_blocks;
  const int64_t bytes = g_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  int64_t peak = g_peak.load();
  while (bytes > peak && !g_peak.compare_exchange_weak(peak, bytes)) {
  }
  return memory;
}

void* AllocateOrThrow(size_t size, size_t alignment) {
  if (void* memory = Allocate(size, alignment)) return memory;
  throw std::bad_alloc();
}

void Release(void* memory) {
  if (!memory) return;
  --g_blocks;
  g_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

namespace quern::testing {

void FailAllocation(uint64_t nth) { g_count = 0, g_fail_at = nth; }
uint64_t AllocationsSinceThen() { return g_count; }
int64_t LiveBytes() { return g_bytes.load(); }
int64_t PeakBytes() { return g_peak.load(); }
void ResetPeak() { g_peak.store(g_bytes.load()); }
int64_t LiveBlocks() { return g_blocks.load(); }

}  // namespace quern::testing

// Arrays, sizes and the forms without exceptions go through these by the standard's defaults.
void* operator new(size_t size) { return AllocateOrThrow(size, 0); }
void* operator new(size_t size, std::align_val_t alignment) {
  return AllocateOrThrow(size, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { Release(memory); }
void operator delete(void* memory, size_t) noexcept { Release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { Release(memory); }

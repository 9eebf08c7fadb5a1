// The clock that waits and profiles are measured by.
#pragma once

#include <chrono>
#include <cstdint>

namespace quern {

/// A monotonic clock, nanoseconds.
inline uint64_t NowNanoseconds() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

}  // namespace quern

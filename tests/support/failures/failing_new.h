// operator new of a test's program: counts, and fails when it is told to. Link failing_new.cc.
#pragma once

#include <cstdint>

namespace quern::testing {

/// Makes the `nth` allocation of this thread from now on fail, and only that one; 0: none.
void FailAllocation(uint64_t nth);
/// Allocations of this thread since the last FailAllocation.
uint64_t AllocationsSinceThen();

/// Bytes that all threads have from operator new now, and the most since ResetPeak.
int64_t LiveBytes();
int64_t PeakBytes();
void ResetPeak();
/// Blocks that all threads have from operator new now.
int64_t LiveBlocks();

}  // namespace quern::testing

// What the two targets of artifacts share: hashes that fit, and everything that happens to a file
// that is accepted, short of entering its code.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace quern::fuzz {

/// Writes the hashes that the bytes of `file` have into its manifest and header, as far as those
/// can be read: a fuzzer finds no preimages, an attacker needs none.
void FitHashes(std::span<uint8_t> file);

/// Loads `file` as an artifact. What is refused must be refused with a reason; what is accepted is
/// described, tokenized with, and run with kernels that do nothing.
void LoadAndUse(std::span<const uint8_t> file);

}  // namespace quern::fuzz

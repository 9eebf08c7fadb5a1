// What of the GPU's kernels the tests have compared with a reference, against what they must: a
// table of generators and axes (kernel_proof.cc). A generator without a row, or a value of a row
// that no test compared, fails the binary.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace quern::test {

/// Notes that a kernel of `generator` was compared with its reference at `value` of `axis`.
void NoteProof(std::string_view generator, std::string_view axis, std::string value);
inline void NoteProof(std::string_view generator, std::string_view axis, int64_t value) {
  NoteProof(generator, axis, std::to_string(value));
}

}  // namespace quern::test

// Arguments of `quern emulate --arg`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace quern::tools {

/// A value or a buffer, as bytes.
struct KernelArgument {
  std::string type;  ///< f16, bf16, f32, f64, i8, u8, i16, u16, i32, u32, i64, u64; empty: raw.
  std::vector<uint8_t> bytes;
  bool is_buffer = false;
};

/// Reads `i32:5` (TYPE:VALUE), `buf:TYPE:COUNT[:random|zero|ones|iota]`, `file:TYPE:PATH` (a buffer
/// of the file's bytes) or `raw:PATH` (a structure by value). `seed`: of random contents. Errors:
/// USAGE (not understood, out of range), FAILURE (a file that cannot be read).
KernelArgument ParseKernelArgument(const std::string& text, uint64_t seed);

/// Writes a buffer as a NumPy array of one dimension; bf16 as float32. Error: FAILURE.
void WriteBuffer(const std::string& path, const KernelArgument& argument);

}  // namespace quern::tools

// Kernels from text to results inside one test process: an `rt.kernel` is generated for a target
// and role, made executable and called by the kernel ABI. The amx target runs on machines without
// AMX too, through tests/support/amx_emulator; GPU targets run on the PTX emulator (ptx_harness.h).
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "codegen/target/Target.h"
#include "dialects/lm/BlockFormat.h"
#include "tests/codegen/ptx_harness.h"
#include "tests/codegen/tracked_memory.h"

namespace quern::test {

/// A target and a role: what a kernel is generated for.
struct Machine {
  std::string_view target;
  Role role;
};

/// Every target whose code this machine can run, in both roles.
std::vector<Machine> RunnableMachines();
/// The GPU machines that tests run (ptx_harness.h): sm_80 and sm_90a, and of the others, whose code
/// is mostly the same, `more`; with QUERN_FULL_MATRIX in the environment all of them.
std::vector<Machine> EmulatedMachines(const std::vector<Machine>& more = {});
/// Those of matmuls on tensor cores: sm_89 has room for fewer stages, and multiplies e4m3 as such;
/// sm_100a has matmuls of its own for prompts, in decode sm_80's.
std::vector<Machine> EmulatedMatmulMachines();
/// "amx_prefill", a test's name.
std::string MachineName(const Machine& machine);

/// One compiled kernel.
class CompiledKernel {
 public:
  /// Generates the one rt.kernel in `text`. Returns null, with a test failure, when it cannot.
  static std::unique_ptr<CompiledKernel> Compile(const std::string& text, const Machine& machine);
  ~CompiledKernel();

  /// The caller compares what it computes with a reference, at `value` of `axis` (kernel_proof.h).
  /// Of GPUs only.
  void Note(std::string_view axis, std::string value) const;
  void Note(std::string_view axis, int64_t value) const { Note(axis, std::to_string(value)); }

  /// Calls the kernel; scratch is added to `args`. `dims` are KernelDim's.
  void Run(std::vector<const void*> args, std::vector<int64_t> dims,
           std::vector<int64_t> ranges) const;

 private:
  CompiledKernel() = default;
  std::string machine_;
  std::unique_ptr<EmulatedKernel> emulated_;  ///< Of GPU targets; nothing below then.
  void* code_ = nullptr;
  size_t code_bytes_ = 0;
  uint64_t entry_ = 0;
  uint64_t scratch_bytes_ = 0;
};

/// Memory aligned as the executor aligns buffers, with a guard of known bytes behind it: kernels
/// may not write past the end.
class Buffer {
 public:
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  uint8_t* data() const { return data_; }
  size_t size() const { return bytes_; }
  /// Whether nothing was written behind the end.
  bool IsIntact() const;

 private:
  uint8_t* data_;
  size_t bytes_;
};

/// `count` normally distributed floats.
Buffer RandomFloats(std::mt19937& random, size_t count, float deviation = 1);

/// A random weight matrix, encoded as `format`, and what it means.
struct Weight {
  BlockFormat format;
  int64_t rows, columns;
  std::vector<uint8_t> encoded;  ///< rows as GGUF has them
  std::vector<float> values;     ///< (rows, columns)

  /// The packed piece of rows [n_begin, n_end), columns [k_begin, k_end).
  Buffer Pack(int64_t n_begin, int64_t n_end, int64_t k_begin, int64_t k_end) const;
};
Weight RandomWeight(std::mt19937& random, BlockFormat format, int64_t rows, int64_t columns);

/// Bytes from numeric row to numeric row, and where an int8 one holds scales and sums
/// (docs/architecture.md, section 5).
int64_t NumericRowBytes(int64_t columns);
int64_t ScaleOffset(int64_t columns);
int64_t SumOffset(int64_t columns);
/// Bytes of f16 numeric rows, in whole blocks of 8 rows, and where in them an element lies
/// (docs/architecture.md, section 8).
int64_t HalfRowsBytes(int64_t rows, int64_t columns);
int64_t HalfOffset(int64_t columns, int64_t row, int64_t column);
/// Rows (rows, columns) of floats as f16 numeric rows; rows that fill up the last block are NaN.
Buffer HalfRows(const float* values, int64_t rows, int64_t columns);

/// Whether a machine is a GPU.
bool IsGpu(const Machine& machine);

/// Rows (rows, columns) of floats as bf16 numeric rows.
Buffer Bf16Rows(const float* values, int64_t rows, int64_t columns);

}  // namespace quern::test

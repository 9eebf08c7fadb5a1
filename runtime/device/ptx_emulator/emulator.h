// A functional emulator of PTX: it executes the text that a GPU would get, on the CPU, and is
// stricter than a GPU. Every access is checked for bounds and alignment, shared memory starts
// poisoned, asynchronous work completes as late as the PTX ISA allows (so that a missing wait gives
// a wrong answer), deadlocks and races are named with their line. It says nothing about time.
//
//   Memory memory;
//   uint64_t x = *memory.Allocate(4096);
//   Module module = *ParseModule(text);
//   LaunchReport report = *Launch(module, "axpy", parameters, memory, {.grid = {8, 1, 1}});
//
// Reference: "Parallel Thread Execution ISA" 9.0, NVIDIA.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace quern::ptx {

// ---- Device memory ------------------------------------------------------------------------------

/// Global memory of one emulated device: buffers at 64-bit device addresses that are no addresses
/// of this process. Buffers never touch, and an address is never given out twice, so that an access
/// past the end or after Free is an error and not a surprise. Contents start as 0xCD.
/// Thread safe, except that nothing may be freed while a kernel that uses it runs.
class Memory {
 public:
  /// `capacity`: bytes that may be allocated at one time.
  explicit Memory(uint64_t capacity = uint64_t{64} << 30);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /// Address of `bytes` > 0 new bytes, a multiple of 512. Errors: OUT_OF_MEMORY, USAGE (0 bytes).
  Result<uint64_t> Allocate(uint64_t bytes);
  /// Error: USAGE (no buffer begins at `address`).
  Status Free(uint64_t address);

  /// Errors: USAGE (not wholly inside one buffer).
  Status CopyToDevice(uint64_t destination, const void* source, uint64_t bytes);
  Status CopyToHost(void* destination, uint64_t source, uint64_t bytes) const;
  Status Copy(uint64_t destination, uint64_t source, uint64_t bytes);
  /// Sets `count` elements of `element_bytes` (1, 2 or 4) to the low bytes of `value`.
  Status Fill(uint64_t destination, uint32_t value, uint32_t element_bytes, uint64_t count);

  /// The bytes behind device addresses [address, address + bytes), or null when they are not wholly
  /// inside one buffer. Valid until that buffer is freed.
  uint8_t* Translate(uint64_t address, uint64_t bytes) const;
  /// What is at `address`, for error messages: `4 bytes past the end of the buffer of 64 bytes at
  /// 0x1000000200`.
  std::string Describe(uint64_t address) const;
  /// Bytes allocated now, and the capacity.
  uint64_t used() const;
  uint64_t capacity() const { return capacity_; }

  /// All buffers now, by address: calls visit(address, bytes, host).
  template <class Visit>
  void ForEachBuffer(Visit visit) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [address, buffer] : buffers_) visit(address, buffer.bytes, buffer.host.get());
  }

 private:
  struct Buffer {
    uint64_t address = 0;
    uint64_t bytes = 0;
    std::unique_ptr<uint8_t[]> host;
  };
  const Buffer* Find(
      uint64_t address) const;  ///< The last buffer that begins at or before address.

  mutable std::mutex mutex_;
  std::map<uint64_t, Buffer> buffers_;                ///< By address.
  std::vector<std::pair<uint64_t, uint64_t>> freed_;  ///< (address, bytes), for messages.
  uint64_t capacity_;
  uint64_t used_ = 0;
  uint64_t next_;
};

// ---- Modules ------------------------------------------------------------------------------------

struct Program;  // A module resolved to executable form; see program.h.

/// One parameter of a kernel, in the order of the text. Parameters are packed like the fields of a
/// C struct: `offset` is the previous end rounded up to `alignment`.
struct ParameterInfo {
  std::string name;
  uint32_t offset = 0;
  uint32_t bytes = 0;
  uint32_t alignment = 0;
  std::string type;  ///< "u64", "f32", ...; "b8" with bytes > 1 for a structure by value.
};

/// What a launch of a kernel must know.
struct KernelInfo {
  std::string name;
  uint32_t line = 0;
  std::vector<ParameterInfo> parameters;
  uint32_t parameter_bytes = 0;                          ///< End of the last parameter.
  uint32_t static_shared_bytes = 0;                      ///< Without what the launch adds.
  uint32_t local_bytes = 0;                              ///< Per thread.
  uint32_t registers = 0;                                ///< Virtual registers declared.
  std::array<uint32_t, 3> max_threads = {0, 0, 0};       ///< .maxntid; 0: not given.
  std::array<uint32_t, 3> required_threads = {0, 0, 0};  ///< .reqntid; 0: not given.
  std::array<uint32_t, 3> cluster = {0, 0, 0};           ///< .reqnctapercluster; 0: not given.
};

/// A parsed and checked PTX module. Immutable; cheap to copy; any thread may use it.
class Module {
 public:
  explicit Module(std::shared_ptr<const Program> program);
  const Program& program() const { return *program_; }
  const std::vector<KernelInfo>& kernels() const;
  /// Null when there is none of that name.
  const KernelInfo* FindKernel(std::string_view name) const;
  /// `.target`, "sm_90a", and `.version`, {8, 3}.
  const std::string& target() const;
  std::array<int, 2> version() const;

 private:
  std::shared_ptr<const Program> program_;
};

/// Parses PTX and resolves every instruction of every kernel. Errors name the line:
/// MALFORMED (not PTX, an undeclared register, a label without a target), UNSUPPORTED (an
/// instruction or a modifier of one that the emulator does not have; never skipped).
Result<Module> ParseModule(std::string_view text);

// ---- Launching ----------------------------------------------------------------------------------

struct LaunchOptions {
  std::array<uint32_t, 3> grid = {1, 1, 1};     ///< CTAs.
  std::array<uint32_t, 3> block = {1, 1, 1};    ///< Threads of a CTA; at most 1024 in all.
  std::array<uint32_t, 3> cluster = {1, 1, 1};  ///< CTAs of a cluster; must divide the grid.
  uint32_t shared_bytes = 0;                    ///< Dynamic shared memory of a CTA.
  /// Order in which warps run and asynchronous operations complete. 0: warps in turn, each until it
  /// waits, asynchronous operations only when nothing else can go on. Others: random from this
  /// seed.
  uint64_t seed = 0;
  /// Host threads; 0: one per CPU. CTAs (clusters) are independent work; with more than one thread
  /// the order of atomics on global memory is not reproducible.
  uint32_t threads = 1;
  /// Report races on shared memory and missing fences. About twice as slow.
  bool check_races = false;
  /// Warp instructions of one cluster after which the launch fails. Ends endless loops.
  uint64_t max_steps = uint64_t{1} << 34;
  /// Count executed instructions by opcode and line.
  bool coverage = false;
};

/// A race or a missing fence, each pair of lines once.
struct Finding {
  std::string kind;     ///< "race", "missing-fence", "undefined".
  std::string message;  ///< One sentence with both lines.
  uint32_t line = 0;    ///< Where it was seen.
  std::array<uint32_t, 3> cta = {0, 0, 0};
  uint64_t count = 0;  ///< Times seen.
};

/// Executions of one source line.
struct LineCount {
  uint32_t line = 0;
  std::string opcode;
  uint64_t warps = 0;  ///< Warp instructions executed; 0: never reached.
};

struct LaunchReport {
  uint64_t instructions = 0;  ///< Warp instructions executed.
  uint64_t threads_launched = 0;
  std::map<std::string, uint64_t> by_opcode;  ///< With LaunchOptions::coverage.
  std::vector<LineCount> lines;               ///< With coverage: every instruction of the kernel.
  std::vector<Finding> races;
  std::vector<Finding> lints;
  bool clean() const { return races.empty() && lints.empty(); }
};

/// Runs kernel `name` to its end. `parameters`: the bytes of the kernel's parameters, laid out as
/// KernelInfo says. The outputs are in `memory`; after an error memory is as the kernel left it.
/// Errors: USAGE (no such kernel, wrong parameter size, sizes out of range, more shared memory than
/// 227 KiB), FAILURE (an access out of bounds or not aligned, a deadlock, a trap, max_steps), each
/// with line, instruction, CTA, warp and lane.
Result<LaunchReport> Launch(const Module& module, std::string_view name,
                            std::span<const uint8_t> parameters, Memory& memory,
                            const LaunchOptions& options);

/// Most dynamic plus static shared memory of a CTA, bytes (sm_90).
inline constexpr uint32_t kMaxSharedBytes = 227 * 1024;
inline constexpr uint32_t kMaxThreadsPerCta = 1024;

}  // namespace quern::ptx

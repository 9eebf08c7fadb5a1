//===- Target.h - The machines that Quern generates code for ----*- C++ -*-===//
//
// One table describes every target: the CPU features that its code may use, its
// vectors, the numerics of each role and the default tiles of each kernel
// family. Adding a target starts with a row here (docs/adding-a-target.md).
//
// Free of LLVM and MLIR types, since passes, generators, packers and tools all
// ask the same table.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_TARGET_TARGET_H
#define QUERN_CODEGEN_TARGET_TARGET_H

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace quern {

/// What a row of a step is for. Numerics follow a row's role, never the batch.
enum class Role : uint8_t {
  /// A generated (or speculated) token.
  Decode,
  /// A token of the prompt, in any chunk, even a chunk of one.
  Prefill,
};
inline constexpr int kRoleCount = 2;

/// "decode" or "prefill".
std::string_view roleName(Role role);

/// The arithmetic of a matmul with quantized activations.
enum class Numerics : uint8_t {
  /// int8 activations in groups of 16: exact integer dots, added in float32.
  Int8,
  /// bfloat16 activations and weights, products added in float32.
  Bf16,
  /// float16 activations and weights, products added in float32.
  F16,
  /// float32 activations (`--precise`).
  Float,
  /// e4m3 activations and weights, products added in float32. No role's: that
  /// of kernels whose weights are e4m3, where a machine multiplies them.
  E4M3,
  /// Fixed-point numbers: exact int16 dots, added in float32. No role's: that
  /// of hosts' attention over 16-bit pages.
  Int16,
};

/// "Int8", "Bf16", "F16", "F32", "E4M3", "Int16".
std::string_view numericsName(Numerics numerics);

/// Kernels that share a generator's parameters.
enum class KernelFamily : uint8_t {
  /// Streams a weight matrix past quantized activations.
  Matmul,
  /// Streams a weight matrix past float activations, on vectors everywhere.
  FloatMatmul,
  /// Attention over the KV pages.
  Attention,
  /// Row by row: norms, adds, elementwise, lookups.
  Rows,
};
inline constexpr int kKernelFamilyCount = 4;

/// The parameters of a kernel generator; `#lm.tile` in the IR. A generator
/// refuses a tile that its registers do not hold: vector products take
/// rows * blocks <= 8, AMX products rows of a multiple of 16 with
/// (rows / 16 + 1) * blocks + 1 <= 8, tensor cores 8 rows and 1 block, or rows
/// of a multiple of 16 and 4 or 8 blocks with rows * blocks <= 512, `wgmma`
/// rows of a multiple of 32 and 8 or 16 blocks with rows * blocks <= 2048.
struct Tile {
  /// Rows (tokens; query vectors in attention) that one step works on.
  int64_t rows = 1;
  /// Row blocks of a weight (16 rows each) that one step works on.
  int64_t blocks = 1;
  /// Keys in one step of the online softmax: a page's 32 on hosts; on GPUs what
  /// divides a page or, in prefill, a multiple of it.
  int64_t keys = 32;
  /// Bytes that software prefetch runs ahead of a weight stream.
  int64_t prefetch = 0;

  bool operator==(const Tile &) const = default;
};

/// How a kernel's code was made for one target and role.
struct KernelForm {
  /// Name of the generator: "matmul", "amx-matmul".
  std::string_view generator;
  /// Arithmetic of its products.
  Numerics arithmetic = Numerics::Float;
  Tile tile;
};

/// A CPU feature by both of its names.
struct CpuFeature {
  /// As /proc/cpuinfo and artifacts write it: "avx512_vnni".
  std::string_view name;
  /// As LLVM's feature strings write it: "avx512vnni".
  std::string_view llvmName;
};

/// Which code generator serves a target.
enum class TargetKind : uint8_t {
  /// codegen/host: machine code of the CPU.
  Host,
  /// codegen/ptx: PTX text for NVIDIA GPUs.
  Gpu,
};

/// What a target of kind Gpu adds.
struct GpuFacts {
  /// Compute capability, 10 * major + minor.
  int sm = 0;
  /// The code runs on that compute capability alone ("sm_90a").
  bool exact = false;
  /// Version of the PTX ISA, 10 * major + minor: the lowest that has every
  /// instruction in use, since a driver knows PTX only up to its own age.
  int ptxVersion = 0;
  /// Shared memory that a block can have, bytes.
  int64_t sharedBytes = 0;
  /// Bulk copies that signal mbarriers, and `wgmma`.
  bool hasWgmma = false;
  /// Tensor cores keep sums in a memory of their own (tcgen05).
  bool hasTensorMemory = false;
  /// Kernels multiply e4m3 numbers as they are; others decode them to f16.
  bool hasFp8 = false;
};

/// A machine that code is generated for.
struct Target {
  /// "avx2", "sm_90a": `--target=` and the IR's tile tables.
  std::string_view name;
  /// LLVM's `-mcpu`: a scheduling model and a floor of features.
  std::string_view llvmCpu;
  /// Every feature that generated code may use, and so must be there at load.
  std::span<const CpuFeature> features;
  int vectorBits;
  int vectorRegisters;
  /// `vpdpbusd` on 512-bit vectors.
  bool hasVnni;
  /// Tile registers with int8 and bfloat16 products.
  bool hasAmx;
  /// Numerics by role, unless the model is compiled with `--precise`.
  Numerics numerics[kRoleCount];
  /// Default tiles, [role][family].
  Tile tiles[kRoleCount][kKernelFamilyCount];
  TargetKind kind = TargetKind::Host;
  /// Rows of an attention tile (section 5 of docs/architecture.md) at most.
  int64_t attentionTileRows = 16;
  /// Of GPUs; the CPU's facts above are then 0 or false.
  GpuFacts gpu = {};

  bool isGpu() const { return kind == TargetKind::Gpu; }

  Numerics numericsFor(Role role, bool precise = false) const {
    return precise ? Numerics::Float : numerics[static_cast<int>(role)];
  }
  const Tile &tileFor(Role role, KernelFamily family) const {
    return tiles[static_cast<int>(role)][static_cast<int>(family)];
  }
  /// LLVM's `-mattr`: "+avx2,+fma,...", "+ptx83". Wide vectors are asked for
  /// explicitly where the CPU model prefers 256 bits.
  std::string llvmFeatures() const;
};

/// All host targets, the least demanding first.
std::span<const Target> targets();
/// All GPU targets, the oldest first.
std::span<const Target> gpuTargets();

/// The target named `name`, of either kind, or nullptr.
const Target *findTarget(std::string_view name);

/// The last target whose features this machine (CPU and operating system) has,
/// or nullptr when it has not even those of the first.
const Target *hostTarget();

/// The target named `name`, where "host" means hostTarget(). On failure returns
/// nullptr and sets `error` to one line that lists the names that are known.
const Target *resolveTarget(std::string_view name, std::string &error);

/// Key of a tile table in the IR: "avx2/decode".
std::string tileKey(const Target &target, Role role);

} // namespace quern

#endif // QUERN_CODEGEN_TARGET_TARGET_H

//===- Target.cpp - The machines that Quern generates code for ------------===//
#include "codegen/target/Target.h"

#include "llvm/ADT/StringMap.h"
#include "llvm/TargetParser/Host.h"

#include <array>

namespace quern {
namespace {

// Each target takes a longer run of this table. x86-64-v3 and -v4 stand for
// lists of features, which are all here, since LLVM may use any of them;
// AVX512-FP16 is not, so no target ever uses it.
constexpr CpuFeature kFeatures[] = {
    // x86-64-v3
    {"avx2", "avx2"},
    {"fma", "fma"},
    {"f16c", "f16c"},
    {"bmi1", "bmi"},
    {"bmi2", "bmi2"},
    {"abm", "lzcnt"},
    {"movbe", "movbe"},
    // x86-64-v4 and VNNI
    {"avx512f", "avx512f"},
    {"avx512cd", "avx512cd"},
    {"avx512bw", "avx512bw"},
    {"avx512dq", "avx512dq"},
    {"avx512vl", "avx512vl"},
    {"avx512_vnni", "avx512vnni"},
    // AMX
    {"avx512_bf16", "avx512bf16"},
    {"amx_tile", "amx-tile"},
    {"amx_int8", "amx-int8"},
    {"amx_bf16", "amx-bf16"},
};
constexpr std::span<const CpuFeature> kAmxFeatures = kFeatures;
constexpr auto kAvx512VnniFeatures = kAmxFeatures.first(13);
constexpr auto kAvx2Features = kAmxFeatures.first(7);
static_assert(kAvx512VnniFeatures.back().name == "avx512_vnni");
static_assert(kAvx2Features.back().name == "movbe");

constexpr Tile kRowsTile = {.rows = 1};

constexpr Target kTargets[] = {
    {
        .name = "avx2",
        .llvmCpu = "x86-64-v3",
        .features = kAvx2Features,
        .vectorBits = 256,
        .vectorRegisters = 16,
        .hasVnni = false,
        .hasAmx = false,
        .numerics = {Numerics::Int8, Numerics::Int8},
        .tiles = {{{.rows = 3, .blocks = 1, .prefetch = 4096},
                   {.rows = 2, .blocks = 1, .prefetch = 4096},
                   {.rows = 4},
                   kRowsTile},
                  {{.rows = 3, .blocks = 1, .prefetch = 4096},
                   {.rows = 2, .blocks = 1, .prefetch = 4096},
                   {.rows = 4},
                   kRowsTile}},
    },
    {
        .name = "avx512-vnni",
        .llvmCpu = "x86-64-v4",
        .features = kAvx512VnniFeatures,
        .vectorBits = 512,
        .vectorRegisters = 32,
        .hasVnni = true,
        .hasAmx = false,
        .numerics = {Numerics::Int8, Numerics::Int8},
        .tiles = {{{.rows = 8, .blocks = 1, .prefetch = 8192},
                   {.rows = 8, .blocks = 1, .prefetch = 8192},
                   {.rows = 8},
                   kRowsTile},
                  {{.rows = 8, .blocks = 1, .prefetch = 8192},
                   {.rows = 8, .blocks = 1, .prefetch = 8192},
                   {.rows = 4},
                   kRowsTile}},
    },
    {
        .name = "amx",
        .llvmCpu = "x86-64-v4",
        .features = kAmxFeatures,
        .vectorBits = 512,
        .vectorRegisters = 32,
        .hasVnni = true,
        .hasAmx = true,
        .numerics = {Numerics::Int8, Numerics::Bf16},
        .tiles = {{{.rows = 8, .blocks = 1, .prefetch = 8192},
                   {.rows = 8, .blocks = 1, .prefetch = 8192},
                   {.rows = 8},
                   kRowsTile},
                  {{.rows = 32, .blocks = 2, .prefetch = 2048},
                   {.rows = 8, .blocks = 1, .prefetch = 8192},
                   {.rows = 4},
                   kRowsTile}},
    },
};

// Rows of a GPU matmul are tokens of a block, blocks the row blocks of a block;
// rows of attention are the query vectors of a block in prefill, and in decode
// the warps that share its KV head. In mma.sync prompts the sums of 128 tokens
// beside weights being decoded spill; wgmma has them.
constexpr Tile kGpuTiles[kRoleCount][kKernelFamilyCount] = {
    {{.rows = 8, .blocks = 1},
     {.rows = 4, .blocks = 1},
     {.rows = 8, .keys = 32},
     kRowsTile},
    {{.rows = 64, .blocks = 8},
     {.rows = 4, .blocks = 1},
     {.rows = 128, .keys = 128},
     kRowsTile},
};

constexpr Target gpuTarget(std::string_view name, GpuFacts facts,
                           int64_t promptTokens = kGpuTiles[1][0].rows) {
  Target target = {.name = name,
                   .llvmCpu = name,
                   .features = {},
                   .vectorBits = 0,
                   .vectorRegisters = 0,
                   .hasVnni = false,
                   .hasAmx = false,
                   .numerics = {Numerics::F16, Numerics::F16},
                   .tiles = {},
                   .kind = TargetKind::Gpu,
                   .attentionTileRows = 128,
                   .gpu = facts};
  for (int role = 0; role < kRoleCount; ++role)
    for (int family = 0; family < kKernelFamilyCount; ++family)
      target.tiles[role][family] = kGpuTiles[role][family];
  target
      .tiles[static_cast<int>(Role::Prefill)]
            [static_cast<int>(KernelFamily::Matmul)]
      .rows = promptTokens;
  return target;
}

// Shared memory by block: "CUDA C++ Programming Guide", compute capabilities.
constexpr Target kGpuTargets[] = {
    gpuTarget("sm_80", {.sm = 80, .ptxVersion = 80, .sharedBytes = 163 * 1024}),
    gpuTarget(
        "sm_89",
        {.sm = 89, .ptxVersion = 84, .sharedBytes = 99 * 1024, .hasFp8 = true}),
    gpuTarget("sm_90a",
              {.sm = 90,
               .exact = true,
               .ptxVersion = 84,
               .sharedBytes = 227 * 1024,
               .hasWgmma = true,
               .hasFp8 = true},
              256),
    gpuTarget("sm_100a",
              {.sm = 100,
               .exact = true,
               .ptxVersion = 88,
               .sharedBytes = 227 * 1024,
               .hasTensorMemory = true},
              128),
    gpuTarget("sm_120a", {.sm = 120,
                          .exact = true,
                          .ptxVersion = 88,
                          .sharedBytes = 99 * 1024,
                          .hasFp8 = true}),
};

bool hostHas(const Target &target,
             const llvm::StringMap<bool, llvm::MallocAllocator> &host) {
  for (const CpuFeature &feature : target.features) {
    auto it = host.find(
        llvm::StringRef(feature.llvmName.data(), feature.llvmName.size()));
    if (it == host.end() || !it->second)
      return false;
  }
  return true;
}

} // namespace

std::string_view roleName(Role role) {
  constexpr std::array<std::string_view, kRoleCount> names = {"decode",
                                                              "prefill"};
  return names[static_cast<int>(role)];
}

std::string_view numericsName(Numerics numerics) {
  constexpr std::string_view names[] = {"Int8", "Bf16", "F16",
                                        "F32",  "E4M3", "Int16"};
  return names[static_cast<int>(numerics)];
}

std::string Target::llvmFeatures() const {
  if (isGpu())
    return "+ptx" + std::to_string(gpu.ptxVersion);
  std::string text;
  for (const CpuFeature &feature : features)
    text.append("+").append(feature.llvmName).append(",");
  // Models of AVX-512 machines stay at 256 bits unless told otherwise, and take
  // vpdpwssd apart for its latency, which our loops hide.
  return text + "-prefer-256-bit,+fast-dpwssd";
}

std::span<const Target> targets() { return kTargets; }
std::span<const Target> gpuTargets() { return kGpuTargets; }

const Target *findTarget(std::string_view name) {
  for (std::span<const Target> kind : {targets(), gpuTargets()})
    for (const Target &target : kind)
      if (target.name == name)
        return &target;
  return nullptr;
}

const Target *hostTarget() {
  // LLVM's host query also asks whether the operating system saves the state.
  const llvm::StringMap<bool, llvm::MallocAllocator> host =
      llvm::sys::getHostCPUFeatures();
  const Target *best = nullptr;
  for (const Target &target : kTargets)
    if (hostHas(target, host))
      best = &target;
  return best;
}

const Target *resolveTarget(std::string_view name, std::string &error) {
  const Target *target = name == "host" ? hostTarget() : findTarget(name);
  if (target)
    return target;
  if (name == "host")
    error = "this machine has no AVX2, FMA and F16C: name a target";
  else
    error = "unknown target '" + std::string(name) + "'";
  error += " (known: host";
  for (std::span<const Target> kind : {targets(), gpuTargets()})
    for (const Target &known : kind)
      error.append(", ").append(known.name);
  error += ")";
  return nullptr;
}

std::string tileKey(const Target &target, Role role) {
  return std::string(target.name).append("/").append(roleName(role));
}

} // namespace quern

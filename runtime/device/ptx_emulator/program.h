// A module resolved to what the machine executes: names are slots, instructions are functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/device/ptx_emulator/ast.h"
#include "runtime/device/ptx_emulator/emulator.h"

namespace quern::ptx {

inline constexpr uint32_t kLanes = 32;
using LaneMask = uint32_t;  ///< Bit l: lane l takes part.
inline constexpr LaneMask kAllLanes = ~0u;

class Warp;
struct Inst;
/// Executes `inst` for the lanes of `mask`, which is not empty. Failures go to Warp::Fault.
using Executor = void (*)(Warp& warp, const Inst& inst, LaneMask mask);

struct Operand {
  enum class Kind : uint8_t {
    kNone,
    kLanes,      ///< 32 values: a register, a special register or a constant.
    kPredicate,  ///< `slot`: index of a mask; 0 is the constant true.
    kAddress,    ///< Base (`slot`, `bytes`) plus `value`; further operands in [first, first+count).
    kVector,     ///< Code::elements[first, first+count).
  };
  Kind kind = Kind::kNone;
  bool negated = false;   ///< Of a predicate.
  bool constant = false;  ///< `value` is what all lanes hold.
  uint8_t bytes = 0;      ///< Of a register: 2, 4 or 8; an 8- or 16-bit one lies in a 32-bit lane.
  int32_t slot = 0;       ///< Byte offset into the warp's registers; below 0: ~offset of constants.
  uint32_t first = 0, count = 0;
  uint64_t value = 0;
};

struct Inst {
  enum class Flow : uint8_t { kNext, kBranch, kExit };
  Executor execute = nullptr;
  Flow flow = Flow::kNext;
  bool guard_negated = false;
  /// Names a register that some wgmma or tcgen05.ld of the kernel names.
  bool touches_async = false;
  bool is_wgmma = false;        ///< wgmma.mma_async
  bool is_tensor_load = false;  ///< tcgen05.ld
  int32_t guard = -1;           ///< Index of a predicate.
  uint32_t target = 0;          ///< Of a branch.
  uint32_t reconverge = 0;      ///< Where the lanes of a divergent branch meet again.
  uint32_t line = 0;
  std::array<Operand, 8> operands;
  std::array<int32_t, 8> data = {};  ///< What the row's binder made of the modifiers.
};

enum class SpecialRegister : uint8_t {
  kTid,
  kNtid,
  kCtaid,
  kNctaid,
  kClusterid,
  kNclusterid,
  kClusterCtaid,
  kClusterNctaid,  // x, y, z
  kLaneid,
  kWarpid,
  kNwarpid,
  kGridid,
  kSmid,
  kNsmid,
  kClusterCtarank,
  kClusterNctarank,
  kIsExplicitCluster,
  kLanemaskEq,
  kLanemaskLe,
  kLanemaskLt,
  kLanemaskGe,
  kLanemaskGt,
  kDynamicSmemSize,
  kTotalSmemSize,
  kClock,
};

/// A kernel, ready to run.
struct Code {
  KernelInfo info;
  std::vector<Inst> insts;
  std::vector<std::string> names;  ///< Of each instruction: "add.rn.f32".
  std::vector<Operand> elements;
  std::vector<std::string> register_names;  ///< For findings, by slot / 128.
  std::vector<uint8_t> constants;           ///< Lanes of the immediate operands.
  uint32_t register_bytes = 0;              ///< Per warp.
  uint32_t predicates = 1;
  struct Special {
    SpecialRegister which;
    uint32_t axis;
    uint32_t slot;
    bool wide;
  };
  std::vector<Special> specials;
  /// Constants that hold an address of a module variable, known at launch only.
  struct Relocation {
    uint32_t constant;
    uint32_t variable;
    uint64_t addend;
  };
  std::vector<Relocation> relocations;
  uint32_t shared_bytes = 0;  ///< Static; dynamic shared memory begins here.
  uint32_t local_bytes = 0;   ///< Per thread.
  bool uses_tensor_memory = false;
};

struct Program {
  std::array<int, 2> version;
  std::string target;
  std::vector<AstVariable> globals;  ///< .global and .const of the module.
  std::vector<KernelInfo> kernels;
  std::vector<Code> codes;  ///< Same order.
};

/// Errors as ParseModule's.
Result<Program> Resolve(AstModule module);

/// Sets Inst::reconverge of every conditional branch to its immediate post-dominator: the first
/// place that every path from the branch to the end passes.
void FindReconvergence(Code& code);

// Windows of the generic address space.
inline constexpr uint64_t kSharedWindow = uint64_t{1} << 56;
inline constexpr uint64_t kLocalWindow = uint64_t{2} << 56;
inline constexpr uint64_t kParamWindow = uint64_t{3} << 56;
inline constexpr uint64_t kWindowMask = uint64_t{255} << 56;
/// A shared::cluster address names a CTA by (rank + 1) above these bits; 0 there means the own CTA.
inline constexpr uint32_t kSharedRankShift = 24;
/// Address of the first byte of shared memory; what lies below belongs to the system, as on sm_90.
inline constexpr uint32_t kSharedBase = 1024;

}  // namespace quern::ptx

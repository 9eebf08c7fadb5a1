// PTX text as a tree: what the parser makes and the resolver reads.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/ptx_emulator/emulator.h"

namespace quern::ptx {

struct AstOperand {
  enum class Kind {
    kName,     ///< A register, variable, parameter, special register ("%tid.x") or label.
    kInteger,  ///< `value`, sign extended to 64 bits.
    kFloat,    ///< `value`: the bits of 0fXXXXXXXX (width 4) or 0dXXXXXXXXXXXXXXXX (width 8).
    kAddress,  ///< [elements[0] + value], and coordinates and the like in elements[1..].
    kVector,   ///< {a, b, ...}
    kPair,     ///< a|b
    kSink,     ///< _
  };
  Kind kind = Kind::kSink;
  std::string name;
  uint64_t value = 0;
  uint32_t width = 0;    ///< Of kFloat, bytes.
  bool negated = false;  ///< !p
  std::vector<AstOperand> elements;
};

struct AstInstruction {
  uint32_t line = 0;
  uint32_t scope = 0;  ///< Index into AstKernel::scopes.
  std::string guard;   ///< Predicate of @p; empty: none.
  bool guard_negated = false;
  std::string opcode;                  ///< "add"
  std::vector<std::string> modifiers;  ///< ".rn", ".f32"
  std::vector<AstOperand> operands;
  /// "add.rn.f32"
  std::string Name() const {
    std::string name = opcode;
    for (const std::string& modifier : modifiers) name += modifier;
    return name;
  }
};

enum class Space : uint8_t { kGeneric, kGlobal, kShared, kLocal, kParam, kConst };

/// A variable outside registers.
struct AstVariable {
  std::string name;
  uint32_t line = 0;
  Space space = Space::kGlobal;
  uint32_t alignment = 1;
  uint64_t bytes = 0;  ///< 0 for `.extern .shared x[]`.
  bool external = false;
  std::vector<uint8_t> initial;  ///< Empty: zeros.
};

struct AstRegister {
  std::string name;
  uint32_t bytes = 0;  ///< 0: a predicate.
};

/// A pair of braces. Names are looked up from the inside out.
struct AstScope {
  uint32_t parent = 0;                                     ///< Scope 0 is its own parent.
  std::map<std::string, uint32_t, std::less<>> registers;  ///< Index into AstKernel::registers.
  std::map<std::string, uint32_t, std::less<>> labels;     ///< Index of an instruction.
  std::map<std::string, uint32_t, std::less<>> variables;  ///< Index into AstKernel::variables.
};

struct AstKernel {
  KernelInfo info;
  std::vector<AstScope> scopes;
  std::vector<AstRegister> registers;
  std::vector<AstVariable> variables;
  std::vector<AstInstruction> code;
};

struct AstModule {
  std::array<int, 2> version = {0, 0};
  std::string target;
  std::vector<AstVariable> variables;
  std::vector<AstKernel> kernels;
};

/// Errors: MALFORMED and UNSUPPORTED, each with the line.
Result<AstModule> ParseText(std::string_view text);

/// Bytes of a fundamental type such as ".f16x2" or "u64"; 0 for .pred, -1 when it is none.
int TypeBytes(std::string_view type);

}  // namespace quern::ptx

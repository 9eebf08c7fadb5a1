#include "runtime/device/ptx_emulator/target_check.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

namespace quern::ptx {
namespace {

/// A row of "Target ISA Notes" of the PTX ISA: instructions that sm_80 does not have.
struct Requirement {
  std::string_view opcode;
  std::string_view modifier;   ///< That the instruction has; "": any.
  uint32_t first;              ///< The least compute capability that has it.
  uint32_t last = 0;           ///< The last one, 0: all later ones.
  bool arch_specific = false;  ///< Only of targets whose name ends in "a".
};
constexpr Requirement kRequirements[] = {
    {"mma", ".e4m3", 89},
    {"mma", ".e5m2", 89},
    {"cvt", ".e4m3x2", 89},
    {"cvt", ".e5m2x2", 89},
    {"cp", ".bulk", 90},
    {"elect", "", 90},
    {"mbarrier", ".try_wait", 90},
    {"stmatrix", "", 90},
    {"setmaxnreg", "", 90, 0, true},
    {"wgmma", "", 90, 90, true},
    {"tcgen05", "", 100, 110, true},
};

bool Concerns(const Requirement& row, const AstInstruction& instruction) {
  const auto& modifiers = instruction.modifiers;
  return row.opcode == instruction.opcode &&
         (row.modifier.empty() ||
          std::find(modifiers.begin(), modifiers.end(), row.modifier) != modifiers.end());
}

}  // namespace

std::string MissingFrom(std::string_view target, const AstInstruction& instruction) {
  constexpr std::string_view kPrefix = "sm_";
  if (!target.starts_with(kPrefix)) return "";
  const std::string_view digits = target.substr(kPrefix.size());
  uint32_t sm = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), sm);
  const bool specific = target.ends_with('a');
  for (const Requirement& row : kRequirements) {
    if (!Concerns(row, instruction)) continue;
    const bool in_range = sm >= row.first && (row.last == 0 || sm <= row.last);
    if (in_range && (specific || !row.arch_specific)) continue;
    const std::string suffix = row.arch_specific ? "a" : "";
    std::string wanted = "sm_" + std::to_string(row.first) + suffix;
    if (row.last == 0)
      wanted += " or later";
    else if (row.last != row.first)
      wanted += " to sm_" + std::to_string(row.last) + suffix;
    return "needs " + wanted + ", and the module is for " + std::string(target);
  }
  return "";
}

}  // namespace quern::ptx

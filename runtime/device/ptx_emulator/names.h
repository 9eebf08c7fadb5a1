// What the names of a kernel stand for: places of registers, variables, parameters and constants.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "runtime/device/ptx_emulator/program.h"

namespace quern::ptx {

/// Gives everything that a kernel names its place in `code`. Scopes are indices into
/// AstKernel::scopes; a name is looked up from the inside out.
class Names {
 public:
  Names(const AstModule& module, const AstKernel& kernel, Code& code)
      : module_(module), kernel_(kernel), code_(code) {}

  /// Places variables and registers. Error: MALFORMED (more memory than there is).
  Status Place();

  /// Makes `operand` the register, or returns false where there is none of that name.
  bool Register(uint32_t scope, std::string_view name, Operand& operand) const;
  /// The same for a special register.
  bool Special(std::string_view name, Operand& operand);
  /// The same for the address of a variable or parameter plus `addend`, a constant of `bytes`.
  bool Symbol(uint32_t scope, std::string_view name, uint64_t addend, uint32_t bytes,
              Operand& operand);
  /// Index of the instruction behind a label, or null.
  const uint32_t* Label(uint32_t scope, std::string_view name) const;
  /// Makes `operand` a constant of 2, 4 or 8 bytes, the same in all lanes.
  void Constant(uint64_t value, uint32_t bytes, Operand& operand);
  /// Slot of a register without a declaration; `name` is for findings.
  int32_t NewRegister(uint32_t bytes, const std::string& name);

 private:
  template <class Table>
  const uint32_t* Look(Table AstScope::* table, uint32_t scope, std::string_view name) const;
  void PlaceVariable(const AstVariable& variable, uint64_t& end);
  std::set<std::string> UsedNames() const;
  /// Adds the lanes of a constant to the code; returns their offset.
  int32_t AppendConstant(uint64_t value, uint32_t bytes);

  const AstModule& module_;
  const AstKernel& kernel_;
  Code& code_;
  std::vector<int32_t> slots_;  ///< Of the kernel's declared registers.
  std::map<const AstVariable*, uint64_t> addresses_;
  std::map<std::string, int32_t, std::less<>> specials_;     ///< Slots.
  std::map<std::tuple<uint64_t, bool>, int32_t> constants_;  ///< (value, 8 bytes) -> offset
};

}  // namespace quern::ptx

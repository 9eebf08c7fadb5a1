#include "runtime/device/ptx_emulator/names.h"

#include <algorithm>

#include "runtime/device/ptx_emulator/lexer.h"
#include "runtime/device/ptx_emulator/special_registers.h"

namespace quern::ptx {
namespace {

constexpr uint64_t kMaxLocalBytes = 1u << 19;  // Of a thread; PTX ISA 5.1.5 and the GPUs' limit.

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace

// ---- Placement

/// Puts a variable of fixed size at `end`, the end of its space so far.
void Names::PlaceVariable(const AstVariable& variable, uint64_t& end) {
  end = AlignUp(end, variable.alignment);
  addresses_[&variable] = end;
  end += variable.bytes;
}

Status Names::Place() {
  std::vector<const AstVariable*> dynamic;
  uint64_t shared = 0, local = 0;
  const auto place = [&](const AstVariable& variable) {
    if (variable.space == Space::kLocal)
      PlaceVariable(variable, local);
    else if (variable.space == Space::kShared && variable.bytes == 0)
      dynamic.push_back(&variable);
    else if (variable.space == Space::kShared)
      PlaceVariable(variable, shared);
  };
  const std::set<std::string> used = UsedNames();
  for (const AstVariable& variable : module_.variables)
    if (used.count(variable.name)) place(variable);
  for (const AstVariable& variable : kernel_.variables) place(variable);
  // Dynamic shared memory begins behind the static one; all its names mean that place.
  for (const AstVariable* variable : dynamic)
    shared = AlignUp(shared, std::max(variable->alignment, 16u));
  for (const AstVariable* variable : dynamic) addresses_[variable] = shared;
  for (auto& [variable, address] : addresses_)
    if (variable->space == Space::kShared) address += kSharedBase;
  local = AlignUp(local, 16);
  if (shared > kMaxSharedBytes || local > kMaxLocalBytes)
    return SyntaxError(kernel_.info.line, std::to_string(shared) + " bytes of shared and " +
                                              std::to_string(local) + " of local memory; " +
                                              std::to_string(kMaxSharedBytes) + " and " +
                                              std::to_string(kMaxLocalBytes) + " are possible");
  code_.info.static_shared_bytes = code_.shared_bytes = static_cast<uint32_t>(shared);
  code_.info.local_bytes = code_.local_bytes = static_cast<uint32_t>(local);
  for (const AstRegister& each : kernel_.registers)
    slots_.push_back(each.bytes == 0 ? static_cast<int32_t>(code_.predicates++)
                                     : NewRegister(each.bytes, each.name));
  return {};
}

/// A kernel has the shared variables of the module that it names, as ptxas does it.
std::set<std::string> Names::UsedNames() const {
  std::set<std::string> names;
  const auto visit = [&](const AstOperand& operand, auto&& self) -> void {
    if (operand.kind == AstOperand::Kind::kName) names.insert(operand.name);
    for (const AstOperand& element : operand.elements) self(element, self);
  };
  for (const AstInstruction& instruction : kernel_.code)
    for (const AstOperand& operand : instruction.operands) visit(operand, visit);
  return names;
}

int32_t Names::NewRegister(uint32_t bytes, const std::string& name) {
  const auto slot = static_cast<int32_t>(code_.register_bytes);
  code_.register_bytes += bytes == 8 ? 256 : 128;
  code_.register_names.resize(code_.register_bytes / 128, name);
  return slot;
}

// ---- Looking up

template <class Table>
const uint32_t* Names::Look(Table AstScope::* table, uint32_t scope, std::string_view name) const {
  while (true) {
    const AstScope& here = kernel_.scopes[scope];
    const auto found = (here.*table).find(name);
    if (found != (here.*table).end()) return &found->second;
    if (scope == here.parent) return nullptr;
    scope = here.parent;
  }
}

bool Names::Register(uint32_t scope, std::string_view name, Operand& operand) const {
  const uint32_t* found = Look(&AstScope::registers, scope, name);
  if (!found) return false;
  const uint32_t bytes = kernel_.registers[*found].bytes;
  operand.kind = bytes == 0 ? Operand::Kind::kPredicate : Operand::Kind::kLanes;
  operand.bytes = static_cast<uint8_t>(bytes == 1 ? 2 : bytes);
  operand.slot = slots_[*found];
  return true;
}

bool Names::Special(std::string_view name, Operand& operand) {
  const std::optional<SpecialName> special = FindSpecialRegister(name);
  if (!special) return false;
  const auto [it, fresh] = specials_.try_emplace(std::string(name), 0);
  if (fresh) {
    it->second = NewRegister(special->wide ? 8 : 4, it->first);
    code_.specials.push_back(
        {special->which, special->axis, static_cast<uint32_t>(it->second), special->wide});
  }
  operand.kind = Operand::Kind::kLanes;
  operand.bytes = special->wide ? 8 : 4;
  operand.slot = it->second;
  return true;
}

bool Names::Symbol(uint32_t scope, std::string_view name, uint64_t addend, uint32_t bytes,
                   Operand& operand) {
  if (const uint32_t* found = Look(&AstScope::variables, scope, name)) {
    Constant(addresses_[&kernel_.variables[*found]] + addend, bytes, operand);
    return true;
  }
  for (const ParameterInfo& parameter : kernel_.info.parameters) {
    if (parameter.name != name) continue;
    Constant(parameter.offset + addend, bytes, operand);
    return true;
  }
  for (size_t i = 0; i < module_.variables.size(); ++i) {
    const AstVariable& variable = module_.variables[i];
    if (variable.name != name) continue;
    if (variable.space == Space::kShared) {
      Constant(addresses_[&variable] + addend, bytes, operand);
      return true;
    }
    // Known at launch only: a constant of its own that the launch fills in.
    const int32_t offset = AppendConstant(0, 8);
    operand.kind = Operand::Kind::kLanes;
    operand.bytes = 8;
    operand.slot = ~offset;
    code_.relocations.push_back({static_cast<uint32_t>(offset), static_cast<uint32_t>(i), addend});
    return true;
  }
  return false;
}

const uint32_t* Names::Label(uint32_t scope, std::string_view name) const {
  return Look(&AstScope::labels, scope, name);
}

int32_t Names::AppendConstant(uint64_t value, uint32_t bytes) {
  const auto offset = static_cast<int32_t>(code_.constants.size());
  const uint32_t width = bytes == 8 ? 8 : 4;
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    for (uint32_t i = 0; i < width; ++i)
      code_.constants.push_back(static_cast<uint8_t>(value >> (8 * i)));
  return offset;
}

void Names::Constant(uint64_t value, uint32_t bytes, Operand& operand) {
  operand.kind = Operand::Kind::kLanes;
  operand.constant = true;
  operand.value = value;
  operand.bytes = static_cast<uint8_t>(bytes);
  if (bytes == 2) value &= 0xffff;
  const auto [it, fresh] = constants_.try_emplace({value, bytes == 8}, 0);
  if (fresh) it->second = AppendConstant(value, bytes);
  operand.slot = ~it->second;
}

}  // namespace quern::ptx

// From names to slots: resolves the tree of a module to Programs, one table row per instruction.
#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "runtime/device/ptx_emulator/lexer.h"
#include "runtime/device/ptx_emulator/pattern.h"

namespace quern::ptx {
namespace {

struct SpecialName {
  std::string_view name;
  SpecialRegister which;
  bool axes;
  bool wide;
};
constexpr SpecialName kSpecialNames[] = {
    {"%tid", SpecialRegister::kTid, true, false},
    {"%ntid", SpecialRegister::kNtid, true, false},
    {"%ctaid", SpecialRegister::kCtaid, true, false},
    {"%nctaid", SpecialRegister::kNctaid, true, false},
    {"%clusterid", SpecialRegister::kClusterid, true, false},
    {"%nclusterid", SpecialRegister::kNclusterid, true, false},
    {"%cluster_ctaid", SpecialRegister::kClusterCtaid, true, false},
    {"%cluster_nctaid", SpecialRegister::kClusterNctaid, true, false},
    {"%laneid", SpecialRegister::kLaneid, false, false},
    {"%warpid", SpecialRegister::kWarpid, false, false},
    {"%nwarpid", SpecialRegister::kNwarpid, false, false},
    {"%gridid", SpecialRegister::kGridid, false, true},
    {"%smid", SpecialRegister::kSmid, false, false},
    {"%nsmid", SpecialRegister::kNsmid, false, false},
    {"%cluster_ctarank", SpecialRegister::kClusterCtarank, false, false},
    {"%cluster_nctarank", SpecialRegister::kClusterNctarank, false, false},
    {"%is_explicit_cluster", SpecialRegister::kIsExplicitCluster, false, false},
    {"%lanemask_eq", SpecialRegister::kLanemaskEq, false, false},
    {"%lanemask_le", SpecialRegister::kLanemaskLe, false, false},
    {"%lanemask_lt", SpecialRegister::kLanemaskLt, false, false},
    {"%lanemask_ge", SpecialRegister::kLanemaskGe, false, false},
    {"%lanemask_gt", SpecialRegister::kLanemaskGt, false, false},
    {"%dynamic_smem_size", SpecialRegister::kDynamicSmemSize, false, false},
    {"%total_smem_size", SpecialRegister::kTotalSmemSize, false, false},
    {"%clock", SpecialRegister::kClock, false, false},
    {"%clock64", SpecialRegister::kClock, false, true},
    {"%globaltimer", SpecialRegister::kClock, false, true},
};

uint32_t AlignUp(uint32_t value, uint32_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

class KernelResolver {
 public:
  KernelResolver(const AstModule& module, const AstKernel& ast) : module_(module), ast_(ast) {}

  Result<Code> Run() {
    code_.info = ast_.info;
    QUERN_RETURN_IF_ERROR(PlaceVariables());
    PlaceRegisters();
    for (const AstInstruction& instruction : ast_.code) {
      instruction_ = &instruction;
      QUERN_RETURN_IF_ERROR(Instruction());
    }
    MarkWgmma();
    FindReconvergence(code_);
    return std::move(code_);
  }

 private:
  Status Error(const std::string& what) const {
    return SyntaxError(instruction_->line, "`" + instruction_->Name() + "`: " + what);
  }

  // ---- Placement
  Status PlaceVariables() {
    std::vector<const AstVariable*> dynamic;
    const auto place = [&](const AstVariable& variable) {
      if (variable.space == Space::kShared) {
        if (variable.bytes == 0) return dynamic.push_back(&variable);
        code_.shared_bytes = AlignUp(code_.shared_bytes, variable.alignment);
        addresses_[&variable] = kSharedBase + code_.shared_bytes;
        code_.shared_bytes += static_cast<uint32_t>(variable.bytes);
      } else if (variable.space == Space::kLocal) {
        code_.local_bytes = AlignUp(code_.local_bytes, variable.alignment);
        addresses_[&variable] = code_.local_bytes;
        code_.local_bytes += static_cast<uint32_t>(variable.bytes);
      }
    };
    const std::set<std::string> used = UsedNames();
    for (const AstVariable& variable : module_.variables)
      if (used.count(variable.name)) place(variable);
    for (const AstVariable& variable : ast_.variables) place(variable);
    for (const AstVariable* variable : dynamic)
      code_.shared_bytes = AlignUp(code_.shared_bytes, std::max(variable->alignment, 16u));
    for (const AstVariable* variable : dynamic)
      addresses_[variable] = kSharedBase + code_.shared_bytes;
    code_.info.static_shared_bytes = code_.shared_bytes;
    code_.local_bytes = AlignUp(code_.local_bytes, 16);
    code_.info.local_bytes = code_.local_bytes;
    if (code_.shared_bytes > kMaxSharedBytes || code_.local_bytes > (1u << 19))
      return SyntaxError(
          ast_.info.line,
          "kernel `" + ast_.info.name + "` declares more shared or local memory than there is");
    return {};
  }

  /// A kernel has the shared variables of the module that it names, as ptxas does it.
  std::set<std::string> UsedNames() const {
    std::set<std::string> names;
    const auto visit = [&](const AstOperand& operand, auto&& self) -> void {
      if (operand.kind == AstOperand::Kind::kName) names.insert(operand.name);
      for (const AstOperand& element : operand.elements) self(element, self);
    };
    for (const AstInstruction& instruction : ast_.code)
      for (const AstOperand& operand : instruction.operands) visit(operand, visit);
    return names;
  }

  int32_t NewRegister(uint32_t bytes, const std::string& name) {
    const auto slot = static_cast<int32_t>(code_.register_bytes);
    code_.register_bytes += bytes == 8 ? 256 : 128;
    code_.register_names.resize(code_.register_bytes / 128, name);
    return slot;
  }

  void PlaceRegisters() {
    for (const AstRegister& reg : ast_.registers)
      slots_.push_back(reg.bytes == 0 ? static_cast<int32_t>(code_.predicates++)
                                      : NewRegister(reg.bytes, reg.name));
  }

  // ---- Names
  template <class Table>
  const uint32_t* Look(Table AstScope::* table, std::string_view name) const {
    for (uint32_t scope = instruction_->scope;; scope = ast_.scopes[scope].parent) {
      const auto found = (ast_.scopes[scope].*table).find(name);
      if (found != (ast_.scopes[scope].*table).end()) return &found->second;
      if (scope == ast_.scopes[scope].parent) return nullptr;
    }
  }

  bool Register(std::string_view name, Operand& operand) const {
    const uint32_t* found = Look(&AstScope::registers, name);
    if (!found) return false;
    const uint32_t bytes = ast_.registers[*found].bytes;
    operand.kind = bytes == 0 ? Operand::Kind::kPredicate : Operand::Kind::kLanes;
    operand.bytes = static_cast<uint8_t>(bytes == 1 ? 2 : bytes);
    operand.slot = slots_[*found];
    return true;
  }

  bool Special(std::string_view name, Operand& operand) {
    const size_t dot = name.find('.');
    const std::string_view base = name.substr(0, dot);
    for (const SpecialName& special : kSpecialNames) {
      if (special.name != base || special.axes != (dot != std::string_view::npos)) continue;
      const uint32_t axis = special.axes ? static_cast<uint32_t>(name.back() - 'x') : 0;
      if (axis > 2) return false;
      auto [it, fresh] = specials_.try_emplace(std::string(name), 0);
      if (fresh) {
        it->second = NewRegister(special.wide ? 8 : 4, std::string(name));
        code_.specials.push_back(
            {special.which, axis, static_cast<uint32_t>(it->second), special.wide});
      }
      operand.kind = Operand::Kind::kLanes;
      operand.bytes = special.wide ? 8 : 4;
      operand.slot = it->second;
      return true;
    }
    return false;
  }

  void Constant(uint64_t value, uint32_t bytes, Operand& operand, bool shareable = true) {
    operand.kind = Operand::Kind::kLanes;
    operand.constant = true;
    operand.value = value;
    operand.bytes = static_cast<uint8_t>(bytes);
    if (bytes == 2) value &= 0xffff;
    auto [it, fresh] = constants_.try_emplace({value, bytes == 8, !shareable ? ++unique_ : 0}, 0);
    if (fresh) {
      it->second = static_cast<int32_t>(code_.constants.size());
      const uint32_t width = bytes == 8 ? 8 : 4;
      for (uint32_t lane = 0; lane < kLanes; ++lane)
        for (uint32_t i = 0; i < width; ++i)
          code_.constants.push_back(static_cast<uint8_t>(value >> (8 * i)));
    }
    operand.slot = ~it->second;
  }

  /// The address of a variable or parameter, as a constant.
  bool Symbol(std::string_view name, uint64_t addend, uint32_t bytes, Operand& operand) {
    if (const uint32_t* found = Look(&AstScope::variables, name)) {
      Constant(addresses_[&ast_.variables[*found]] + addend, bytes, operand);
      return true;
    }
    for (const ParameterInfo& parameter : ast_.info.parameters)
      if (parameter.name == name) {
        Constant(parameter.offset + addend, bytes, operand);
        return true;
      }
    for (size_t i = 0; i < module_.variables.size(); ++i) {
      const AstVariable& variable = module_.variables[i];
      if (variable.name != name) continue;
      if (variable.space == Space::kShared) {
        Constant(addresses_[&variable] + addend, bytes, operand);
      } else {
        Constant(0, 8, operand, false);
        operand.constant = false;
        code_.relocations.push_back(
            {static_cast<uint32_t>(~operand.slot), static_cast<uint32_t>(i), addend});
      }
      return true;
    }
    return false;
  }

  // ---- Operands
  Status Predicate(const AstOperand& ast, bool destination, Operand& operand) {
    if (ast.kind == AstOperand::Kind::kSink && destination) {
      operand.kind = Operand::Kind::kPredicate;
      operand.slot = static_cast<int32_t>(code_.predicates++);
      return {};
    }
    if (ast.kind == AstOperand::Kind::kInteger && !destination) {
      operand.kind = Operand::Kind::kPredicate;
      operand.negated = ast.value == 0;
      return {};
    }
    if (ast.kind != AstOperand::Kind::kName || !Register(ast.name, operand))
      return Error("expected a predicate register" + Named(ast));
    if (operand.kind != Operand::Kind::kPredicate)
      return Error("`" + ast.name + "` is not a predicate");
    operand.negated = ast.negated;
    return {};
  }

  static std::string Named(const AstOperand& ast) {
    return ast.name.empty() ? "" : ", `" + ast.name + "` is not declared";
  }

  /// `bytes`: 2, 4 or 8, or 0 for any width.
  Status Lane(const AstOperand& ast, bool destination, uint32_t bytes, Operand& operand) {
    if (ast.kind == AstOperand::Kind::kSink && destination) {
      operand.kind = Operand::Kind::kLanes;
      operand.bytes = static_cast<uint8_t>(bytes ? bytes : 8);
      operand.slot = NewRegister(8, "_");
      return {};
    }
    if (ast.negated) return Error("`!` in front of what is not a predicate");
    const bool number =
        ast.kind == AstOperand::Kind::kInteger || ast.kind == AstOperand::Kind::kFloat;
    if (destination && number) return Error("a constant as the destination");
    if (ast.kind == AstOperand::Kind::kInteger) {
      Constant(bytes == 4 ? ast.value & 0xffffffff : ast.value, bytes ? bytes : 8, operand);
      return {};
    }
    if (ast.kind == AstOperand::Kind::kFloat) {
      if (bytes && ast.width != bytes) return Error("a floating-point constant of another width");
      Constant(ast.value, ast.width, operand);
      return {};
    }
    if (ast.kind != AstOperand::Kind::kName) return Error("expected a register or constant");
    if (Register(ast.name, operand)) {
      if (operand.kind != Operand::Kind::kLanes)
        return Error("`" + ast.name + "` is a predicate; a register is wanted");
      if (bytes && operand.bytes != bytes)
        return Error("`" + ast.name + "` has " + std::to_string(8 * operand.bytes) + " bits, " +
                     std::to_string(8 * bytes) + " are wanted");
      return {};
    }
    if (destination) return Error("expected a register" + Named(ast));
    if (Special(ast.name, operand) || Symbol(ast.name, 0, bytes ? bytes : 8, operand)) return {};
    return Error("`" + ast.name + "` is not declared");
  }

  Status Vector(const AstOperand& ast, bool destination, Operand& operand) {
    if (ast.kind != AstOperand::Kind::kVector) return Lane(ast, destination, 0, operand);
    std::vector<Operand> elements;
    for (const AstOperand& element : ast.elements)
      QUERN_RETURN_IF_ERROR(Lane(element, destination, 0, elements.emplace_back()));
    Append(elements, operand);
    operand.kind = Operand::Kind::kVector;
    return {};
  }

  void Append(const std::vector<Operand>& elements, Operand& operand) {
    operand.first = static_cast<uint32_t>(code_.elements.size());
    operand.count = static_cast<uint32_t>(elements.size());
    code_.elements.insert(code_.elements.end(), elements.begin(), elements.end());
  }

  Status Address(const AstOperand& ast, Operand& operand) {
    if (ast.kind != AstOperand::Kind::kAddress) return Error("expected an address in brackets");
    const AstOperand& base = ast.elements[0];
    uint64_t offset = ast.value;
    if (base.kind == AstOperand::Kind::kName && !Look(&AstScope::registers, base.name)) {
      if (!Symbol(base.name, offset, 8, operand))
        return Error("`" + base.name + "` is not declared");
      offset = 0;
    } else {
      QUERN_RETURN_IF_ERROR(Lane(base, false, base.name.empty() ? 8 : 0, operand));
    }
    if (operand.bytes < 4) return Error("an address needs a register of 32 or 64 bits");
    std::vector<Operand> more;
    for (size_t i = 1; i < ast.elements.size(); ++i)
      QUERN_RETURN_IF_ERROR(Vector(ast.elements[i], false, more.emplace_back()));
    Append(more, operand);
    operand.kind = Operand::Kind::kAddress;
    operand.constant = false;
    operand.value = offset;
    return {};
  }

  Status OneOperand(char kind, bool destination, const AstOperand& ast, Operand& operand) {
    switch (kind) {
      case 'p':
        return Predicate(ast, destination, operand);
      case 'h':
        return Lane(ast, destination, 2, operand);
      case 'w':
        return Lane(ast, destination, 4, operand);
      case 'l':
        return Lane(ast, destination, 8, operand);
      case 'x':
        return Lane(ast, destination, 0, operand);
      case 'm':
        return Vector(ast, destination, operand);
      case 'a':
        return Address(ast, operand);
      case 'y':  // A predicate, or else lanes.
        if (Operand is; ast.kind == AstOperand::Kind::kName && Register(ast.name, is) &&
                        is.kind == Operand::Kind::kPredicate)
          return Predicate(ast, false, operand);
        return Lane(ast, false, 0, operand);
      default:
        QUERN_RETURN_IF_ERROR(Lane(ast, false, 8, operand));
        return operand.constant ? Status() : Error("expected a constant");
    }
  }

  /// See Row::signature. A pair `d|p` takes two places.
  Status Operands(const std::string& signature, Inst& inst) {
    size_t given = 0, place = 0;
    for (size_t i = 0; i < signature.size();) {
      const size_t end = std::min(signature.find(' ', i), signature.size());
      std::string word = signature.substr(i, end - i);
      i = end + 1;
      const bool destination = word[0] == '=';
      if (destination) word.erase(0, 1);
      const bool optional = word.back() == '?';
      if (given == instruction_->operands.size()) {
        if (!optional) return Error("too few operands");
        place += word.find('|') == std::string::npos ? 1 : 2;
        continue;
      }
      const AstOperand& ast = instruction_->operands[given++];
      const bool pair = word.size() > 1 && word[1] == '|';
      const bool has_pair = ast.kind == AstOperand::Kind::kPair;
      if (has_pair && !pair) return Error("`|` where one operand is wanted");
      const AstOperand& first = has_pair ? ast.elements[0] : ast;
      QUERN_RETURN_IF_ERROR(OneOperand(word[0], destination, first, inst.operands[place++]));
      if (!pair) continue;
      if (has_pair)
        QUERN_RETURN_IF_ERROR(
            OneOperand(word[2], destination, ast.elements[1], inst.operands[place]));
      ++place;
    }
    return given == instruction_->operands.size() ? Status() : Error("too many operands");
  }

  // ---- Instructions
  Status Instruction() {
    Inst inst;
    inst.line = instruction_->line;
    if (!instruction_->guard.empty()) {
      Operand guard;
      if (!Register(instruction_->guard, guard) || guard.kind != Operand::Kind::kPredicate)
        return Error("the guard `" + instruction_->guard + "` is no predicate register");
      inst.guard = guard.slot;
      inst.guard_negated = instruction_->guard_negated;
    }
    const std::string& opcode = instruction_->opcode;
    const auto& modifiers = instruction_->modifiers;
    const bool plain = modifiers.empty() || (modifiers.size() == 1 && modifiers[0] == ".uni");
    if (opcode == "bra" && plain) {
      QUERN_RETURN_IF_ERROR(Branch(inst));
    } else if ((opcode == "ret" || opcode == "exit") && plain && instruction_->operands.empty()) {
      inst.flow = Inst::Flow::kExit;
    } else {
      Match match;
      QUERN_ASSIGN_OR_RETURN(const Row* row, FindRow(*instruction_, match));
      inst.execute = row->execute;
      QUERN_RETURN_IF_ERROR(Operands(row->signature, inst));
      if (row->bind) {
        const std::string problem = row->bind(match, code_, inst);
        if (!problem.empty())
          return Unsupported("PTX line " + std::to_string(inst.line) + ": `" +
                             instruction_->Name() + "`: " + problem);
      }
      inst.is_wgmma = opcode == "wgmma" && instruction_->modifiers[0] == ".mma_async";
    }
    code_.insts.push_back(inst);
    code_.names.push_back(instruction_->Name());
    return {};
  }

  Status Branch(Inst& inst) {
    inst.flow = Inst::Flow::kBranch;
    if (instruction_->operands.size() != 1 ||
        instruction_->operands[0].kind != AstOperand::Kind::kName)
      return Error("expected a label");
    const uint32_t* found = Look(&AstScope::labels, instruction_->operands[0].name);
    if (!found) return Error("no label `" + instruction_->operands[0].name + "`");
    inst.target = *found;
    return {};
  }

  /// Which instructions name a register of a wgmma.
  void MarkWgmma() {
    std::vector<bool> named(code_.register_bytes / 128 + 1, false);
    const auto visit = [&](const Operand& operand, auto&& self, auto&& body) -> void {
      if (operand.kind == Operand::Kind::kLanes && operand.slot >= 0) body(operand.slot / 128);
      if (operand.kind != Operand::Kind::kVector) return;
      for (uint32_t i = 0; i < operand.count; ++i)
        self(code_.elements[operand.first + i], self, body);
    };
    for (const Inst& inst : code_.insts)
      if (inst.is_wgmma)
        for (int i : {0, 1})
          if (inst.operands[i].kind == Operand::Kind::kVector)
            visit(inst.operands[i], visit, [&](int32_t slot) { named[slot] = true; });
    for (Inst& inst : code_.insts)
      for (const Operand& operand : inst.operands)
        visit(operand, visit, [&](int32_t slot) { inst.touches_wgmma |= named[slot]; });
  }

  const AstModule& module_;
  const AstKernel& ast_;
  const AstInstruction* instruction_ = nullptr;
  Code code_;
  std::vector<int32_t> slots_;  ///< Of ast_.registers.
  std::map<const AstVariable*, uint64_t> addresses_;
  std::map<std::string, int32_t> specials_;
  std::map<std::tuple<uint64_t, bool, int>, int32_t> constants_;
  int unique_ = 0;
};

}  // namespace

Result<Program> Resolve(AstModule module) {
  Program program;
  program.version = module.version;
  program.target = module.target;
  for (const AstKernel& kernel : module.kernels) {
    Result<Code> code = KernelResolver(module, kernel).Run();
    if (!code.ok())
      return Status(code.status().code(),
                    "kernel '" + kernel.info.name + "': " + code.status().message());
    program.kernels.push_back(code->info);
    program.codes.push_back(std::move(code).value());
  }
  program.globals = std::move(module.variables);
  return program;
}

Result<Module> ParseModule(std::string_view text) {
  QUERN_ASSIGN_OR_RETURN(AstModule ast, ParseText(text));
  QUERN_ASSIGN_OR_RETURN(Program program, Resolve(std::move(ast)));
  return Module(std::make_shared<const Program>(std::move(program)));
}

Module::Module(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
const std::vector<KernelInfo>& Module::kernels() const { return program_->kernels; }
const KernelInfo* Module::FindKernel(std::string_view name) const {
  for (const KernelInfo& kernel : program_->kernels)
    if (kernel.name == name) return &kernel;
  return nullptr;
}
const std::string& Module::target() const { return program_->target; }
std::array<int, 2> Module::version() const { return program_->version; }

}  // namespace quern::ptx

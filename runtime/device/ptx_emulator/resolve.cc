// From names to slots: resolves the tree of a module to Programs, one table row per instruction.
#include <algorithm>

#include "runtime/device/ptx_emulator/lexer.h"
#include "runtime/device/ptx_emulator/names.h"
#include "runtime/device/ptx_emulator/pattern.h"
#include "runtime/device/ptx_emulator/target_check.h"

namespace quern::ptx {
namespace {

class KernelResolver {
 public:
  KernelResolver(const AstModule& module, const AstKernel& ast)
      : ast_(ast), target_(module.target), names_(module, ast, code_) {}

  Result<Code> Run() {
    code_.info = ast_.info;
    QUERN_RETURN_IF_ERROR(names_.Place());
    for (const AstInstruction& instruction : ast_.code) {
      instruction_ = &instruction;
      QUERN_RETURN_IF_ERROR(Instruction());
    }
    MarkAsync();
    FindReconvergence(code_);
    return std::move(code_);
  }

 private:
  Status Error(const std::string& what) const {
    return SyntaxError(instruction_->line, "`" + instruction_->Name() + "`: " + what);
  }

  bool Register(std::string_view name, Operand& operand) const {
    return names_.Register(instruction_->scope, name, operand);
  }
  bool Symbol(std::string_view name, uint64_t addend, uint32_t bytes, Operand& operand) {
    return names_.Symbol(instruction_->scope, name, addend, bytes, operand);
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
      operand.slot = names_.NewRegister(8, "_");
      return {};
    }
    if (ast.negated) return Error("`!` in front of what is not a predicate");
    const bool number =
        ast.kind == AstOperand::Kind::kInteger || ast.kind == AstOperand::Kind::kFloat;
    if (destination && number) return Error("a constant as the destination");
    if (ast.kind == AstOperand::Kind::kInteger) {
      names_.Constant(bytes == 4 ? ast.value & 0xffffffff : ast.value, bytes ? bytes : 8, operand);
      return {};
    }
    if (ast.kind == AstOperand::Kind::kFloat) {
      if (bytes && ast.width != bytes) return Error("a floating-point constant of another width");
      names_.Constant(ast.value, ast.width, operand);
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
    if (names_.Special(ast.name, operand) || Symbol(ast.name, 0, bytes ? bytes : 8, operand))
      return {};
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
    if (Operand is; base.kind == AstOperand::Kind::kName && !Register(base.name, is)) {
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
      std::string problem = MissingFrom(target_, *instruction_);
      if (problem.empty() && row->bind) problem = row->bind(match, code_, inst);
      if (!problem.empty())
        return Unsupported("PTX line " + std::to_string(inst.line) + ": `" + instruction_->Name() +
                           "`: " + problem);
      inst.is_wgmma = opcode == "wgmma" && instruction_->modifiers[0] == ".mma_async";
      inst.is_tensor_load = opcode == "tcgen05" && instruction_->modifiers[0] == ".ld";
      code_.uses_tensor_memory |= opcode == "tcgen05";
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
    const std::string& name = instruction_->operands[0].name;
    const uint32_t* found = names_.Label(instruction_->scope, name);
    if (!found) return Error("no label `" + name + "`");
    inst.target = *found;
    return {};
  }

  /// Which instructions name a register that a wgmma or tcgen05.ld accesses on its own time.
  void MarkAsync() {
    std::vector<bool> named(code_.register_bytes / 128 + 1, false);
    const auto visit = [&](const Operand& operand, auto&& self, auto&& body) -> void {
      if (operand.kind == Operand::Kind::kLanes && operand.slot >= 0) body(operand.slot / 128);
      if (operand.kind != Operand::Kind::kVector) return;
      for (uint32_t i = 0; i < operand.count; ++i)
        self(code_.elements[operand.first + i], self, body);
    };
    for (const Inst& inst : code_.insts) {
      const auto name = [&](const Operand& operand) {
        visit(operand, visit, [&](int32_t slot) { named[slot] = true; });
      };
      if (inst.is_wgmma || inst.is_tensor_load) name(inst.operands[0]);
      if (inst.is_wgmma && inst.operands[1].kind == Operand::Kind::kVector) name(inst.operands[1]);
    }
    for (Inst& inst : code_.insts)
      for (const Operand& operand : inst.operands)
        visit(operand, visit, [&](int32_t slot) { inst.touches_async |= named[slot]; });
  }

  const AstKernel& ast_;
  const std::string& target_;
  const AstInstruction* instruction_ = nullptr;
  Code code_;
  Names names_;
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

}  // namespace quern::ptx

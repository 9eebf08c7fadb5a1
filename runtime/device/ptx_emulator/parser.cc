// A recursive-descent parser of PTX modules.
#include <bit>

#include "runtime/device/ptx_emulator/ast.h"
#include "runtime/device/ptx_emulator/operand_parser.h"
#include "runtime/device/ptx_emulator/token_cursor.h"

namespace quern::ptx {
namespace {

using Kind = Token::Kind;

constexpr uint32_t kMaxRegisters = 1u << 16;  // 16 MiB of a warp.
constexpr uint64_t kMaxVariableBytes = uint64_t{1} << 28;

class Parser : TokenCursor {
 public:
  using TokenCursor::TokenCursor;

  Result<AstModule> Run() {
    while (!AtEnd()) QUERN_RETURN_IF_ERROR(TopLevel());
    if (module_.target.empty()) return SyntaxError(1, "no .target: is this PTX?");
    return std::move(module_);
  }

 private:
  Status NotSupported(const std::string& what) const {
    return Unsupported("PTX line " + std::to_string(Now().line) + ": " + what);
  }

  // ---- Module level
  Status TopLevel() {
    if (Accept(".version")) return Version();
    if (Accept(".target")) return Target();
    if (Accept(".address_size")) return AddressSize();
    if (SkipDebug()) return {};
    return Declaration();
  }

  Status Version() {
    const std::string text(Take().text);  // `8.3` is one token, as a number with a point.
    if (std::sscanf(text.c_str(), "%d.%d", &module_.version[0], &module_.version[1]) != 2)
      return Error("expected a version such as 8.3 after .version");
    return {};
  }

  Status Target() {
    QUERN_RETURN_IF_ERROR(Name(module_.target));
    while (Accept(",")) Take();  // `debug`, `texmode_independent`.
    return {};
  }

  Status AddressSize() {
    if (Now().kind == Kind::kInteger && Now().value != 64)
      return NotSupported("addresses of " + Seen() + " bits; 64 are wanted");
    uint64_t bits = 0;
    return Integer(bits);
  }

  /// .loc, .file and .section carry nothing that is executed.
  bool SkipDebug() {
    if (Now().Is(".loc") || Now().Is(".file")) {
      const uint32_t line = Now().line;
      while (!AtEnd() && Now().line == line) Take();
      return true;
    }
    if (!Now().Is(".section")) return false;
    Take();
    int depth = 0;
    while (!AtEnd()) {
      if (Now().Is("{")) ++depth;
      if (Take().Is("}") && --depth == 0) break;
    }
    return true;
  }

  Status Declaration() {
    bool external = false;
    while (true) {
      if (Accept(".extern"))
        external = true;
      else if (!Accept(".visible") && !Accept(".weak") && !Accept(".common"))
        break;
    }
    if (Accept(".entry")) return Kernel();
    if (Now().Is(".func")) {
      if (!external) return NotSupported(".func: device functions are not supported; inline them");
      while (!AtEnd() && !Now().Is(";")) Take();
      return Expect(";");
    }
    AstVariable variable;
    QUERN_RETURN_IF_ERROR(Variable(variable, external));
    module_.variables.push_back(std::move(variable));
    return {};
  }

  // ---- Variables
  static bool SpaceOf(std::string_view word, Space& space) {
    static constexpr std::pair<std::string_view, Space> kSpaces[] = {{".global", Space::kGlobal},
                                                                     {".shared", Space::kShared},
                                                                     {".local", Space::kLocal},
                                                                     {".const", Space::kConst}};
    for (const auto& [name, value] : kSpaces)
      if (name == word) return space = value, true;
    return false;
  }

  /// .shared .align 16 .b8 name[N] = {1, 2};
  Status Variable(AstVariable& variable, bool external) {
    variable.line = Now().line;
    variable.external = external;
    if (!SpaceOf(Now().text, variable.space))
      return Error("expected a declaration before " + Seen());
    Take();
    uint64_t alignment = 0, count = 1;
    int bytes = -1;
    QUERN_RETURN_IF_ERROR(TypeAndAlignment(bytes, alignment));
    variable.alignment = static_cast<uint32_t>(alignment ? alignment : bytes);
    QUERN_RETURN_IF_ERROR(Name(variable.name));
    while (Accept("[")) {
      uint64_t extent = 0;
      if (!Now().Is("]")) QUERN_RETURN_IF_ERROR(Integer(extent));
      QUERN_RETURN_IF_ERROR(Expect("]"));
      if (extent > kMaxVariableBytes) return Error("variable of more than 256 MiB");
      count *= extent;
      if (count > kMaxVariableBytes) return Error("variable of more than 256 MiB");
    }
    variable.bytes = count * static_cast<uint64_t>(bytes);
    if (Accept("=")) QUERN_RETURN_IF_ERROR(Initial(variable, static_cast<size_t>(bytes)));
    return Expect(";");
  }

  Status TypeAndAlignment(int& bytes, uint64_t& alignment) {
    while (Now().kind == Kind::kDot) {
      if (Accept(".align")) {
        QUERN_RETURN_IF_ERROR(Integer(alignment));
        if (!std::has_single_bit(alignment) || alignment > 4096)
          return Error("alignment must be a power of two up to 4096");
      } else if (Now().Is(".attribute") || Now().Is(".v2") || Now().Is(".v4")) {
        return NotSupported("variable with " + Seen());
      } else {
        bytes = TypeBytes(Now().text);
        if (bytes <= 0) return Error("expected a type before " + Seen());
        Take();
      }
    }
    return bytes > 0 ? Status() : Error("expected a type before " + Seen());
  }

  Status Initial(AstVariable& variable, size_t element) {
    const bool list = Accept("{");
    do {
      AstOperand value;
      QUERN_RETURN_IF_ERROR(ParseConstant(*this, value));
      for (size_t i = 0; i < element; ++i)
        variable.initial.push_back(static_cast<uint8_t>(i < 8 ? value.value >> (8 * i) : 0));
    } while (list && Accept(","));
    if (variable.initial.size() > variable.bytes) return Error("more values than elements");
    return list ? Expect("}") : Status();
  }

  // ---- Kernels
  Status Kernel() {
    module_.kernels.emplace_back();
    kernel_ = &module_.kernels.back();
    kernel_->info.line = Now().line;
    QUERN_RETURN_IF_ERROR(Name(kernel_->info.name));
    if (Accept("(")) {
      while (!Accept(")")) {
        QUERN_RETURN_IF_ERROR(Parameter());
        if (!Now().Is(")")) QUERN_RETURN_IF_ERROR(Expect(","));
      }
    }
    QUERN_RETURN_IF_ERROR(Directives());
    kernel_->scopes.emplace_back();
    scope_ = 0;
    QUERN_RETURN_IF_ERROR(Expect("{"));
    return Body();
  }

  /// .param .u64 .ptr .global .align 16 name   or   .param .align 64 .b8 name[128]
  Status Parameter() {
    QUERN_RETURN_IF_ERROR(Expect(".param"));
    ParameterInfo info;
    uint64_t alignment = 0, count = 1;
    int bytes = -1;
    bool pointer = false;
    while (Now().kind == Kind::kDot) {
      if (Accept(".align")) {
        uint64_t value = 0;
        QUERN_RETURN_IF_ERROR(Integer(value));
        if (!pointer) alignment = value;  // Behind .ptr it is the alignment of the pointee.
      } else if (Accept(".ptr")) {
        pointer = true;
      } else if (Now().Is(".global") || Now().Is(".shared") || Now().Is(".const") ||
                 Now().Is(".local")) {
        Take();
      } else {
        bytes = TypeBytes(Now().text);
        if (bytes <= 0) return Error("expected a parameter's type before " + Seen());
        info.type = Take().text.substr(1);
      }
    }
    if (bytes <= 0) return Error("parameter without a type");
    QUERN_RETURN_IF_ERROR(Name(info.name));
    if (Accept("[")) {
      QUERN_RETURN_IF_ERROR(Integer(count));
      QUERN_RETURN_IF_ERROR(Expect("]"));
    }
    if (count == 0 || count > 32764) return Error("parameters may have 32764 bytes");
    info.bytes = static_cast<uint32_t>(count) * static_cast<uint32_t>(bytes);
    info.alignment = alignment ? static_cast<uint32_t>(alignment) : static_cast<uint32_t>(bytes);
    if (!std::has_single_bit(info.alignment) || info.alignment > 4096)
      return Error("alignment must be a power of two up to 4096");
    KernelInfo& kernel = kernel_->info;
    info.offset = (kernel.parameter_bytes + info.alignment - 1) & ~(info.alignment - 1);
    kernel.parameter_bytes = info.offset + info.bytes;
    if (kernel.parameter_bytes > 32764) return Error("parameters may have 32764 bytes");
    kernel.parameters.push_back(std::move(info));
    return {};
  }

  Status Directives() {
    while (Now().kind == Kind::kDot) {
      const std::string_view word = Take().text;
      std::array<uint32_t, 3> values = {1, 1, 1};
      for (size_t i = 0; Now().kind == Kind::kInteger && i < 3; ++i) {
        values[i] = static_cast<uint32_t>(Take().value);
        if (!Accept(",")) break;
      }
      if (word == ".maxntid")
        kernel_->info.max_threads = values;
      else if (word == ".reqntid")
        kernel_->info.required_threads = values;
      else if (word == ".reqnctapercluster")
        kernel_->info.cluster = values;
      else if (word == ".pragma")
        QUERN_RETURN_IF_ERROR(Pragma());
      else if (word != ".minnctapersm" && word != ".maxnreg" && word != ".maxclusterrank" &&
               word != ".explicitcluster" && word != ".noreturn" && word != ".blocksareclusters" &&
               word != ".maxnctapersm")
        return NotSupported("kernel directive `" + std::string(word) + "`");
    }
    return {};
  }

  Status Pragma() {
    if (Now().kind != Kind::kString) return Error("expected a string after .pragma");
    Take();
    return Expect(";");
  }

  Status Body() {
    std::vector<uint32_t> open = {0};
    while (!open.empty()) {
      scope_ = open.back();
      if (AtEnd()) return Error("kernel without an end");
      if (Accept("}")) {
        open.pop_back();
      } else if (Accept("{")) {
        AstScope scope;
        scope.parent = scope_;
        kernel_->scopes.push_back(std::move(scope));
        open.push_back(static_cast<uint32_t>(kernel_->scopes.size() - 1));
      } else {
        QUERN_RETURN_IF_ERROR(Statement());
      }
    }
    return {};
  }

  AstScope& Scope() { return kernel_->scopes[scope_]; }

  Status Statement() {
    if (Accept(";") || SkipDebug()) return {};
    if (Now().kind == Kind::kName && Ahead(1).Is(":")) {
      const std::string label(Take().text);
      Take();
      if (!Scope().labels.emplace(label, kernel_->code.size()).second)
        return Error("label `" + label + "` is defined twice");
      return {};
    }
    if (Accept(".reg")) return Registers();
    if (Accept(".pragma")) return Pragma();
    if (Now().kind == Kind::kDot) {
      AstVariable variable;
      const bool external = Accept(".extern");
      QUERN_RETURN_IF_ERROR(Variable(variable, external));
      Scope().variables[variable.name] = static_cast<uint32_t>(kernel_->variables.size());
      kernel_->variables.push_back(std::move(variable));
      return {};
    }
    return Instruction();
  }

  /// .reg .b32 %r<12>, x;
  Status Registers() {
    const int bytes = TypeBytes(Now().text);
    if (bytes < 0 || bytes > 8) return NotSupported("register type " + Seen());
    Take();
    do {
      std::string name;
      QUERN_RETURN_IF_ERROR(Name(name));
      uint64_t count = 0;
      if (Accept("<")) {
        QUERN_RETURN_IF_ERROR(Integer(count));
        QUERN_RETURN_IF_ERROR(Expect(">"));
        if (count > kMaxRegisters) return Error("more than 65536 registers");
        for (uint64_t i = 0; i < count; ++i) Register(name + std::to_string(i), bytes);
      } else {
        Register(name, bytes);
      }
      if (kernel_->registers.size() > kMaxRegisters) return Error("more than 65536 registers");
    } while (Accept(","));
    return Expect(";");
  }

  void Register(const std::string& name, int bytes) {
    Scope().registers[name] = static_cast<uint32_t>(kernel_->registers.size());
    kernel_->registers.push_back({name, static_cast<uint32_t>(bytes)});
    ++kernel_->info.registers;
  }

  // ---- Instructions
  Status Instruction() {
    AstInstruction instruction;
    instruction.line = Now().line;
    instruction.scope = scope_;
    if (Accept("@")) {
      instruction.guard_negated = Accept("!");
      QUERN_RETURN_IF_ERROR(Name(instruction.guard));
    }
    QUERN_RETURN_IF_ERROR(Name(instruction.opcode));
    while (Now().kind == Kind::kDot) instruction.modifiers.emplace_back(Take().text);
    while (!Now().Is(";")) {
      QUERN_RETURN_IF_ERROR(ParseOperand(*this, instruction.operands.emplace_back()));
      if (!Now().Is(";")) QUERN_RETURN_IF_ERROR(Expect(","));
    }
    Take();
    kernel_->code.push_back(std::move(instruction));
    return {};
  }

  AstModule module_;
  AstKernel* kernel_ = nullptr;
  uint32_t scope_ = 0;
};

}  // namespace

int TypeBytes(std::string_view type) {
  if (!type.empty() && type[0] == '.') type.remove_prefix(1);
  static constexpr std::pair<std::string_view, int> kTypes[] = {
      {"pred", 0},   {"b8", 1},   {"u8", 1},  {"s8", 1},  {"b16", 2}, {"u16", 2}, {"s16", 2},
      {"f16", 2},    {"bf16", 2}, {"b32", 4}, {"u32", 4}, {"s32", 4}, {"f32", 4}, {"f16x2", 4},
      {"bf16x2", 4}, {"tf32", 4}, {"b64", 8}, {"u64", 8}, {"s64", 8}, {"f64", 8}, {"b128", 16}};
  for (const auto& [name, bytes] : kTypes)
    if (name == type) return bytes;
  return -1;
}

Result<AstModule> ParseText(std::string_view text) {
  if (text.size() > (size_t{64} << 20)) return Malformed("PTX text of more than 64 MiB");
  QUERN_ASSIGN_OR_RETURN(auto tokens, Tokenize(text));
  return Parser(std::move(tokens)).Run();
}

}  // namespace quern::ptx

// Modules, from text to what Launch takes.
#include "runtime/device/ptx_emulator/ast.h"
#include "runtime/device/ptx_emulator/program.h"

namespace quern::ptx {

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

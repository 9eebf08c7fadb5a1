//===- Lowering.cpp - Kernel IR to PTX ------------------------------------===//
#include "codegen/ptx/Lowering.h"

#include "codegen/kernels/Lowering.h"

#include "llvm/IR/Module.h"
#include "llvm/Support/TargetSelect.h"

using namespace mlir;

namespace quern::nvptx {

struct PtxEmitter::State {
  const Target &target;
  std::unique_ptr<llvm::TargetMachine> machine;
};

static std::unique_ptr<llvm::TargetMachine> makeMachine(const Target &target) {
  LLVMInitializeNVPTXTargetInfo();
  LLVMInitializeNVPTXTarget();
  LLVMInitializeNVPTXTargetMC();
  LLVMInitializeNVPTXAsmPrinter();
  return makeTargetMachine("nvptx64-nvidia-cuda", target,
                           llvm::CodeGenOptLevel::Aggressive);
}

PtxEmitter::PtxEmitter(const Target &target)
    : state(new State{target, makeMachine(target)}) {}
PtxEmitter::~PtxEmitter() = default;

FailureOr<std::string> PtxEmitter::emit(ModuleOp module,
                                        const std::string &dumpPrefix) {
  if (!state->machine) {
    module.emitError() << "LLVM was built without its NVPTX backend";
    return failure();
  }
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> ir =
      lowerToLlvmIr(module, context, *state->machine, dumpPrefix);
  if (!ir)
    return failure();
  optimize(*ir, *state->machine, llvm::OptimizationLevel::O3);
  bool dump = !dumpPrefix.empty();
  if (dump && failed(writeText(dumpPrefix + ".ll", [&](llvm::raw_ostream &out) {
        ir->print(out, nullptr);
      })))
    return failure();
  llvm::SmallString<0> text;
  llvm::raw_svector_ostream out(text);
  if (!emitCode(*ir, *state->machine, out,
                llvm::CodeGenFileType::AssemblyFile)) {
    module.emitError() << "LLVM cannot print PTX for target "
                       << state->target.name;
    return failure();
  }
  if (dump && failed(writeText(dumpPrefix + ".ptx",
                               [&](llvm::raw_ostream &out) { out << text; })))
    return failure();
  return std::string(text);
}

} // namespace quern::nvptx

//===- Lowering.cpp - Kernel IR to an object file -------------------------===//
#include "codegen/host/Lowering.h"

#include "codegen/kernels/Lowering.h"

#include "llvm/IR/Module.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Transforms/Utils/Cloning.h"

using namespace mlir;

namespace quern::host {

struct ObjectEmitter::State {
  const Target &target;
  std::unique_ptr<llvm::TargetMachine> machine;
};

static std::unique_ptr<llvm::TargetMachine> makeMachine(const Target &target) {
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  return makeTargetMachine("x86_64-unknown-linux-gnu", target,
                           llvm::CodeGenOptLevel::Default, llvm::Reloc::PIC_,
                           llvm::CodeModel::Small);
}

ObjectEmitter::ObjectEmitter(const Target &target)
    : state(new State{target, makeMachine(target)}) {}
ObjectEmitter::~ObjectEmitter() = default;

static void addAttributes(llvm::Module &module, const Target &target) {
  std::string bits = std::to_string(target.vectorBits);
  for (llvm::Function &function : module) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", target.llvmCpu);
    function.addFnAttr("target-features", target.llvmFeatures());
    function.addFnAttr("min-legal-vector-width", bits);
    function.addFnAttr("prefer-vector-width", bits);
    function.addFnAttr("no-builtins");
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }
}

static LogicalResult dump(llvm::Module &module, llvm::TargetMachine &machine,
                          const std::string &prefix) {
  // Emitting changes the module, so the assembly text comes from a clone.
  std::unique_ptr<llvm::Module> copy = llvm::CloneModule(module);
  llvm::SmallString<0> assembly;
  llvm::raw_svector_ostream text(assembly);
  emitCode(*copy, machine, text, llvm::CodeGenFileType::AssemblyFile);
  if (failed(writeText(prefix + ".ll", [&](llvm::raw_ostream &out) {
        module.print(out, nullptr);
      })))
    return failure();
  return writeText(prefix + ".s",
                   [&](llvm::raw_ostream &out) { out << assembly; });
}

FailureOr<llvm::SmallVector<char, 0>>
ObjectEmitter::emit(ModuleOp module, const std::string &dumpPrefix) {
  if (!state->machine) {
    module.emitError() << "LLVM was built without its x86 backend";
    return failure();
  }
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> ir =
      lowerToLlvmIr(module, context, *state->machine, dumpPrefix);
  if (!ir)
    return failure();
  addAttributes(*ir, state->target);
  optimize(*ir, *state->machine, llvm::OptimizationLevel::O2);
  if (!dumpPrefix.empty() && failed(dump(*ir, *state->machine, dumpPrefix)))
    return failure();
  llvm::SmallVector<char, 0> object;
  llvm::raw_svector_ostream out(object);
  if (!emitCode(*ir, *state->machine, out, llvm::CodeGenFileType::ObjectFile)) {
    module.emitError() << "LLVM cannot emit an object for target "
                       << state->target.name;
    return failure();
  }
  return object;
}

} // namespace quern::host

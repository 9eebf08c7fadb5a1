//===- Lowering.cpp - Kernel IR to an object file -------------------------===//
#include "codegen/host/Lowering.h"

#include "codegen/host/HostCodegen.h"

#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/ConvertToLLVM/ToLLVMPass.h"
#include "mlir/Conversion/FuncToLLVM/ConvertFuncToLLVM.h"
#include "mlir/Conversion/IndexToLLVM/IndexToLLVM.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/ReconcileUnrealizedCasts/ReconcileUnrealizedCasts.h"
#include "mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h"
#include "mlir/Conversion/UBToLLVM/UBToLLVM.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVM.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Transforms/Utils/Cloning.h"

using namespace mlir;

namespace quern::host {

void registerHostCodegenDialects(DialectRegistry &registry) {
  registry
      .insert<arith::ArithDialect, cf::ControlFlowDialect, math::MathDialect,
              LLVM::LLVMDialect, scf::SCFDialect, vector::VectorDialect>();
  arith::registerConvertArithToLLVMInterface(registry);
  cf::registerConvertControlFlowToLLVMInterface(registry);
  index::registerConvertIndexToLLVMInterface(registry);
  registerConvertFuncToLLVMInterface(registry);
  registerConvertMathToLLVMInterface(registry);
  ub::registerConvertUBToLLVMInterface(registry);
  vector::registerConvertVectorToLLVMInterface(registry);
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
}

struct ObjectEmitter::State {
  const Target &target;
  std::unique_ptr<llvm::TargetMachine> machine;
};

static std::unique_ptr<llvm::TargetMachine> makeMachine(const Target &target) {
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  llvm::Triple triple("x86_64-unknown-linux-gnu");
  std::string error;
  const llvm::Target *backend =
      llvm::TargetRegistry::lookupTarget(triple, error);
  if (!backend)
    return nullptr;
  llvm::TargetOptions options;
  options.AllowFPOpFusion =
      llvm::FPOpFusion::Strict; // fma only where asked for
  return std::unique_ptr<llvm::TargetMachine>(backend->createTargetMachine(
      triple, std::string(target.llvmCpu), target.llvmFeatures(), options,
      llvm::Reloc::PIC_, llvm::CodeModel::Small,
      llvm::CodeGenOptLevel::Default));
}

ObjectEmitter::ObjectEmitter(const Target &target)
    : state(new State{target, makeMachine(target)}) {}
ObjectEmitter::~ObjectEmitter() = default;

static LogicalResult lowerToLLVMDialect(ModuleOp module) {
  PassManager pm(module.getContext());
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  pm.addPass(createSCFToControlFlowPass());
  pm.addPass(createConvertToLLVMPass());
  pm.addPass(createReconcileUnrealizedCastsPass());
  return pm.run(module);
}

static void optimize(llvm::Module &module, llvm::TargetMachine &machine) {
  llvm::PipelineTuningOptions tuning;
  // The generators choose vectors and unrolling; LLVM's own vectorizers would
  // only add remainder loops to theirs.
  tuning.LoopVectorization = false;
  tuning.SLPVectorization = false;
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager graph;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine, tuning);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(graph);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, graph, modules);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O2)
      .run(module, modules);
}

static LogicalResult
writeText(const std::string &path,
          llvm::function_ref<void(llvm::raw_ostream &)> print) {
  std::error_code error;
  llvm::raw_fd_ostream out(path, error);
  if (error) {
    llvm::errs() << "error: cannot write " << path << ": " << error.message()
                 << "\n";
    return failure();
  }
  print(out);
  return success();
}

static bool assemble(llvm::Module &module, llvm::TargetMachine &machine,
                     llvm::raw_pwrite_stream &out, llvm::CodeGenFileType type) {
  llvm::legacy::PassManager passes;
  if (machine.addPassesToEmitFile(passes, out, nullptr, type))
    return false;
  passes.run(module);
  return true;
}

FailureOr<llvm::SmallVector<char, 0>>
ObjectEmitter::emit(ModuleOp module, const std::string &dumpPrefix) {
  if (!state->machine) {
    module.emitError() << "LLVM was built without its x86 backend";
    return failure();
  }
  bool dump = !dumpPrefix.empty();
  if (dump && failed(writeText(dumpPrefix + ".mlir",
                               [&](auto &out) { out << module; })))
    return failure();
  if (failed(lowerToLLVMDialect(module)))
    return failure();
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> ir = translateModuleToLLVMIR(module, context);
  if (!ir)
    return failure();
  ir->setTargetTriple(state->machine->getTargetTriple());
  ir->setDataLayout(state->machine->createDataLayout());
  for (llvm::Function &function : *ir) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", state->target.llvmCpu);
    function.addFnAttr("target-features", state->target.llvmFeatures());
    function.addFnAttr("min-legal-vector-width",
                       std::to_string(state->target.vectorBits));
    function.addFnAttr("prefer-vector-width",
                       std::to_string(state->target.vectorBits));
    function.addFnAttr("no-builtins");
    function.addFnAttr(llvm::Attribute::NoUnwind);
  }
  optimize(*ir, *state->machine);
  if (dump) {
    // Emitting changes the module, so the assembly text comes from a clone.
    std::unique_ptr<llvm::Module> copy = llvm::CloneModule(*ir);
    llvm::SmallString<0> assembly;
    llvm::raw_svector_ostream text(assembly);
    assemble(*copy, *state->machine, text, llvm::CodeGenFileType::AssemblyFile);
    if (failed(writeText(dumpPrefix + ".ll",
                         [&](auto &out) { ir->print(out, nullptr); })) ||
        failed(
            writeText(dumpPrefix + ".s", [&](auto &out) { out << assembly; })))
      return failure();
  }
  llvm::SmallVector<char, 0> object;
  llvm::raw_svector_ostream out(object);
  if (!assemble(*ir, *state->machine, out, llvm::CodeGenFileType::ObjectFile)) {
    module.emitError() << "LLVM cannot emit an object for target "
                       << state->target.name;
    return failure();
  }
  return object;
}

} // namespace quern::host

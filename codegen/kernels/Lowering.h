//===- Lowering.h - Kernel IR to LLVM IR ------------------------*- C++ -*-===//
//
// The way that kernels of every target go down: upstream dialects to the llvm
// dialect, translation, LLVM's pipeline for the target's machine. What a target
// adds is its machine, attributes of functions and the form of its output.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_KERNELS_LOWERING_H
#define QUERN_CODEGEN_KERNELS_LOWERING_H

#include "codegen/target/Target.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/DialectRegistry.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/Passes/OptimizationLevel.h"
#include "llvm/Target/TargetMachine.h"

#include <memory>
#include <string>

namespace quern {

/// Registers the upstream dialects and translations that the generators of all
/// targets use.
void registerCodegenDialects(mlir::DialectRegistry &registry);

/// LLVM's machine for `target`, contracting floating point only where fma is
/// asked for; null when LLVM was built without the backend of `triple`, which
/// the caller has initialized.
std::unique_ptr<llvm::TargetMachine>
makeTargetMachine(llvm::StringRef triple, const Target &target,
                  llvm::CodeGenOptLevel level,
                  std::optional<llvm::Reloc::Model> relocation = std::nullopt,
                  std::optional<llvm::CodeModel::Model> code = std::nullopt);

/// Lowers `module` (scf, arith, math, vector, llvm, nvvm) in place to the llvm
/// dialect and translates it for `machine`. With a `dumpPrefix` the module is
/// first written to PREFIX.mlir. Null after an error, which was reported.
std::unique_ptr<llvm::Module> lowerToLlvmIr(mlir::ModuleOp module,
                                            llvm::LLVMContext &context,
                                            llvm::TargetMachine &machine,
                                            const std::string &dumpPrefix);

/// LLVM's pipeline without its vectorizers: the generators choose vectors and
/// unrolling, and a vectorizer would only add remainder loops to theirs.
void optimize(llvm::Module &module, llvm::TargetMachine &machine,
              llvm::OptimizationLevel level);

/// Emits assembly or an object; changes `module`. False when the backend has no
/// such output.
bool emitCode(llvm::Module &module, llvm::TargetMachine &machine,
              llvm::raw_pwrite_stream &out, llvm::CodeGenFileType type);

/// Writes what `print` prints to the file `path`; reports an error on stderr.
mlir::LogicalResult
writeText(const std::string &path,
          llvm::function_ref<void(llvm::raw_ostream &)> print);

} // namespace quern

#endif // QUERN_CODEGEN_KERNELS_LOWERING_H

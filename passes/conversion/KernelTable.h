//===- KernelTable.h - Kernels of a model, each once ------------*- C++ -*-===//
#ifndef QUERN_PASSES_CONVERSION_KERNELTABLE_H
#define QUERN_PASSES_CONVERSION_KERNELTABLE_H

#include "dialects/rt/Rt.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/StringSet.h"

namespace quern {

/// Outlines `lm.kernel` ops to `rt.kernel` ops of a module, each distinct one
/// once: code size does not grow with the number of bodies.
class KernelTable {
public:
  /// Symbol of the program, which no kernel may have.
  static constexpr llvm::StringLiteral kProgram = "model";

  /// Kernels are appended to `module`, whose functions will all be erased:
  /// their names are free.
  explicit KernelTable(mlir::ModuleOp module)
      : builder(mlir::OpBuilder::atBlockEnd(module.getBody())) {}

  /// The kernel that computes what `op` does, names and ranges apart.
  rt::KernelOp outline(lm::KernelOp op);

private:
  std::string uniqueName(llvm::StringRef name);

  mlir::OpBuilder builder;
  llvm::SmallVector<rt::KernelOp> kernels;
  llvm::StringSet<> names = {kProgram};
};

} // namespace quern

#endif // QUERN_PASSES_CONVERSION_KERNELTABLE_H

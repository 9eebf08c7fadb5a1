//===- Lowering.h - Kernel IR to an object file -----------------*- C++ -*-===//
#ifndef QUERN_CODEGEN_HOST_LOWERING_H
#define QUERN_CODEGEN_HOST_LOWERING_H

#include "codegen/target/Target.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/SmallVector.h"

#include <memory>
#include <string>

namespace quern::host {

/// Makes ELF objects of modules that hold one kernel function each. One
/// instance serves a whole compile; LLVM's target machine is made once.
class ObjectEmitter {
public:
  explicit ObjectEmitter(const Target &target);
  ~ObjectEmitter();

  /// Lowers `module` (scf, arith, math, vector, llvm) in place to the llvm
  /// dialect, optimises and assembles it. With a `dumpPrefix` the three stages
  /// are written to PREFIX.mlir, PREFIX.ll and PREFIX.s.
  mlir::FailureOr<llvm::SmallVector<char, 0>>
  emit(mlir::ModuleOp module, const std::string &dumpPrefix);

private:
  struct State;
  std::unique_ptr<State> state;
};

} // namespace quern::host

#endif // QUERN_CODEGEN_HOST_LOWERING_H

//===- Lowering.h - Kernel IR to PTX ----------------------------*- C++ -*-===//
#ifndef QUERN_CODEGEN_PTX_LOWERING_H
#define QUERN_CODEGEN_PTX_LOWERING_H

#include "codegen/target/Target.h"
#include "mlir/IR/BuiltinOps.h"

#include <memory>
#include <string>

namespace quern::nvptx {

/// Makes PTX of modules that hold one kernel function each. One instance serves
/// a whole compile; LLVM's target machine is made once.
class PtxEmitter {
public:
  explicit PtxEmitter(const Target &target);
  ~PtxEmitter();

  /// Lowers `module` (scf, arith, math, vector, llvm, nvvm) in place to the
  /// llvm dialect, optimises it and prints PTX. With a `dumpPrefix` the three
  /// stages are written to PREFIX.mlir, PREFIX.ll and PREFIX.ptx.
  mlir::FailureOr<std::string> emit(mlir::ModuleOp module,
                                    const std::string &dumpPrefix);

private:
  struct State;
  std::unique_ptr<State> state;
};

} // namespace quern::nvptx

#endif // QUERN_CODEGEN_PTX_LOWERING_H

//===- quern-opt.cpp - Runs passes over textual IR ------------------------===//
#include "dialects/lm/Lm.h"
#include "dialects/rt/Rt.h"
#include "passes/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "mlir/Transforms/Passes.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  registry.insert<mlir::arith::ArithDialect, mlir::func::FuncDialect,
                  quern::lm::LmDialect, quern::rt::RtDialect>();
  mlir::registerTransformsPasses();
  quern::registerPasses();
  return mlir::asMainReturnCode(
      mlir::MlirOptMain(argc, argv, "Quern pass driver\n", registry));
}

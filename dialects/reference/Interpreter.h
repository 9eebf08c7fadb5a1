//===- Interpreter.h - The reference for every op of lm ---------*- C++ -*-===//
//
// A slow and plain interpreter: what it computes is what an op means. Products
// accumulate in double and round once to float; everything that a format or an
// op rounds is rounded. Passes and generated code are tested against it.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_DIALECTS_REFERENCE_INTERPRETER_H
#define QUERN_DIALECTS_REFERENCE_INTERPRETER_H

#include "dialects/lm/Lm.h"
#include "dialects/reference/Tensor.h"
#include "dialects/rt/Rt.h"
#include "mlir/IR/BuiltinOps.h"

#include <functional>

namespace quern::reference {

/// Gives the weight `name` ("blk.3.attn_q.weight") in the shape and format of
/// `type`. `source` is the element type in the model file, where it differs
/// (lm.weight), otherwise null.
using WeightProvider = std::function<mlir::FailureOr<Tensor>(
    llvm::StringRef name, mlir::RankedTensorType type, mlir::Type source)>;

using Data = llvm::SmallVector<Datum>;

/// Runs functions of a module. Errors are diagnostics at the failing op.
class Interpreter {
public:
  Interpreter(mlir::ModuleOp module, WeightProvider weights)
      : module(module), weights(std::move(weights)) {}

  /// Calls function `name`. `layer` replaces `{layer}` in names of weights.
  mlir::FailureOr<Data> runFunction(llvm::StringRef name,
                                    llvm::ArrayRef<Datum> arguments,
                                    int64_t layer = 0);

  /// Runs the module's model on one sequence: logits of every position
  /// (tokens, vocab). The module holds `lm.prologue`, `lm.layers` and
  /// `lm.epilogue`, or an rt.program.
  mlir::FailureOr<Tensor> runModel(llvm::ArrayRef<int32_t> tokens);

  /// Whether runModel() has something to run.
  bool isModel();

private:
  mlir::FailureOr<Tensor> runBodies(llvm::ArrayRef<int32_t> tokens);

  mlir::ModuleOp module;
  WeightProvider weights;
};

/// An empty cache of `type`.
KvCache makeCache(lm::KvCacheType type);

} // namespace quern::reference

#endif // QUERN_DIALECTS_REFERENCE_INTERPRETER_H

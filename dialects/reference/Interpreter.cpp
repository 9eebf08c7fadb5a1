//===- Interpreter.cpp - Functions and whole models -----------------------===//
#include "dialects/reference/Interpreter.h"

#include "dialects/reference/Evaluate.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"

#include <numeric>

using namespace mlir;
using namespace quern;
using namespace quern::reference;

FailureOr<Data> Interpreter::runFunction(StringRef name,
                                         ArrayRef<Datum> arguments,
                                         int64_t layer) {
  auto function = module.lookupSymbol<func::FuncOp>(name);
  if (!function || function.isDeclaration())
    return module.emitOpError() << "has no function @" << name;
  if (function.getNumArguments() != arguments.size())
    return function.emitOpError() << "expected " << function.getNumArguments()
                                  << " arguments, but got " << arguments.size();
  if (!function.getBody().hasOneBlock())
    return function.emitOpError("expected one block");
  return runRegion(function.getBody(), arguments, weights, layer);
}

bool Interpreter::isModel() {
  return module->hasAttr(lm::LmDialect::kLayersAttr) ||
         !module.getOps<rt::ProgramOp>().empty();
}

FailureOr<Tensor> Interpreter::runModel(ArrayRef<int32_t> tokens) {
  for (auto program : module.getOps<rt::ProgramOp>())
    return runProgram(program, tokens, weights);
  return runBodies(tokens);
}

/// The function's only result, a tensor.
static FailureOr<Datum> single(FailureOr<Data> results) {
  if (failed(results) || results->empty())
    return failure();
  return results->front();
}

FailureOr<Tensor> Interpreter::runBodies(ArrayRef<int32_t> tokens) {
  auto body = [&](StringRef attr) {
    return module->getAttrOfType<FlatSymbolRefAttr>(attr);
  };
  FlatSymbolRefAttr prologue = body(lm::LmDialect::kPrologueAttr);
  FlatSymbolRefAttr epilogue = body(lm::LmDialect::kEpilogueAttr);
  auto layers = module->getAttrOfType<ArrayAttr>(lm::LmDialect::kLayersAttr);
  if (!prologue || !epilogue || !layers)
    return module.emitOpError(
        "expected lm.prologue, lm.layers and lm.epilogue");

  const int64_t rows = tokens.size();
  Tensor ids = Tensor::makeIndices({rows});
  llvm::copy(tokens, ids.indices.begin());
  Tensor iota = Tensor::makeIndices({rows});
  std::iota(iota.indices.begin(), iota.indices.end(), 0);
  const Datum positions = datum(std::move(iota));

  FailureOr<Datum> x =
      single(runFunction(prologue.getValue(), {datum(std::move(ids))}));
  for (auto [index, layer] :
       llvm::enumerate(layers.getAsRange<FlatSymbolRefAttr>())) {
    auto function = module.lookupSymbol<func::FuncOp>(layer.getAttr());
    if (failed(x) || !function || function.getNumArguments() != 3)
      return failure();
    auto type = dyn_cast<lm::KvCacheType>(function.getArgumentTypes()[2]);
    if (!type)
      return function.emitOpError("expected (x, positions, cache)");
    x = single(runFunction(layer.getValue(),
                           {*x, positions, datum(makeCache(type))}, index));
  }
  if (failed(x))
    return failure();
  x = single(runFunction(epilogue.getValue(), {*x, positions}));
  if (failed(x))
    return failure();
  return *std::get<std::shared_ptr<const Tensor>>(*x);
}

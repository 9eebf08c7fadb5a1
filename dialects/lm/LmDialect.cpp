//===- LmDialect.cpp - Registration and module attributes -----------------===//
#include "dialects/lm/Lm.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/SymbolTable.h"

using namespace mlir;
using namespace quern;
using namespace quern::lm;

#include "dialects/lm/LmDialect.cpp.inc"

void LmDialect::initialize() {
  registerAttributes();
  registerTypes();
  addOperations<
#define GET_OP_LIST
#include "dialects/lm/LmOps.cpp.inc"
      >();
}

/// Checks that `attr` names a symbol of the module `op`.
static LogicalResult verifyBody(Operation *op, StringRef name, Attribute attr) {
  auto symbol = dyn_cast<FlatSymbolRefAttr>(attr);
  if (!symbol)
    return op->emitOpError()
           << "expected '" << name << "' to name a function, but got " << attr;
  if (!SymbolTable::lookupSymbolIn(op, symbol))
    return op->emitOpError()
           << "expected '" << name << "' to name a function of the module, but "
           << symbol << " is not defined";
  return success();
}

LogicalResult LmDialect::verifyOperationAttribute(Operation *op,
                                                  NamedAttribute attribute) {
  StringRef name = attribute.getName();
  if (!isa<ModuleOp>(op))
    return op->emitOpError() << "expected '" << name << "' on a module only";
  if (name == kModelAttr) {
    if (!isa<DictionaryAttr>(attribute.getValue()))
      return op->emitOpError()
             << "expected '" << name << "' to be a dictionary";
    return success();
  }
  if (name == kPrologueAttr || name == kEpilogueAttr)
    return verifyBody(op, name, attribute.getValue());
  if (name != kLayersAttr)
    return op->emitOpError() << "has unknown attribute '" << name << "'";
  auto layers = dyn_cast<ArrayAttr>(attribute.getValue());
  if (!layers)
    return op->emitOpError() << "expected '" << name << "' to be an array";
  for (Attribute layer : layers)
    if (failed(verifyBody(op, name, layer)))
      return failure();
  return success();
}

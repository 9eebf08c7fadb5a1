//===- KernelTable.cpp - Kernels of a model, each once --------------------===//
#include "passes/conversion/KernelTable.h"

#include "mlir/IR/IRMapping.h"
#include "mlir/IR/OperationSupport.h"

using namespace mlir;

namespace quern {

/// Whether the code of `known` serves `op`.
static bool isSame(lm::KernelOp op, rt::KernelOp known) {
  return op.getSplit() == known.getSplit() &&
         op.getTilesAttr() == known.getTilesAttr() &&
         OperationEquivalence::isRegionEquivalentTo(
             &op.getBody(), &known.getBody(),
             OperationEquivalence::IgnoreLocations);
}

std::string KernelTable::uniqueName(StringRef name) {
  std::string unique = name.str();
  for (int i = 1; !names.insert(unique).second; ++i)
    unique = (name + "_" + Twine(i)).str();
  return unique;
}

rt::KernelOp KernelTable::outline(lm::KernelOp op) {
  for (rt::KernelOp known : kernels)
    if (isSame(op, known))
      return known;
  auto type = builder.getFunctionType(op.getBody().front().getArgumentTypes(),
                                      op.getOutputs().getTypes());
  auto kernel =
      rt::KernelOp::create(builder, op.getLoc(), uniqueName(op.getName()), type,
                           op.getSplit(), op.getTilesAttr());
  IRMapping mapping;
  op.getBody().cloneInto(&kernel.getBody(), mapping);
  kernels.push_back(kernel);
  return kernel;
}

} // namespace quern

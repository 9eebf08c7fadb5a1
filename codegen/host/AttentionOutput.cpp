//===- AttentionOutput.cpp ------------------------------------------------===//
#include "codegen/host/AttentionOutput.h"
#include "codegen/host/PackedLayout.h"

using namespace mlir;

namespace quern::host {

static void storeNumeric(Kernel &k, Value result, int64_t width,
                         int64_t headDim, Value row, Value head,
                         function_ref<Value(int64_t)> columns) {
  Emitter &e = k.e;
  Value target = e.at(result, row, activationRowBytes(width));
  Value first = e.mul(head, e.index(headDim / kPackedGroup));
  for (int64_t column = 0; column < headDim; column += kPackedGroup)
    storeActivationGroup(k, target, width,
                         e.add(first, e.index(column / kPackedGroup)),
                         columns(column), columns(column + kLanes));
}

void storeHead(Kernel &k, const AttentionPlan &plan, int64_t headDim, Value row,
               Value head, function_ref<Value(int64_t)> columns) {
  Emitter &e = k.e;
  const int64_t width = plan.heads * headDim;
  for (auto [i, value] : llvm::enumerate(k.yielded())) {
    if (k.hasNumericRows(value)) {
      storeNumeric(k, k.result(i), width, headDim, row, head, columns);
      continue;
    }
    Value first =
        e.add(e.mul(row, e.index(width)), e.mul(head, e.index(headDim)));
    Value target = e.at(k.result(i), first, 4);
    for (int64_t column = 0; column < headDim; column += kLanes)
      e.store(columns(column), e.offset(target, column * 4));
  }
}

} // namespace quern::host

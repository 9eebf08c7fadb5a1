//===- KernelArgs.cpp -----------------------------------------------------===//
#include "codegen/kernels/KernelArgs.h"

using namespace mlir;

namespace quern {

static unsigned pointersOf(Value argument) {
  return isa<lm::KvCacheType>(argument.getType()) ? KvArgs::kCount : 1;
}

unsigned pointerCount(rt::KernelOp op) {
  unsigned count = 0;
  for (Value argument : op.getBody().front().getArguments())
    count += pointersOf(argument);
  for (Value value : op.getBody().front().getTerminator()->getOperands())
    count += !isa<lm::KvCacheType>(value.getType());
  return count;
}

//===----------------------------------------------------------------------===//
// KernelArgs
//===----------------------------------------------------------------------===//

Operation *KernelArgs::onlyOp() {
  Operation &first = body().front();
  return first.getNextNode() == body().getTerminator() ? &first : nullptr;
}

/// Place of block argument `argument`; past the last one, of the first result.
unsigned KernelArgs::positionOf(unsigned argument) {
  unsigned position = 0;
  for (unsigned i = 0; i < argument; ++i)
    position += pointersOf(body().getArgument(i));
  return position;
}

Value KernelArgs::argument(Value value) {
  return pointerAt(positionOf(cast<BlockArgument>(value).getArgNumber()));
}

KvArgs KernelArgs::kvArgument(Value value) {
  unsigned at = positionOf(cast<BlockArgument>(value).getArgNumber());
  return {pointerAt(at),     pointerAt(at + 1), pointerAt(at + 2),
          pointerAt(at + 3), pointerAt(at + 4), pointerAt(at + 5)};
}

Value KernelArgs::result(unsigned i) {
  return pointerAt(positionOf(body().getNumArguments()) + i);
}

std::pair<Value, Value> KernelArgs::columns(unsigned i, int64_t width) {
  if (splitShares())
    return {rangeBegin(i), rangeEnd(i)};
  return {ir.index(0), ir.index(width)};
}

bool KernelArgs::hasNumericRows(Value value) const {
  return isActivation(value) ||
         (target.isGpu() && formatOf(value) != BlockFormat::F32);
}

int64_t KernelArgs::rowBytes(Value value) const {
  return hasNumericRows(value) ? activationRowBytes(columnsOf(value))
                               : 4 * columnsOf(value);
}

Value KernelArgs::activationRow(Value buffer, Value row, int64_t columns) {
  return ir.offset(buffer, ir.mul(row, ir.index(activationRowBytes(columns))));
}

Value KernelArgs::intAt(Value pointer, Value i) {
  Value at = ir.offset(pointer, ir.mul(i, ir.index(4)));
  return ir.extend(ir.load(ir.i32(), at, 4), ir.i64());
}

KvPlace KernelArgs::kvPlace(const KvArgs &kv, const KvLayout &layout,
                            Value row) {
  Value slot = intAt(kv.slots, row), sequence = intAt(kv.sequences, row);
  Value page = ir.index(layout.page);
  Value entry = ir.add(ir.mul(sequence, pageTableStride()), ir.div(slot, page));
  Value number = intAt(kv.pageTable, entry);
  return {ir.offset(kv.pool, kvPageOffset(layout, number)), ir.rem(slot, page)};
}

Value KernelArgs::kvPageOffset(const KvLayout &layout, Value page) {
  if (layout.pageRun == 1)
    return ir.mul(page, pageBytes());
  Value run = ir.index(layout.pageRun);
  return ir.add(
      ir.mul(ir.div(page, run), ir.index(layout.pageRun * layout.pageBytes())),
      ir.mul(ir.rem(page, run), ir.index(layout.headBytes())));
}

InFlightDiagnostic KernelArgs::emitError() {
  InFlightDiagnostic diagnostic = op.emitError("kernel ");
  diagnostic << op.getSymName() << " for " << std::string(target.name) << "/"
             << std::string(roleName(role)) << ": ";
  return diagnostic;
}

//===----------------------------------------------------------------------===//
// RowBuffers
//===----------------------------------------------------------------------===//

RowBuffers::RowBuffers(KernelArgs &k, IrEmitter &e) : k(k), e(e) {
  auto isRows = [](Value value) {
    return isa<RankedTensorType>(value.getType());
  };
  for (Value argument :
       llvm::make_filter_range(k.body().getArguments(), isRows))
    pointers[argument] = k.argument(argument);
  unsigned nextResult = 0;
  for (Value value : llvm::make_filter_range(k.yielded(), isRows))
    pointers[value] = k.result(nextResult++);
  for (Operation &op : k.body().without_terminator())
    for (Value value : llvm::make_filter_range(op.getResults(), isRows))
      if (!pointers.count(value))
        pointers[value] = k.temporary(k.rowBytes(value));
}

Value RowBuffers::row(Value value, Value row) {
  if (!isa<BlockArgument>(value) && !llvm::is_contained(k.yielded(), value))
    return pointers[value];
  if (k.hasNumericRows(value))
    return k.activationRow(pointers[value], row, columnsOf(value));
  return e.offset(pointers[value], e.mul(row, e.index(k.rowBytes(value))));
}

Value RowBuffers::shareRow(Value partials, int64_t share, Value row) {
  Value at = e.add(e.mul(k.rows(), e.index(share)), row);
  return e.offset(pointers[partials], e.mul(at, e.index(k.rowBytes(partials))));
}

} // namespace quern

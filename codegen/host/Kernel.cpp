//===- Kernel.cpp ---------------------------------------------------------===//
#include "codegen/host/Kernel.h"

#include "runtime/schema/kernel_abi.h"

using namespace mlir;

namespace quern::host {

Kernel::Kernel(Emitter &e, rt::KernelOp op, Role role, int64_t context,
               ValueRange parameters)
    : KernelArgs(e, op, e.target, role), e(e), context(context),
      args(parameters[0]), dims(parameters[1]), ranges(parameters[2]) {
  rowCount = e.load(e.i64(), dims, 8);
  scratchBase = pointerAt(pointerCount(op));
}

Value Kernel::pointerAt(unsigned position) {
  return e.load(e.ptrType(), e.offset(args, int64_t{8} * position), 8);
}

Value Kernel::dim(unsigned i) {
  if (i == kDimRows) // used in the loops of many kernels: loaded once
    return rowCount;
  return e.load(e.i64(), e.offset(dims, int64_t{8} * i), 8);
}

Value Kernel::rangeEdge(unsigned i) {
  return e.load(e.i64(), e.offset(ranges, int64_t{8} * i), 8);
}

Value Kernel::temporary(int64_t bytes) {
  Value piece = e.offset(scratchBase, scratchUsed);
  scratchUsed += (bytes + 63) / 64 * 64;
  return piece;
}

/// int8 numerics: q = round(x * 127 / amax), its scale, the sums of both
/// halves.
static void storeInt8Group(Kernel &k, Value row, int64_t columns, Value group,
                           Value low, Value high) {
  Emitter &e = k.e;
  Value amax = e.reduceMax(e.maxF(e.absF(low), e.absF(high)));
  Value zero = e.constant(e.f32(), 0.0);
  // 127 / amax must stay finite, so a group of denormals counts as zeros.
  Value isZero = e.less(amax, e.constant(e.f32(), 1e-30));
  Value inverse =
      e.select(isZero, zero, e.div(e.constant(e.f32(), 127.0), amax));
  Value scale = e.div(amax, e.constant(e.f32(), 127.0));
  e.store(scale,
          e.offset(e.offset(row, activationScaleOffset(columns)),
                   e.mul(group, e.index(4))),
          4);
  Value spread = e.broadcast(inverse);
  Value halves[2] = {low, high};
  for (int half = 0; half < 2; ++half) {
    Value q = e.toInt(e.roundEven(e.mul(halves[half], spread)), e.i32());
    Value at = e.add(e.mul(group, e.index(2)), e.index(half));
    e.store(e.truncate(q, e.i8()), e.offset(row, e.mul(at, e.index(16))));
    e.store(e.reduceAdd(q),
            e.offset(e.offset(row, activationSumOffset(columns)),
                     e.mul(at, e.index(4))),
            4);
  }
}

void storeActivationGroup(Kernel &k, Value row, int64_t columns, Value group,
                          Value low, Value high) {
  Emitter &e = k.e;
  if (k.numerics == Numerics::Int8)
    return storeInt8Group(k, row, columns, group, low, high);
  Value at = e.offset(row, e.mul(group, e.index(64)));
  e.store(e.roundToBf16Bits(low), at);
  e.store(e.roundToBf16Bits(high), e.offset(at, 32));
}

void storeColumns(Kernel &k, Value pointer, Value row, Value column,
                  int64_t outputs, Value biasPointer, Value values) {
  Emitter &e = k.e;
  Value columnBytes = e.mul(column, e.index(4));
  if (biasPointer)
    values = e.add(values, e.load(values.getType(),
                                  e.offset(biasPointer, columnBytes), 4));
  Value at = e.offset(e.offset(pointer, e.mul(row, e.index(outputs * 4))),
                      columnBytes);
  int64_t tail = outputs % kLanes;
  if (tail == 0)
    return e.store(values, at, 4);
  Value full = e.less(column, e.index(outputs - tail));
  e.ifElse(
      full, [&] { e.store(values, at, 4); },
      [&] { e.storePartial(values, at, tail); });
}

KvLayout kvLayout(lm::KvCacheType type) { return KvLayout(type, kKvPageRun); }

LogicalResult checkKvCache(Kernel &k, lm::KvCacheType type) {
  if (KvLayout(type).isInt8)
    return k.emitError() << "keys and values in int8 are for GPUs";
  return success();
}

ArrayRef<KernelGenerator<Kernel>> kernelGenerators() {
  static const KernelGenerator<Kernel> generators[] = {
      {"amx-matmul", KernelFamily::Matmul, matchesAmxMatmul, generateAmxMatmul,
       "products of numeric rows, which the tile registers take",
       /*inNumerics=*/true},
      {"matmul", KernelFamily::Matmul, matchesMatmul, generateMatmul,
       "products of numeric rows, in vectors",
       /*inNumerics=*/true},
      {"float-matmul", KernelFamily::FloatMatmul, matchesFloatMatmul,
       generateMatmul, "products of float rows, in vectors"},
      {"attention", KernelFamily::Attention, matchesAttention,
       generateAttention, "attention over pages"},
      {"rope-append", KernelFamily::Rows, matchesRopeAppend, generateRopeAppend,
       "rotary embedding, and the cache that it goes to"},
      {"lookup", KernelFamily::Rows, matchesLookup, generateLookup,
       "rows picked by index"},
      {"rowwise", KernelFamily::Rows, matchesRowwise, generateRowwise,
       "ops that work row by row"},
  };
  return generators;
}

} // namespace quern::host

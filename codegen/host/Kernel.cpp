//===- Kernel.cpp ---------------------------------------------------------===//
#include "codegen/host/Kernel.h"

#include "runtime/schema/kernel_abi.h"

using namespace mlir;

namespace quern::host {

Kernel::Kernel(Emitter &e, rt::KernelOp op, Role role, ValueRange parameters)
    : KernelArgs(e, op, e.target, role), e(e), args(parameters[0]),
      dims(parameters[1]), ranges(parameters[2]) {
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

/// int8 numerics: of both halves q = round(x * 127 / amax), the scale, and that
/// times the sum of q, which is added up for both too.
static void storeInt8Group(Kernel &k, Value row, int64_t columns, Value group,
                           Value low, Value high) {
  Emitter &e = k.e;
  static_assert(kActivationGroup == kLanes);
  Value amax = e.reduceMaxBoth(e.absF(low), e.absF(high));
  auto constant = [&](double value) {
    return e.constant(amax.getType(), value);
  };
  // 127 / amax must stay finite, so a group of denormals counts as zeros.
  Value inverse = e.select(e.less(amax, constant(1e-30)), constant(0.0),
                           e.div(constant(127.0), amax));
  Value halves[2] = {low, high};
  for (int half = 0; half < 2; ++half) {
    Value spread =
        e.shuffle(inverse, inverse, SmallVector<int32_t>(kLanes, half));
    halves[half] = e.toInt(e.roundEven(e.mul(halves[half], spread)), e.i32());
    e.store(e.truncate(halves[half], e.i8()),
            e.offset(row, e.add(e.mul(group, e.index(2 * kActivationGroup)),
                                e.index(half * kActivationGroup))));
  }
  auto store = [&](Value values, int64_t offset, int64_t bytes) {
    e.store(values, e.at(e.offset(row, offset), group, bytes), 4);
  };
  Value scale = e.div(amax, constant(127.0));
  Value sum = e.reduceAddBoth(halves[0], halves[1]);
  store(scale, activationScaleOffset(columns), 8);
  Value scaled = e.mul(scale, e.toFloat(sum, e.f32()));
  store(scaled, activationSumOffset(columns), 8);
  store(e.reduceAdd(scaled), activationPairSumOffset(columns), 4);
}

void storeActivationGroup(Kernel &k, Value row, int64_t columns, Value group,
                          Value low, Value high) {
  Emitter &e = k.e;
  if (k.numerics == Numerics::Int8)
    return storeInt8Group(k, row, columns, group, low, high);
  Value at = e.at(row, group, 64);
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
  Value at = e.offset(e.at(pointer, row, outputs * 4), columnBytes);
  int64_t tail = outputs % kLanes;
  if (tail == 0)
    return e.store(values, at, 4);
  Value full = e.less(column, e.index(outputs - tail));
  e.ifElse(
      full, [&] { e.store(values, at, 4); },
      [&] { e.storePartial(values, at, tail); });
}

KvLayout kvLayout(lm::KvCacheType type) { return KvLayout(type, KvHome::Host); }

LogicalResult checkKvCache(Kernel &k, lm::KvCacheType type, int64_t unit) {
  if (KvLayout(type).isInt8)
    return k.emitError() << "keys and values in int8 are for GPUs";
  if (type.getHeadDim() % unit != 0)
    return k.emitError() << "expected head_dim to be a multiple of " << unit
                         << ", got " << type.getHeadDim();
  return success();
}

ArrayRef<KernelGenerator<Kernel>> kernelGenerators() {
  static const KernelGenerator<Kernel> generators[] = {
      {"amx-matmul", KernelFamily::Matmul, matchesAmxMatmul, generateAmxMatmul,
       "products of numeric rows, which the tile registers take",
       kKernelArithmetic},
      {"matmul", KernelFamily::Matmul, matchesMatmul, generateMatmul,
       "products of numeric rows, in vectors", kKernelArithmetic},
      {"float-matmul", KernelFamily::FloatMatmul, matchesFloatMatmul,
       generateMatmul, "products of float rows, in vectors"},
      {"fixed-attention", KernelFamily::Attention, matchesFixedAttention,
       generateAttention, "attention over pages of 16-bit numbers",
       Numerics::Int16},
      {"attention", KernelFamily::Attention, matchesAttention,
       generateAttention, "attention over pages of floats"},
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

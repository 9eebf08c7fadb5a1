//===- TopKKernel.cpp - The best logits of a row --------------------------===//
//
// lm.top_k, a block per row. Elements are compared as 64-bit keys: the float,
// mapped to an integer of the same order, above the complement of its column,
// so that keys differ and the first of equal elements is the largest.
//
// k = 1 is a maximum. Otherwise every thread takes the largest key of its own
// columns; the k-th of these is a threshold that at least k keys reach. The
// keys that do are collected and sorted. If they are too many for shared
// memory, the threshold is raised by bisection until they fit.
//
//===----------------------------------------------------------------------===//
#include "codegen/ptx/Kernel.h"

#include <limits>

using namespace mlir;

namespace quern::nvptx {
namespace {

constexpr int64_t kLogThreads = 10, kThreads = 1 << kLogThreads;
/// Keys that may be collected.
constexpr int64_t kLogCapacity = 11, kCapacity = 1 << kLogCapacity;
/// The largest k.
constexpr int64_t kMostK = 256;
/// Below every key.
constexpr int64_t kNoKey = std::numeric_limits<int64_t>::min();
constexpr int64_t kNaNOrder = 0x7fffffff;

class TopKEmitter {
public:
  TopKEmitter(Kernel &k, lm::TopKOp op)
      : k(k), e(k.e), columns(columnsOf(op.getX())), count(op.getK()), op(op) {}

  void emit();

private:
  Value key(Value column);
  /// Keys of this thread's columns, one after the other.
  void forKeys(function_ref<void(Value key)> body);
  void leaveMaximum();
  void emitMaximum();
  void emitSelection();
  /// One try: collects the keys from the threshold on and moves the bounds.
  void collect();
  /// Sorts 2^levels keys, the largest first; levels is i64.
  void sort(Value levels);
  void storeResult(Value place, Value key);

  Value keyAt(Value i) { return e.at(keys, i, 8); }
  Value loadKey(Value i) { return e.load(e.i64(), keyAt(i), 8); }
  void storeKey(Value key, Value i) { e.store(key, keyAt(i), 8); }
  /// An i64 that all threads share.
  Value get(int64_t place) {
    return e.load(e.i64(), e.offset(shared, 8 * place), 8);
  }
  void set(int64_t place, Value value) {
    e.store(value, e.offset(shared, 8 * place), 8);
  }
  void onOneThread(function_ref<void()> body) {
    e.ifThen(e.equal(e.thread(), e.index(0)), body);
  }

  /// What `shared` holds: at least k keys reach `low`, fewer reach `high`.
  enum { Low, High, Threshold, Done, Count, SharedCount };

  Kernel &k;
  Emitter &e;
  int64_t columns, count;
  lm::TopKOp op;
  Value x; ///< the row
  Value row, keys, shared;
};

Value TopKEmitter::key(Value column) {
  Value bits = e.load(e.i32(), e.at(x, column, 4), 4);
  auto c = [&](int64_t value) { return e.constant(e.i32(), value); };
  Value largest = c(kNaNOrder);
  Value magnitude = e.andI(bits, largest);
  Value order =
      e.select(e.less(bits, c(0)), e.sub(largest, bits), bits); // wraps
  order = e.select(e.equal(magnitude, c(0)), c(0), order);      // -0 is 0
  order = e.select(e.less(c(0x7f800000), magnitude), largest, order);
  Value low = e.sub(e.index(0xffffffff), column);
  return e.orI(e.shl(e.extend(order, e.i64()), e.index(32)), low);
}

void TopKEmitter::forKeys(function_ref<void(Value)> body) {
  e.forLoop(e.thread(), e.index(columns), kThreads,
            [&](Value column) { body(key(column)); });
}

void TopKEmitter::leaveMaximum() {
  Value best =
      e.forLoop(e.thread(), e.index(columns), kThreads, {e.index(kNoKey)},
                [&](Value column, ValueRange best) {
                  return Emitter::Values{e.maxI(best.front(), key(column))};
                })
          .front();
  storeKey(best, e.thread());
  e.barrier();
}

void TopKEmitter::emitMaximum() {
  leaveMaximum();
  for (int64_t half = kThreads / 2; half > 0; half /= 2) {
    e.ifThen(e.less(e.thread(), e.index(half)), [&] {
      Value other = loadKey(e.add(e.thread(), e.index(half)));
      storeKey(e.maxI(loadKey(e.thread()), other), e.thread());
    });
    e.barrier();
  }
  onOneThread([&] { storeResult(e.index(0), loadKey(e.index(0))); });
}

/// A bitonic network: runs of 2^level keys are sorted, in turns up and down.
void TopKEmitter::sort(Value levels) {
  Value one = e.index(1), pairs = e.shl(one, e.sub(levels, one));
  e.forLoop(one, e.add(levels, one), 1, [&](Value level) {
    e.forLoop(e.index(0), level, 1, [&](Value step) {
      Value log = e.sub(e.sub(level, one), step), stride = e.shl(one, log);
      e.forLoop(e.thread(), pairs, kThreads, [&](Value pair) {
        Value inStride = e.andI(pair, e.sub(stride, one));
        Value run = e.shrU(pair, log);
        Value first = e.add(e.shl(run, e.add(log, one)), inStride);
        Value second = e.add(first, stride);
        Value a = loadKey(first), b = loadKey(second);
        Value larger = e.maxI(a, b), smaller = e.minI(a, b);
        Value down = e.equal(e.andI(e.shrU(first, level), one), e.index(0));
        storeKey(e.select(down, larger, smaller), first);
        storeKey(e.select(down, smaller, larger), second);
      });
      e.barrier();
    });
  });
}

void TopKEmitter::collect() {
  Value threshold = get(Threshold);
  forKeys([&](Value candidate) {
    e.ifThen(
        e.equal(e.less(candidate, threshold), e.constant(e.b.getI1Type(), 0)),
        [&] {
          Value place = e.atomicAdd(e.offset(shared, 8 * Count), e.index(1));
          e.ifThen(e.less(place, e.index(kCapacity)),
                   [&] { storeKey(candidate, place); });
        });
  });
  e.barrier();
  onOneThread([&] {
    Value found = get(Count);
    Value few = e.less(found, e.index(count));
    Value many = e.less(e.index(kCapacity), found);
    Value low = e.select(many, threshold, get(Low));
    Value high = e.select(few, threshold, get(High));
    set(Low, low);
    set(High, high);
    set(Done, e.extendUnsigned(
                  e.equal(e.orI(few, many), e.constant(e.b.getI1Type(), 0)),
                  e.i64()));
    e.ifThen(e.orI(few, many), [&] {
      // Halfway between, without leaving 64 bits.
      Value distance = e.shrU(e.sub(high, low), e.index(1));
      set(Threshold, e.add(low, distance));
      set(Count, e.index(0));
    });
  });
  e.barrier();
}

void TopKEmitter::emitSelection() {
  leaveMaximum();
  sort(e.index(kLogThreads));
  onOneThread([&] {
    Value threshold = loadKey(e.index(count - 1));
    set(Low, threshold);
    set(High, e.add(loadKey(e.index(0)), e.index(1)));
    set(Threshold, threshold);
    set(Done, e.index(0));
    set(Count, e.index(0));
  });
  e.barrier();
  // The bounds are 64 bits apart at most.
  e.forLoop(e.index(0), e.index(65), 1, [&](Value) {
    e.ifThen(e.equal(get(Done), e.index(0)), [&] { collect(); });
  });
  Value found = get(Count);
  e.forLoop(e.add(found, e.thread()), e.index(kCapacity), kThreads,
            [&](Value place) { storeKey(e.index(kNoKey), place); });
  e.barrier();
  sort(e.index(kLogCapacity));
  e.ifThen(e.less(e.thread(), e.index(count)),
           [&] { storeResult(e.thread(), loadKey(e.thread())); });
}

void TopKEmitter::storeResult(Value place, Value key) {
  Value column = e.sub(e.index(0xffffffff), e.andI(key, e.index(0xffffffff)));
  Value at = e.mul(e.add(e.mul(row, e.index(count)), place), e.index(4));
  Value value = e.load(e.f32(), e.at(x, column, 4), 4);
  for (auto [i, result] : llvm::enumerate(k.yielded())) {
    Value target = e.offset(k.result(i), at);
    if (result == op.getValues())
      e.store(value, target, 4);
    else
      e.store(e.truncate(column, e.i32()), target, 4);
  }
}

void TopKEmitter::emit() {
  k.launch.blockThreads = kThreads;
  k.launch.grid = {{GridCount::Rows, 1}};
  keys = k.shared(8 * (count == 1 ? kThreads : kCapacity));
  shared = k.shared(8 * SharedCount);
  row = e.add(k.rangeBegin(0), e.block(0));
  x = e.at(k.argument(op.getX()), row, 4 * columns);
  if (count == 1)
    emitMaximum();
  else
    emitSelection();
}

} // namespace

bool matchesTopK(Kernel &k) { return isa_and_nonnull<lm::TopKOp>(k.onlyOp()); }

LogicalResult generateTopK(Kernel &k) {
  auto op = cast<lm::TopKOp>(k.onlyOp());
  int64_t columns = columnsOf(op.getX());
  if (ShapedType::isDynamic(columns) ||
      static_cast<int64_t>(op.getK()) > kMostK)
    return k.emitError() << "keeps at most " << kMostK
                         << " of a known number of columns";
  TopKEmitter(k, op).emit();
  return success();
}

} // namespace quern::nvptx

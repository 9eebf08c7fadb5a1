//===- Kernel.cpp ---------------------------------------------------------===//
#include "codegen/ptx/Kernel.h"

#include "runtime/schema/kernel_abi.h"

using namespace mlir;

namespace quern::nvptx {

void Kernel::addRanges(unsigned segments) {
  while (entry->getNumArguments() < firstDim + kDimCount + 2 * segments)
    entry->addArgument(e.i64(), e.loc);
}

Value Kernel::rangeEdge(unsigned i) {
  addRanges(i / 2 + 1);
  return entry->getArgument(firstDim + kDimCount + i);
}

Value Kernel::shared(int64_t bytes) {
  if (!sharedBase) {
    auto module = entry->getParentOp()->getParentOfType<ModuleOp>();
    OpBuilder builder = OpBuilder::atBlockBegin(module.getBody());
    auto type = LLVM::LLVMArrayType::get(e.i8(), 0);
    std::string name = ("shared_" + op.getSymName()).str();
    auto global =
        LLVM::GlobalOp::create(builder, e.loc, type, /*isConstant=*/false,
                               LLVM::Linkage::External, name, Attribute(),
                               /*alignment=*/128, kShared);
    OpBuilder::InsertionGuard guard(e.b);
    e.b.setInsertionPointToStart(entry);
    sharedBase = LLVM::AddressOfOp::create(e.b, e.loc, global);
  }
  Value piece = e.offset(sharedBase, static_cast<int64_t>(launch.sharedBytes));
  launch.sharedBytes += (bytes + 127) / 128 * 128;
  return piece;
}

/// Two pointers between the arguments and the dims.
Kernel::Workspace Kernel::workspace(int64_t bytesPerRow,
                                    int64_t countersPerRow) {
  assert(launch.workspaceBytesPerRow == 0 && "a kernel has one workspace");
  launch.workspaceBytesPerRow = bytesPerRow;
  launch.countersPerRow = countersPerRow;
  auto type = e.ptrType(kGlobal);
  Workspace made = {entry->insertArgument(firstDim, type, e.loc),
                    entry->insertArgument(firstDim + 1, type, e.loc)};
  firstDim += 2;
  return made;
}

Value halfRowOffset(Emitter &e, Value column) {
  // Bits of k, from the top: c1 c0 s j h; of the position: s h c1 c0 j.
  auto bits = [&](int from, int count, int to) {
    Value part =
        e.andI(e.shrU(column, e.index(from)), e.index((1 << count) - 1));
    return e.shl(part, e.index(to + 1)); // two bytes an element
  };
  Value upper = e.orI(bits(2, 1, 4), bits(0, 1, 3));
  return e.orI(upper, e.orI(bits(3, 2, 1), bits(1, 1, 0)));
}

/// int8 numerics: q = round(x * 127 / amax), its scale, the sums of both
/// halves.
static void storeInt8(Kernel &k, Value row, int64_t columns, Value group,
                      Value lane, Value x) {
  Emitter &e = k.e;
  Value amax = e.warpMax(e.absF(x));
  Value zero = e.constant(e.f32(), 0.0);
  // 127 / amax must stay finite, so a group of denormals counts as zeros.
  Value isZero = e.less(amax, e.constant(e.f32(), 1e-30));
  Value inverse =
      e.select(isZero, zero, e.div(e.constant(e.f32(), 127.0), amax));
  Value q = e.toInt(e.roundEven(e.mul(x, inverse)), e.i32());
  Value at = e.add(e.mul(group, e.index(32)), lane);
  e.store(e.truncate(q, e.i8()), e.offset(row, at));
  Value sum = e.warpSum(q, 16);
  e.ifThen(e.equal(e.rem(lane, e.index(16)), e.index(0)), [&] {
    Value half = e.add(e.mul(group, e.index(2)), e.div(lane, e.index(16)));
    e.store(sum,
            e.offset(e.offset(row, activationSumOffset(columns)),
                     e.mul(half, e.index(4))),
            4);
  });
  e.ifThen(e.equal(lane, e.index(0)), [&] {
    Value scale = e.div(amax, e.constant(e.f32(), 127.0));
    e.store(scale,
            e.offset(e.offset(row, activationScaleOffset(columns)),
                     e.mul(group, e.index(4))),
            4);
  });
}

void storeActivation(Kernel &k, Value row, int64_t columns, Value group,
                     Value lane, Value x) {
  if (k.numerics == Numerics::Int8)
    return storeInt8(k, row, columns, group, lane, x);
  Emitter &e = k.e;
  Value at = e.add(e.mul(group, e.index(64)), halfRowOffset(e, lane));
  e.store(e.truncate(x, e.f16()), e.offset(row, at), 2);
}

ArrayRef<KernelGenerator<Kernel>> kernelGenerators() {
  static const KernelGenerator<Kernel> generators[] = {
      {"vector-matmul", KernelFamily::Matmul, matchesVectorMatmul,
       generateVectorMatmul},
      {"vector-attention", KernelFamily::Attention, matchesVectorAttention,
       generateVectorAttention},
      {"rope-append", KernelFamily::Rows, matchesRopeAppend,
       generateRopeAppend},
      {"lookup", KernelFamily::Rows, matchesLookup, generateLookup},
      {"top-k", KernelFamily::Rows, matchesTopK, generateTopK},
      {"rowwise", KernelFamily::Rows, matchesRowwise, generateRowwise},
  };
  return generators;
}

} // namespace quern::nvptx

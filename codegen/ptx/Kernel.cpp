//===- Kernel.cpp ---------------------------------------------------------===//
#include "codegen/ptx/Kernel.h"

#include "runtime/schema/kernel_abi.h"

#include <numeric>

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

SmallVector<int64_t> Kernel::rangeSizes(unsigned segment) {
  SmallVector<int64_t> sizes;
  op->getParentOfType<ModuleOp>().walk([&](rt::DispatchOp dispatch) {
    lm::RangesAttr ranges = dispatch.getRangesAttr();
    if (dispatch.getKernel() != op.getSymName() || !ranges)
      return;
    for (int64_t share = 0; share < ranges.getShares(); ++share)
      sizes.push_back(ranges.getEnd(share, segment) -
                      ranges.getBegin(share, segment));
  });
  return sizes;
}

int64_t Kernel::widestRange(unsigned segment, int64_t whole) {
  int64_t widest = 0;
  for (int64_t size : rangeSizes(segment))
    widest = std::max(widest, size);
  return widest > 0 ? widest : whole;
}

int64_t Kernel::rangeUnit(unsigned segment, int64_t least) {
  int64_t unit = 0;
  for (int64_t size : rangeSizes(segment))
    unit = std::gcd(unit, size);
  return unit > 0 ? unit : least;
}

Numerics Kernel::arithmetic() const {
  std::optional<MatmulPlan> plan = planMatmul(op);
  return plan && hasFp8Rows(plan->x) ? Numerics::E4M3 : numerics;
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

Value Kernel::activationRow(Value buffer, Value row, int64_t columns) {
  int64_t blockBytes = kHalfRows * activationRowBytes(columns);
  Value block = e.mul(e.div(row, e.index(kHalfRows)), e.index(blockBytes));
  Value inBlock =
      e.mul(e.rem(row, e.index(kHalfRows)), e.index(kHalfBlockRowBytes));
  return e.offset(buffer, e.add(block, inBlock));
}

/// A row of its own, in shared memory, needs no blocks.
static bool isAlone(Value row) {
  return cast<LLVM::LLVMPointerType>(row.getType()).getAddressSpace() ==
         kShared;
}

Value halfAt(Emitter &e, Value row, Value group, Value column) {
  if (isAlone(row)) {
    Value place = e.add(e.mul(group, e.index(32)), column);
    return e.at(row, place, 2);
  }
  // Bits of the column, from the top: c1 c0 s j h. Block 2 s + h of the group
  // has it as element 2 c + j.
  auto bits = [&](int from, int count, int to) {
    Value part =
        e.andI(e.shrU(column, e.index(from)), e.index((1 << count) - 1));
    return e.shl(part, e.index(to));
  };
  Value block = e.orI(bits(2, 1, 8), bits(0, 1, 7));
  Value element = e.orI(bits(3, 2, 2), bits(1, 1, 1));
  Value offset = e.orI(block, element);
  return e.offset(row, e.add(e.mul(group, e.index(kHalfGroupBytes)), offset));
}

Value fp8At(Emitter &e, Value row, Value group, Value column) {
  if (isAlone(row))
    return e.offset(row, e.add(e.mul(group, e.index(32)), column));
  // Column 8 c + 4 s + j is element 4 c + j of block s of the group: quad s of
  // the two that a lane holds of a weight (WeightDecoder.h).
  Value c = e.shrU(column, e.index(3));
  Value s = e.andI(e.shrU(column, e.index(2)), e.index(1));
  Value j = e.andI(column, e.index(3));
  Value inGroup =
      e.add(e.mul(s, e.index(kHalfBlockBytes)), e.add(e.mul(c, e.index(4)), j));
  return e.offset(row, e.add(e.mul(group, e.index(kFp8GroupBytes)), inGroup));
}

Value fp8ScaleAt(Emitter &e, Value row, int64_t columns) {
  return e.offset(row, isAlone(row) ? columns : kHalfRows * columns);
}

void storeActivation(Emitter &e, Value row, Value group, Value column,
                     Value value) {
  e.store(e.truncate(e.clampToHalf(value), e.f16()),
          halfAt(e, row, group, column), 2);
}

ArrayRef<KernelGenerator<Kernel>> kernelGenerators() {
  static const KernelGenerator<Kernel> generators[] = {
      {"tensor-memory-matmul", KernelFamily::Matmul, matchesTensorMemoryMatmul,
       generateTensorMemoryMatmul, "products of f16 rows of prompts by tcgen05",
       kKernelArithmetic},
      {"wgmma-matmul", KernelFamily::Matmul, matchesWgmmaMatmul,
       generateWgmmaMatmul,
       "products of f16 or e4m3 rows of prompts by warpgroups",
       kKernelArithmetic},
      {"tensor-matmul", KernelFamily::Matmul, matchesTensorMatmul,
       generateTensorMatmul, "products of f16 or e4m3 rows by mma.sync",
       kKernelArithmetic},
      {"vector-matmul", KernelFamily::FloatMatmul, matchesVectorMatmul,
       generateVectorMatmul, "products of float rows"},
      {"wgmma-attention", KernelFamily::Attention, matchesWgmmaAttention,
       generateWgmmaAttention, "prompt attention over f16 pages by warpgroups",
       kKernelArithmetic},
      {"tensor-attention", KernelFamily::Attention, matchesTensorAttention,
       generateTensorAttention, "attention whose products mma.sync takes",
       kKernelArithmetic},
      {"split-attention", KernelFamily::Attention, matchesSplitAttention,
       generateSplitAttention, "decode attention over f16 or int8 pages",
       kKernelArithmetic},
      {"vector-attention", KernelFamily::Attention, matchesVectorAttention,
       generateVectorAttention, "attention over pages"},
      {"rope-append", KernelFamily::Rows, matchesRopeAppend, generateRopeAppend,
       "rotary embedding, and the cache that its result goes to"},
      {"lookup", KernelFamily::Rows, matchesLookup, generateLookup,
       "rows picked by index"},
      {"top-k", KernelFamily::Rows, matchesTopK, generateTopK,
       "the best of a row"},
      {"rowwise", KernelFamily::Rows, matchesRowwise, generateRowwise,
       "ops that work row by row"},
  };
  return generators;
}

} // namespace quern::nvptx

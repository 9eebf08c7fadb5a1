//===- Emitter.cpp --------------------------------------------------------===//
#include "codegen/ptx/Emitter.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"

using namespace mlir;

namespace quern::nvptx {

static constexpr int64_t kAllLanes = -1;

//===----------------------------------------------------------------------===//
// Places
//===----------------------------------------------------------------------===//

Value Emitter::thread() {
  return extendUnsigned(NVVM::ThreadIdXOp::create(b, loc, i32()), i64());
}

Value Emitter::block(int dimension) {
  Value place;
  if (dimension == 0)
    place = NVVM::BlockIdXOp::create(b, loc, i32());
  else if (dimension == 1)
    place = NVVM::BlockIdYOp::create(b, loc, i32());
  else
    place = NVVM::BlockIdZOp::create(b, loc, i32());
  return extendUnsigned(place, i64());
}

//===----------------------------------------------------------------------===//
// Warps
//===----------------------------------------------------------------------===//

Value Emitter::shuffleXor(Value value, int mask) {
  StringRef name = isa<FloatType>(value.getType())
                       ? "llvm.nvvm.shfl.sync.bfly.f32"
                       : "llvm.nvvm.shfl.sync.bfly.i32";
  return intrinsic(name, value.getType(),
                   {constant(i32(), kAllLanes), value, constant(i32(), mask),
                    constant(i32(), 31)});
}

Value Emitter::shuffle(Value value, Value lane) {
  StringRef name = isa<FloatType>(value.getType())
                       ? "llvm.nvvm.shfl.sync.idx.f32"
                       : "llvm.nvvm.shfl.sync.idx.i32";
  return intrinsic(
      name, value.getType(),
      {constant(i32(), kAllLanes), value, lane, constant(i32(), 31)});
}

Value Emitter::warpSum(Value value, int width) {
  for (int mask = width / 2; mask > 0; mask /= 2)
    value = add(value, shuffleXor(value, mask));
  return value;
}

Value Emitter::warpMax(Value value, int width) {
  for (int mask = width / 2; mask > 0; mask /= 2)
    value = maxF(value, shuffleXor(value, mask));
  return value;
}

void Emitter::warpBarrier() {
  intrinsic("llvm.nvvm.bar.warp.sync", {}, {constant(i32(), kAllLanes)});
}

void Emitter::barrier() {
  intrinsic("llvm.nvvm.barrier.cta.sync.aligned.all", {}, {constant(i32(), 0)});
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

static constexpr llvm::StringLiteral kDeviceScope = "device";

Value Emitter::opaque(Value value) {
  return LLVM::InlineAsmOp::create(
             b, loc, value.getType(), value, "mov.b64 $0, $1;", "=l,l",
             /*has_side_effects=*/false, /*is_align_stack=*/false,
             LLVM::TailCallKind::None, LLVM::AsmDialectAttr(), ArrayAttr())
      .getResult(0);
}

Value Emitter::atomicAdd(Value pointer, Value x) {
  return LLVM::AtomicRMWOp::create(b, loc, LLVM::AtomicBinOp::add, pointer, x,
                                   LLVM::AtomicOrdering::monotonic,
                                   kDeviceScope);
}

void Emitter::fence() {
  LLVM::FenceOp::create(b, loc, LLVM::AtomicOrdering::acq_rel, kDeviceScope);
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

Value Emitter::exp2Fast(Value x) {
  return intrinsic("llvm.nvvm.ex2.approx.ftz.f32", f32(), {x});
}

Value Emitter::andOr(Value x, int32_t y, int32_t z) {
  // 0xea is the truth table of (a & b) | c.
  return LLVM::InlineAsmOp::create(
             b, loc, i32(),
             ValueRange{x, constant(i32(), static_cast<int64_t>(y)),
                        constant(i32(), static_cast<int64_t>(z))},
             "lop3.b32 $0, $1, $2, $3, 0xea;", "=r,r,n,n",
             /*has_side_effects=*/false,
             /*is_align_stack=*/false, LLVM::TailCallKind::None,
             LLVM::AsmDialectAttr(), ArrayAttr())
      .getResult(0);
}

Value Emitter::packHalves(Value low, Value high) {
  return intrinsic("llvm.nvvm.ff2f16x2.rn", half2(), {high, low});
}

Value Emitter::packE4m3(Value low, Value high) {
  return intrinsic("llvm.nvvm.ff.to.e4m3x2.rn", i16(), {high, low});
}

static Value clampTo(Emitter &e, Value x) {
  constexpr double kLargestHalf = 65504;
  Type type = x.getType();
  x = e.intrinsic("llvm.minnum", type, {x, e.constant(type, kLargestHalf)});
  return e.intrinsic("llvm.maxnum", type, {x, e.constant(type, -kLargestHalf)});
}

Value Emitter::clampToHalf(Value x) { return clampTo(*this, x); }
Value Emitter::clampHalves(Value x) { return clampTo(*this, x); }

Value Emitter::permute(Value x, Value y, int32_t selector) {
  return intrinsic("llvm.nvvm.prmt", i32(),
                   {x, y, constant(i32(), static_cast<int64_t>(selector))});
}

Value Emitter::rotateRight(Value x, Value count) {
  return intrinsic("llvm.fshr.i32", i32(), {x, x, count});
}

Value Emitter::maxI(Value x, Value y) {
  return arith::MaxSIOp::create(b, loc, x, y);
}
Value Emitter::minI(Value x, Value y) {
  return arith::MinSIOp::create(b, loc, x, y);
}

Value Emitter::maxNumber(Value x, Value y) {
  return arith::MaxNumFOp::create(b, loc, x, y);
}

Value Emitter::loadIndex(Value array, Value i) {
  return extend(load(i32(), offset(array, mul(i, index(4))), 4), i64());
}

Value Emitter::pack(ValueRange scalars) {
  VectorType type = vec(scalars.size(), scalars.front().getType());
  Value result = LLVM::PoisonOp::create(b, loc, type);
  for (auto [i, scalar] : llvm::enumerate(scalars))
    result = LLVM::InsertElementOp::create(
        b, loc, type, result, scalar, constant(i32(), static_cast<int64_t>(i)));
  return result;
}

//===----------------------------------------------------------------------===//
// Tensor cores
//===----------------------------------------------------------------------===//

/// The fields of an intrinsic's struct.
static Emitter::Values fields(Emitter &e, Value structure, int count) {
  Emitter::Values result;
  for (int i = 0; i < count; ++i)
    result.push_back(LLVM::ExtractValueOp::create(e.b, e.loc, structure,
                                                  ArrayRef<int64_t>{i}));
  return result;
}

static Type structOf(Emitter &e, Type element, int count) {
  return LLVM::LLVMStructType::getLiteral(e.b.getContext(),
                                          SmallVector<Type>(count, element));
}

/// mma.m16n8k32 with e4m3 operands.
static Value mmaE4m3(Emitter &e, ValueRange a, ValueRange b, ValueRange acc) {
  SmallVector<Value> operands(a);
  operands.append(b.begin(), b.end());
  operands.append(acc.begin(), acc.end());
  return LLVM::InlineAsmOp::create(
             e.b, e.loc, structOf(e, e.f32(), 4), operands,
             "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
             "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, "
             "{$10, $11, $12, $13};",
             "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", /*has_side_effects=*/false,
             /*is_align_stack=*/false, LLVM::TailCallKind::None,
             LLVM::AsmDialectAttr(), ArrayAttr())
      .getResult(0);
}

/// The same as two products in f16, to which e4m3 widens exactly.
static Emitter::Values mmaWidened(Emitter &e, ValueRange a, ValueRange b,
                                  ValueRange acc) {
  // Columns [2 j, 2 j + 2) of a word.
  auto pair = [&](Value word, int j) {
    Value half = j ? e.shrU(word, e.constant(e.i32(), 16)) : word;
    Value wide = e.intrinsic("llvm.nvvm.e4m3x2.to.f16x2.rn", e.half2(),
                             {e.truncate(half, e.i16())});
    return e.bitcast(wide, e.i32());
  };
  Emitter::Values sums(acc);
  for (int s = 0; s < 2; ++s) {
    Value low = a[2 * s], high = a[2 * s + 1], tokens = b[s];
    sums = e.mma({pair(low, 0), pair(high, 0), pair(low, 1), pair(high, 1)},
                 {pair(tokens, 0), pair(tokens, 1)}, sums);
  }
  return sums;
}

Emitter::Values Emitter::mma(ValueRange a, ValueRange b, ValueRange acc,
                             Operands kind) {
  // Hopper has e4m3 in wgmma alone. ptxas widens too, but adds every product
  // to its sums by instructions of its own.
  if (kind == Operands::E4M3 && target.gpu.hasWgmma)
    return mmaWidened(*this, a, b, acc);
  if (kind == Operands::E4M3)
    return fields(*this, mmaE4m3(*this, a, b, acc), 4);
  SmallVector<Value> operands;
  for (Value word :
       llvm::concat<Value>(SmallVector<Value>(a), SmallVector<Value>(b)))
    operands.push_back(bitcast(word, half2()));
  operands.append(acc.begin(), acc.end());
  Value d = intrinsic("llvm.nvvm.mma.m16n8k16.row.col.f32.f32",
                      structOf(*this, f32(), 4), operands);
  return fields(*this, d, 4);
}

Emitter::Values Emitter::loadMatrices(Value pointer, bool transposed) {
  StringRef name = transposed
                       ? "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.trans.b16.p3"
                       : "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.b16.p3";
  return fields(*this, intrinsic(name, structOf(*this, i32(), 4), {pointer}),
                4);
}

//===----------------------------------------------------------------------===//
// Asynchronous copies
//===----------------------------------------------------------------------===//

void Emitter::copyAsync(Value shared, Value global, Value bytes) {
  if (bytes)
    intrinsic("llvm.nvvm.cp.async.cg.shared.global.16.s", {},
              {shared, global, bytes});
  else
    intrinsic("llvm.nvvm.cp.async.cg.shared.global.16", {}, {shared, global});
}

void Emitter::commitCopies() {
  intrinsic("llvm.nvvm.cp.async.commit.group", {}, {});
}

void Emitter::waitCopies(int pending) {
  intrinsic("llvm.nvvm.cp.async.wait.group", {}, {constant(i32(), pending)});
}

} // namespace quern::nvptx

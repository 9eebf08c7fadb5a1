//===- Hopper.cpp ---------------------------------------------------------===//
#include "codegen/ptx/Hopper.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"

using namespace mlir;

namespace quern::nvptx {

/// LLVM's address space of shared::cluster, where bulk copies write.
static constexpr unsigned kSharedCluster = 7;

//===----------------------------------------------------------------------===//
// Barriers
//===----------------------------------------------------------------------===//

void Barriers::init(int64_t index, int64_t arrivals) {
  NVVM::MBarrierInitOp::create(e.b, e.loc, at(e.index(index)),
                               e.constant(e.i32(), arrivals),
                               /*predicate=*/Value());
}

void Barriers::wait(Value index, Value parity) {
  // How long the hardware may suspend the warp before it asks again, ns.
  Value ticks = e.constant(e.i32(), 10'000'000);
  NVVM::MBarrierTryWaitParityOp::create(e.b, e.loc, at(index), parity, ticks);
}

void Barriers::arrive(Value index) {
  NVVM::MBarrierArriveOp::create(e.b, e.loc, e.i64(), at(index),
                                 /*count=*/Value());
}

void Barriers::arriveExpecting(Value index, Value bytes) {
  NVVM::MBarrierArriveExpectTxOp::create(
      e.b, e.loc, /*res=*/Type(), at(index), bytes, NVVM::MemScopeKind::CTA,
      /*relaxed=*/false, /*predicate=*/Value());
}

void publishBarriers(Emitter &e) {
  NVVM::FenceMbarrierInitOp::create(e.b, e.loc);
}

//===----------------------------------------------------------------------===//
// Copies and warps
//===----------------------------------------------------------------------===//

void copyBulk(Emitter &e, Value shared, Value global, Value bytes,
              Value barrier) {
  Value target = LLVM::AddrSpaceCastOp::create(
      e.b, e.loc, e.ptrType(kSharedCluster), shared);
  NVVM::CpAsyncBulkGlobalToSharedClusterOp::create(
      e.b, e.loc, target, global, barrier, bytes,
      /*multicastMask=*/Value(), /*l2CacheHint=*/Value());
}

Value electLane(Emitter &e) {
  return NVVM::ElectSyncOp::create(e.b, e.loc, e.b.getI1Type(),
                                   /*membermask=*/Value());
}

Value warpUniform(Emitter &e, Value value) {
  Value first = e.constant(e.i32(), 0);
  if (value.getType() == e.i32())
    return e.shuffle(value, first);
  return e.extendUnsigned(e.shuffle(e.truncate(value, e.i32()), first),
                          e.i64());
}

void setRegisters(Emitter &e, int64_t count, bool increase) {
  NVVM::SetMaxRegisterOp::create(e.b, e.loc, static_cast<uint32_t>(count),
                                 increase
                                     ? NVVM::SetMaxRegisterAction::increase
                                     : NVVM::SetMaxRegisterAction::decrease);
}

//===----------------------------------------------------------------------===//
// wgmma
//===----------------------------------------------------------------------===//

Value sharedAddress(Emitter &e, Value shared) {
  return LLVM::PtrToIntOp::create(e.b, e.loc, e.i32(), shared);
}

Value matrixDescriptor(Emitter &e, Value address, int64_t depthBytes,
                       int64_t rowBytes) {
  // Start, leading and stride byte offsets in units of 16, no swizzle. Shared
  // addresses are below 2^18, so that the start needs no mask.
  Value start = e.shrU(address, e.constant(e.i32(), 4));
  Value low = e.orI(start, e.constant(e.i32(), depthBytes / 16 << 16));
  return e.orI(e.extendUnsigned(low, e.i64()), e.index((rowBytes / 16) << 32));
}

Value advance(Emitter &e, Value descriptor, Value words) {
  // The start is in the low half, and nothing is carried out of its 14 bits.
  Value low = e.add(e.truncate(descriptor, e.i32()), words);
  Value high =
      e.andI(descriptor, e.index(static_cast<int64_t>(~0xffffffffull)));
  return e.orI(high, e.extendUnsigned(low, e.i64()));
}

/// "{$first, ..., $(first + count - 1)}", an operand of inline assembly.
static std::string operandList(int64_t first, int64_t count) {
  std::string text = "{";
  for (int64_t i = first; i < first + count; ++i)
    text.append(i == first ? "$" : ", $").append(std::to_string(i));
  return text + "}";
}

/// Inline assembly whose results are `count` f32, $0 on. They begin as `sums`,
/// operands $count on, unless that is empty; `operands` follow.
static Emitter::Values emitSums(Emitter &e, const std::string &text,
                                size_t count, ValueRange sums,
                                ArrayRef<Value> operands,
                                const std::string &operandConstraints) {
  std::string constraints;
  for (size_t i = 0; i < count; ++i)
    constraints += sums.empty() ? "=&f," : "=f,";
  for (size_t i = 0; i < sums.size(); ++i)
    constraints.append(std::to_string(i)).append(",");
  constraints += operandConstraints + "~{memory}";
  SmallVector<Value> all(sums);
  all.append(operands.begin(), operands.end());
  Type type = LLVM::LLVMStructType::getLiteral(
      e.b.getContext(), SmallVector<Type>(count, e.f32()));
  Value result =
      LLVM::InlineAsmOp::create(
          e.b, e.loc, type, all, text, constraints, /*has_side_effects=*/true,
          /*is_align_stack=*/false, LLVM::TailCallKind::None,
          LLVM::AsmDialectAttr(), ArrayAttr())
          .getResult(0);
  Emitter::Values values;
  for (size_t i = 0; i < count; ++i)
    values.push_back(LLVM::ExtractValueOp::create(
        e.b, e.loc, result, ArrayRef<int64_t>{static_cast<int64_t>(i)}));
  return values;
}

Emitter::Values startProducts(Emitter &e, int64_t columns,
                              ArrayRef<WgmmaStep> steps, ValueRange sums,
                              Operands kind) {
  // One statement a group: between two, LLVM might move sums, which nothing
  // may touch while products are under way.
  size_t count = sums.empty() ? columns / 2 : sums.size();
  auto next = static_cast<int64_t>(count + sums.size());
  std::string text = "{\n.reg .pred add, set;\nsetp.eq.u32 add, 0, 0;\n"
                     "setp.ne.u32 set, 0, 0;\nwgmma.fence.sync.aligned;\n";
  SmallVector<Value> operands;
  std::string constraints;
  bool isHalf = kind == Operands::F16;
  auto transposes = [&](const WgmmaStep &step, bool inRegisters) {
    if (!isHalf)
      return std::string(";\n");
    return std::string(inRegisters ? "" : ", 0") +
           (step.rowMajorB ? ", 1;\n" : ", 0;\n");
  };
  for (auto [i, step] : llvm::enumerate(steps)) {
    auto words = static_cast<int64_t>(step.a.size());
    bool inRegisters = words > 1;
    text +=
        "wgmma.mma_async.sync.aligned.m64n" + std::to_string(columns) +
        (isHalf ? "k16.f32.f16.f16 " : "k32.f32.e4m3.e4m3 ") +
        operandList(step.firstSum, columns / 2) + ", " +
        (inRegisters ? operandList(next, words) : "$" + std::to_string(next)) +
        ", $" + std::to_string(next + words) +
        (sums.empty() && i == 0 ? ", set" : ", add") + ", 1, 1" +
        transposes(step, inRegisters);
    llvm::append_range(operands, step.a);
    operands.push_back(step.b);
    constraints += inRegisters ? "r,r,r,r,l," : "l,l,";
    next += words + 1;
  }
  text += "wgmma.commit_group.sync.aligned;\n}";
  return emitSums(e, text, count, sums, operands, constraints);
}

void waitProducts(Emitter &e, int pending) {
  NVVM::WgmmaWaitGroupSyncOp::create(e.b, e.loc,
                                     static_cast<uint64_t>(pending));
}

Emitter::Values finishProducts(Emitter &e, ValueRange sums, int pending) {
  return emitSums(
      e, "wgmma.wait_group.sync.aligned " + std::to_string(pending) + ";",
      sums.size(), sums, {}, "");
}

void publishShared(Emitter &e) {
  NVVM::FenceProxyOp::create(
      e.b, e.loc, NVVM::ProxyKind::async_shared,
      NVVM::SharedSpaceAttr::get(e.b.getContext(),
                                 NVVM::SharedSpace::shared_cta));
}

void meetWith(Emitter &e, Value number, int64_t threads, Value condition) {
  LLVM::InlineAsmOp::create(
      e.b, e.loc, e.i32(),
      ValueRange{number, e.constant(e.i32(), threads),
                 e.extendUnsigned(condition, e.i32())},
      "{\n.reg .pred p, q;\nsetp.ne.b32 p, $3, 0;\n"
      "barrier.cta.red.or.pred q, $1, $2, p;\nselp.b32 $0, 1, 0, q;\n}",
      "=r,r,n,r,~{memory}", /*has_side_effects=*/true,
      /*is_align_stack=*/false, LLVM::TailCallKind::None,
      LLVM::AsmDialectAttr(), ArrayAttr());
}

} // namespace quern::nvptx

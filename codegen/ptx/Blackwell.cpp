//===- Blackwell.cpp ------------------------------------------------------===//
#include "codegen/ptx/Blackwell.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;

namespace quern::nvptx {

/// LLVM's address space of tensor memory.
static constexpr unsigned kTensor = 6;

static Value tensorPointer(Emitter &e, Value address) {
  return LLVM::IntToPtrOp::create(e.b, e.loc, e.ptrType(kTensor), address);
}

int64_t tensorAllocation(int64_t columns) {
  constexpr int64_t kUnit = 32;
  return std::max<int64_t>(kUnit, llvm::PowerOf2Ceil(columns));
}

void allocateTensorMemory(Emitter &e, Value shared, int64_t columns) {
  NVVM::Tcgen05AllocOp::create(e.b, e.loc, shared,
                               e.constant(e.i32(), columns));
  NVVM::Tcgen05RelinquishAllocPermitOp::create(e.b, e.loc);
}

void freeTensorMemory(Emitter &e, Value address, int64_t columns) {
  NVVM::Tcgen05DeallocOp::create(e.b, e.loc, tensorPointer(e, address),
                                 e.constant(e.i32(), columns));
}

void storeMatrices(Emitter &e, Value pointer, ValueRange words) {
  NVVM::StMatrixOp::create(
      e.b, e.loc, pointer, words,
      NVVM::MMALayoutAttr::get(e.b.getContext(), NVVM::MMALayout::row),
      NVVM::LdStMatrixShapeAttr::get(e.b.getContext(), 8, 8),
      NVVM::LdStMatrixEltTypeAttr::get(e.b.getContext(),
                                       NVVM::LdStMatrixEltType::B16));
}

void publishToTensorCores(Emitter &e) {
  NVVM::FenceProxyOp::create(
      e.b, e.loc,
      NVVM::ProxyKindAttr::get(e.b.getContext(), NVVM::ProxyKind::async_shared),
      NVVM::SharedSpaceAttr::get(e.b.getContext(),
                                 NVVM::SharedSpace::shared_cta));
}

/// The instruction descriptor of M 128, N `columns`, f16 operands that are
/// K-major, f32 sums. PTX ISA 9.7.16.4.2.
static int64_t instructionDescriptor(int64_t columns) {
  constexpr int64_t kSumsF32 = 1 << 4;
  return kSumsF32 | columns / 8 << 17 | kTensorRows / 16 << 24;
}

void startTensorProduct(Emitter &e, Value address, int64_t columns, Value a,
                        Value b, Value accumulate) {
  // Bits 46 to 48 of a descriptor, which wgmma's do not have.
  Value version = e.index(int64_t{1} << 46);
  MLIRContext *context = e.b.getContext();
  NVVM::Tcgen05MMAOp::create(
      e.b, e.loc,
      NVVM::Tcgen05MMAKindAttr::get(context, NVVM::Tcgen05MMAKind::F16),
      NVVM::CTAGroupKindAttr::get(context, NVVM::CTAGroupKind::CTA_1),
      /*collectorOp=*/
      NVVM::Tcgen05MMACollectorOpAttr::get(
          context, NVVM::Tcgen05MMACollectorOp::DISCARD),
      /*aShift=*/UnitAttr(), tensorPointer(e, address), e.orI(a, version),
      e.orI(b, version), e.constant(e.i32(), instructionDescriptor(columns)),
      accumulate,
      /*scaleInputD=*/Value(), /*disableOutputLane=*/Value());
}

void commitTensorProducts(Emitter &e, Value barrier) {
  NVVM::Tcgen05CommitOp::create(e.b, e.loc, barrier,
                                /*multicastMask=*/Value());
}

void fenceTensorMemory(Emitter &e) {
  NVVM::Tcgen05FenceOp::create(e.b, e.loc,
                               NVVM::Tcgen05FenceKind::AFTER_THREAD_SYNC);
}

Emitter::Values loadTensorMemory(Emitter &e, ValueRange addresses,
                                 int64_t columns) {
  // One statement: LLVM knows no order between a load's registers, once they
  // are named, and the wait for them.
  std::string text, constraints;
  auto loads = static_cast<int64_t>(addresses.size());
  for (int64_t i = 0; i < loads; ++i) {
    text +=
        "tcgen05.ld.sync.aligned.32x32b.x" + std::to_string(columns) + ".b32 {";
    for (int64_t j = 0; j < columns; ++j) {
      text += (j ? ", $" : "$") + std::to_string(i * columns + j);
      constraints += "=&f,";
    }
    text += "}, [$" + std::to_string(loads * columns + i) + "];\n";
  }
  text += "tcgen05.wait::ld.sync.aligned;";
  for (int64_t i = 0; i < loads; ++i)
    constraints += "r,";
  constraints += "~{memory}";
  Type type = LLVM::LLVMStructType::getLiteral(
      e.b.getContext(), SmallVector<Type>(loads * columns, e.f32()));
  Value result = LLVM::InlineAsmOp::create(
                     e.b, e.loc, type, addresses, text, constraints,
                     /*has_side_effects=*/true,
                     /*is_align_stack=*/false, LLVM::TailCallKind::None,
                     LLVM::AsmDialectAttr(), ArrayAttr())
                     .getResult(0);
  Emitter::Values values;
  for (int64_t i = 0; i < loads * columns; ++i)
    values.push_back(
        LLVM::ExtractValueOp::create(e.b, e.loc, result, ArrayRef<int64_t>{i}));
  return values;
}

} // namespace quern::nvptx

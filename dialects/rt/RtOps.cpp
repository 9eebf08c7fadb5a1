//===- RtOps.cpp - Syntax and checks of runtime programs ------------------===//
//
// Labels in comments (`rt_dispatch_c1`) are those of docs/spec.md.
//
//===----------------------------------------------------------------------===//
#include "dialects/rt/Rt.h"
#include "dialects/rt/Syntax.h"

#include "mlir/IR/Builders.h"
#include "mlir/Interfaces/FunctionImplementation.h"

using namespace mlir;
using namespace quern;
using namespace quern::rt;

#define GET_OP_CLASSES
#include "dialects/rt/RtOps.cpp.inc"

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

SmallVector<Type> KernelOp::getArgTypes() {
  SmallVector<Type> types(getFunctionType().getInputs());
  for (Type type : getFunctionType().getResults())
    if (!isa<lm::KvCacheType>(type))
      types.push_back(type);
  return types;
}

LogicalResult KernelOp::verify() {
  // rt_kernel_c1
  if (failed(lm::verifyKernelBody(*this, getBody(),
                                  getFunctionType().getInputs(),
                                  getFunctionType().getResults())))
    return failure();
  // rt_kernel_c2
  return lm::verifyTiles(*this, getTilesAttr());
}

// @name(%a: type, ...) -> (types) attributes {...} {...}
ParseResult KernelOp::parse(OpAsmParser &parser, OperationState &state) {
  StringAttr name;
  SmallVector<OpAsmParser::Argument> arguments;
  SmallVector<Type> inputs, results;
  if (parser.parseSymbolName(name, "sym_name", state.attributes) ||
      parser.parseArgumentList(arguments, AsmParser::Delimiter::Paren,
                               /*allowType=*/true) ||
      parser.parseOptionalArrowTypeList(results) ||
      parser.parseOptionalAttrDictWithKeyword(state.attributes) ||
      parser.parseRegion(*state.addRegion(), arguments))
    return failure();
  for (const OpAsmParser::Argument &argument : arguments)
    inputs.push_back(argument.type);
  state.addAttribute(
      "function_type",
      TypeAttr::get(parser.getBuilder().getFunctionType(inputs, results)));
  return success();
}

void KernelOp::print(OpAsmPrinter &printer) {
  printer << ' ';
  printer.printSymbolName(getSymName());
  printer << '(';
  llvm::interleaveComma(
      getBody().getArguments(), printer,
      [&](BlockArgument argument) { printer.printRegionArgument(argument); });
  printer << ") -> (" << getFunctionType().getResults() << ")";
  printer.printOptionalAttrDictWithKeyword((*this)->getAttrs(),
                                           {"sym_name", "function_type"});
  printer << ' ';
  printer.printRegion(getBody(), /*printEntryBlockArgs=*/false);
}

//===----------------------------------------------------------------------===//
// Programs
//===----------------------------------------------------------------------===//

LogicalResult ProgramOp::verify() {
  // rt_program_c1
  if (llvm::range_size(getBody().getOps<PrologueOp>()) != 1 ||
      llvm::range_size(getBody().getOps<EpilogueOp>()) != 1)
    return emitOpError("expected one rt.prologue and one rt.epilogue");
  // rt_program_c2
  for (auto layer : getLayers().getAsRange<FlatSymbolRefAttr>())
    if (!isa_and_nonnull<BlockOp>(
            mlir::SymbolTable::lookupSymbolIn(*this, layer.getAttr())))
      return emitOpError() << "expected layer " << layer
                           << " to be an rt.block of the program";
  // rt_program_c3
  for (Operation &op : getBody().front())
    if (!isa<BufferOp, PrologueOp, BlockOp, EpilogueOp>(op))
      return op.emitOpError("is not allowed in a program");
  return success();
}

LogicalResult BufferOp::verify() {
  // rt_buffer_c1
  if (getKind() == BufferKind::Logits &&
      (getCopies() != 1 || getRows() != RowSpace::Logits))
    return emitOpError(
        "expected the caller's logits to be one copy of logit rows");
  return success();
}

LogicalResult WeightSlotOp::verify() {
  auto type = dyn_cast<RankedTensorType>(getType());
  // rt_weight_slot_c1
  if (!type || !type.hasStaticShape() || !lm::formatOf(type))
    return emitOpError() << "expected a static tensor, but got " << getType();
  // rt_weight_slot_c2
  for (WeightSlotOp slot : (*this)->getBlock()->getOps<WeightSlotOp>())
    if (slot != *this && slot.getName() == getName() &&
        slot->isBeforeInBlock(*this))
      return emitOpError() << "is declared twice: '" << getName() << "'";
  // rt_weight_slot_c3
  lm::RangesAttr ranges = getRangesAttr();
  if (!ranges)
    return success();
  const int64_t extent = getSplit() == lm::MatmulSplit::N
                             ? type.getDimSize(0)
                             : type.getShape().back();
  if (ranges.getSegments() != 1 || ranges.getExtent(0) != extent)
    return emitOpError() << "expected ranges of one segment over " << extent
                         << " elements, but got " << ranges;
  return success();
}

//===----------------------------------------------------------------------===//
// Dispatches
//===----------------------------------------------------------------------===//

/// Checks one argument that names a buffer against the kernel's type.
static LogicalResult verifyBufferArg(DispatchOp op, ArgAttr arg, Type type) {
  auto program = op->getParentOfType<ProgramOp>();
  auto buffer = dyn_cast_or_null<BufferOp>(
      SymbolTable::lookupSymbolIn(program, arg.getName()));
  // rt_dispatch_c4
  if (!buffer)
    return op.emitOpError() << "names unknown buffer @" << arg.getName();
  std::optional<int64_t> bytes = bytesPerRow(type);
  if (!bytes)
    return success();
  // rt_dispatch_c5
  if (static_cast<int64_t>(buffer.getBytesPerRow()) != *bytes)
    return op.emitOpError() << "expected buffer @" << arg.getName() << " of "
                            << *bytes << " bytes per row for " << type
                            << ", but it has " << buffer.getBytesPerRow();
  // rt_dispatch_c6
  if (static_cast<int64_t>(buffer.getCopies()) != copiesOf(type))
    return op.emitOpError()
           << "expected buffer @" << arg.getName() << " of " << copiesOf(type)
           << " copies for " << type << ", but it has " << buffer.getCopies();
  return success();
}

/// Checks one argument against the kernel's type.
static LogicalResult verifyArg(DispatchOp op, ArgAttr arg, Type type) {
  switch (arg.getKind()) {
  case ArgKind::Buffer:
    return verifyBufferArg(op, arg, type);
  case ArgKind::Kv:
    // rt_dispatch_c7
    if (!isa<lm::KvCacheType>(type))
      return op.emitOpError() << "expected a " << type << ", but got kv";
    return success();
  case ArgKind::Step:
    // rt_dispatch_c8
    if (!getElementTypeOrSelf(type).isInteger(32))
      return op.emitOpError()
             << "expected a " << type << ", but got step " << arg.getName();
    return success();
  case ArgKind::Weight:
    break;
  }
  // rt_dispatch_c9
  for (WeightSlotOp slot : op->getBlock()->getOps<WeightSlotOp>())
    if (slot.getName() == arg.getName()) {
      if (slot.getType() == type)
        return success();
      return op.emitOpError()
             << "expected weight '" << arg.getName() << "' of " << type
             << ", but its slot has " << slot.getType();
    }
  return op.emitOpError() << "names weight '" << arg.getName()
                          << "', which has no slot in this list";
}

/// The dispatch that `merge` repeats: the one before it, or null.
static DispatchOp repeatedBy(DispatchOp merge) {
  for (Operation *op = merge->getPrevNode(); op; op = op->getPrevNode())
    if (auto before = dyn_cast<DispatchOp>(op))
      return before;
  return {};
}

/// Whether shares of `kernel` attend to a cache.
static bool sharesAttend(KernelOp kernel) {
  return kernel.getSplit() == lm::KernelSplit::Shares &&
         llvm::any_of(kernel.getBody().getOps(), lm::isAttention);
}

LogicalResult DispatchOp::verifySymbolUses(SymbolTableCollection &symbolTable) {
  // rt_dispatch_c1: kernels are beside the program, not in it.
  auto module = (*this)->getParentOfType<ModuleOp>();
  auto kernel = symbolTable.lookupSymbolIn<KernelOp>(module, getKernelAttr());
  if (!kernel)
    return emitOpError() << "names unknown kernel " << getKernelAttr();
  // rt_dispatch_c2
  SmallVector<Type> types = kernel.getArgTypes();
  if (getArgs().size() != types.size())
    return emitOpError() << "expected " << types.size() << " arguments for "
                         << getKernelAttr() << ", but got " << getArgs().size();
  // rt_dispatch_c3
  if (getSplit() != kernel.getSplit())
    return emitOpError() << "expected split = "
                         << lm::stringifyKernelSplit(kernel.getSplit())
                         << " as the kernel has";
  if (getRangesAttr() && getSplit() != lm::KernelSplit::Shares)
    return emitOpError("expected no ranges when rows are split");
  if (getRangesAttr() &&
      getRangesAttr().getShares() !=
          static_cast<int64_t>(
              (*this)->getParentOfType<ProgramOp>().getShares()))
    return emitOpError() << "expected ranges of as many shares as the program";
  auto args = llvm::to_vector(getArgs().getAsRange<ArgAttr>());
  // rt_dispatch_c10
  for (unsigned i = kernel.getNumInputs(); i < args.size(); ++i)
    if (args[i].getKind() != ArgKind::Buffer)
      return emitOpError() << "expected a buffer for result "
                           << i - kernel.getNumInputs() << ", but got "
                           << stringifyArgKind(args[i].getKind()) << ' '
                           << args[i].getName();
  for (auto [arg, type] : llvm::zip(args, types))
    if (failed(verifyArg(*this, arg, type)))
      return failure();
  // rt_dispatch_c11
  if (!getMerge())
    return success();
  DispatchOp repeated = repeatedBy(*this);
  if (!sharesAttend(kernel) || !repeated || repeated.getMerge() ||
      repeated.getKernelAttr() != getKernelAttr() ||
      repeated.getRows() != getRows() ||
      repeated.getArgsAttr() != getArgsAttr() ||
      repeated.getRangesAttr() != getRangesAttr())
    return emitOpError("expected a merge to repeat the dispatch before it, of "
                       "attention that is split over shares");
  return success();
}

//===- ConvertLmToRt.cpp - Kernels and values to dispatches and buffers ---===//
#include "dialects/rt/Rt.h"
#include "passes/Passes.h"
#include "passes/conversion/InsertJoins.h"
#include "passes/conversion/KernelTable.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/StringMap.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_CONVERTLMTORTPASS
#include "passes/Passes.h.inc"

namespace {
/// The value that bodies hand on to each other.
constexpr StringLiteral kCarried = "x";

/// How a weight is cut over shares; whole without ranges.
struct WeightCut {
  lm::MatmulSplit split = lm::MatmulSplit::N;
  lm::RangesAttr ranges;
};

/// Segment `segment` of `ranges` alone.
lm::RangesAttr oneSegment(lm::RangesAttr ranges, int64_t segment) {
  SmallVector<int64_t> bounds;
  for (int64_t share = 0; share < ranges.getShares(); ++share)
    bounds.append(
        {ranges.getBegin(share, segment), ranges.getEnd(share, segment)});
  return lm::RangesAttr::get(ranges.getContext(), 1, bounds);
}

/// How `kernel` cuts the weight that is its block argument `argument`.
WeightCut cutOf(lm::KernelOp kernel, BlockArgument argument) {
  for (OpOperand &use : argument.getUses()) {
    if (auto matmul = dyn_cast<lm::QuantMatmulOp>(use.getOwner()))
      if (use.get() == matmul.getW())
        return {matmul.getSplit(), oneSegment(kernel.getRangesAttr(), 0)};
    if (auto qkv = dyn_cast<lm::QkvProjOp>(use.getOwner()))
      for (auto [segment, w] : llvm::enumerate(
               ArrayRef<Value>{qkv.getWq(), qkv.getWk(), qkv.getWv()}))
        if (use.get() == w)
          return {lm::MatmulSplit::N,
                  oneSegment(kernel.getRangesAttr(), segment)};
  }
  return {};
}

/// Whether `kernel` is attention that several shares compute.
bool sharesAttention(lm::KernelOp kernel) {
  return kernel.getRangesAttr() && kernel.getRangesAttr().getShares() > 1 &&
         llvm::any_of(kernel.getBody().getOps(), lm::isAttention);
}

/// What a body is to a step.
enum class Part { Prologue, Layer, Epilogue };

/// Converts the kernels of one body to dispatches in `list`.
class BodyConverter {
public:
  BodyConverter(func::FuncOp body, Part part, rt::ProgramOp program,
                Block &list, KernelTable &table)
      : body(body), part(part), program(program), table(table),
        builder(OpBuilder::atBlockEnd(&list)), slotBuilder(builder) {}

  LogicalResult run();

private:
  LogicalResult bindArguments();
  LogicalResult convert(lm::KernelOp kernel);
  FailureOr<rt::ArgAttr> inputArg(lm::KernelOp kernel, unsigned operand);
  FailureOr<rt::ArgAttr> weightArg(lm::KernelOp kernel, unsigned operand,
                                   lm::WeightOp weight);
  FailureOr<rt::ArgAttr> outputArg(lm::KernelOp kernel, OpResult output,
                                   rt::RowSpace rows);
  FailureOr<rt::ArgAttr> carriedArg(lm::KernelOp kernel);
  rt::ArgAttr newBuffer(StringRef name, Type type, rt::BufferKind kind,
                        rt::RowSpace rows, bool isPrivate);
  rt::RowSpace rowsOf(lm::KernelOp kernel);
  MLIRContext *context() { return body.getContext(); }

  func::FuncOp body;
  Part part;
  rt::ProgramOp program;
  KernelTable &table;
  OpBuilder builder;     ///< of dispatches
  OpBuilder slotBuilder; ///< of weight slots, which stand before them
  llvm::DenseMap<Value, rt::ArgAttr> argOf;
  llvm::DenseMap<Value, rt::RowSpace> rowSpaceOf;
  llvm::StringMap<rt::WeightSlotOp> slots;
};

/// Logit rows come from logit rows, and from select_rows.
rt::RowSpace BodyConverter::rowsOf(lm::KernelOp kernel) {
  bool logits = !kernel.getBody().getOps<lm::SelectRowsOp>().empty();
  for (Value input : kernel.getInputs())
    logits |= rowSpaceOf.lookup(input) == rt::RowSpace::Logits;
  return logits ? rt::RowSpace::Logits : rt::RowSpace::Tokens;
}

LogicalResult BodyConverter::bindArguments() {
  for (BlockArgument argument : body.getArguments()) {
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (isa<lm::KvCacheType>(argument.getType())) {
      argOf[argument] = rt::ArgAttr::kv(context());
    } else if (type && type.getElementType().isF32()) {
      argOf[argument] = rt::ArgAttr::buffer(context(), kCarried);
    } else if (type && type.getElementType().isInteger(32)) {
      const rt::StepInput inputs[] = {rt::StepInput::Tokens,
                                      rt::StepInput::Positions,
                                      rt::StepInput::LogitRows};
      argOf[argument] =
          rt::ArgAttr::step(context(), inputs[static_cast<int>(part)]);
    } else {
      return body.emitError("cannot be a body of a model: no step has a ")
             << argument.getType();
    }
  }
  return success();
}

/// Buffers stand before the lists.
rt::ArgAttr BodyConverter::newBuffer(StringRef name, Type type,
                                     rt::BufferKind kind, rt::RowSpace rows,
                                     bool isPrivate) {
  std::string unique = name.str();
  for (int i = 1; SymbolTable::lookupSymbolIn(program, unique); ++i)
    unique = (name + "_" + Twine(i)).str();
  Block &lists = program.getBody().front();
  OpBuilder buffers(&*llvm::find_if(
      lists, [](Operation &op) { return !isa<rt::BufferOp>(op); }));
  rt::BufferOp::create(buffers, program.getLoc(), unique, kind,
                       *rt::bytesPerRow(type), rt::copiesOf(type), rows,
                       isPrivate, /*offset=*/IntegerAttr(),
                       /*private_offset=*/IntegerAttr());
  return rt::ArgAttr::buffer(context(), unique);
}

FailureOr<rt::ArgAttr> BodyConverter::weightArg(lm::KernelOp kernel,
                                                unsigned operand,
                                                lm::WeightOp weight) {
  WeightCut cut = cutOf(kernel, kernel.getBody().getArgument(operand));
  rt::WeightSlotOp &slot = slots[weight.getName()];
  if (!slot)
    slot = rt::WeightSlotOp::create(
        slotBuilder, weight.getLoc(), weight.getName(), weight.getType(),
        cut.split, cut.ranges, weight.getSourceAttr());
  else if (slot.getSplit() != cut.split || slot.getRangesAttr() != cut.ranges)
    return kernel.emitOpError("reads weight '")
           << weight.getName() << "', which another kernel of the body cuts "
           << "differently";
  return rt::ArgAttr::weight(context(), weight.getName());
}

FailureOr<rt::ArgAttr> BodyConverter::inputArg(lm::KernelOp kernel,
                                               unsigned operand) {
  Value input = kernel.getInputs()[operand];
  if (auto weight = input.getDefiningOp<lm::WeightOp>())
    return weightArg(kernel, operand, weight);
  if (rt::ArgAttr known = argOf.lookup(input))
    return known;
  return kernel.emitOpError("reads a value that no kernel or step gives");
}

/// The buffer of the value that the body hands on, whose old value must not be
/// read any more.
FailureOr<rt::ArgAttr> BodyConverter::carriedArg(lm::KernelOp kernel) {
  if (kernel.getSplit() != lm::KernelSplit::Rows)
    return kernel.emitOpError("computes what the body hands on: expected it to "
                              "be split over rows");
  for (BlockArgument argument : body.getArguments())
    if (isa<RankedTensorType>(argument.getType()) &&
        argOf[argument].getKind() == rt::ArgKind::Buffer)
      for (Operation *reader : argument.getUsers())
        if (kernel->isBeforeInBlock(reader))
          return kernel.emitOpError("overwrites what the body was handed, "
                                    "which is still read after it");
  return rt::ArgAttr::buffer(context(), kCarried);
}

FailureOr<rt::ArgAttr> BodyConverter::outputArg(lm::KernelOp kernel,
                                                OpResult output,
                                                rt::RowSpace rows) {
  if (isa<lm::KvCacheType>(output.getType()))
    return rt::ArgAttr::kv(context());
  if (!rt::bytesPerRow(output.getType()))
    return kernel.emitOpError("has a result that no buffer holds: ")
           << output.getType();
  Operation *exit = body.front().getTerminator();
  const bool leaves = exit->getNumOperands() && exit->getOperand(0) == output;
  if (leaves && part != Part::Epilogue)
    return carriedArg(kernel);
  if (leaves && rows != rt::RowSpace::Logits)
    return kernel.emitOpError("computes logits of all rows: expected "
                              "lm.select_rows before it");
  if (leaves)
    return newBuffer("logits", output.getType(), rt::BufferKind::Logits, rows,
                     /*isPrivate=*/false);
  std::string name = (body.getName() + "." + kernel.getName()).str();
  if (kernel.getNumResults() > 1)
    name += "." + std::to_string(output.getResultNumber());
  return newBuffer(name, output.getType(), rt::BufferKind::Activation, rows,
                   kernel.getSplit() == lm::KernelSplit::Rows);
}

LogicalResult BodyConverter::convert(lm::KernelOp kernel) {
  const rt::RowSpace rows = rowsOf(kernel);
  SmallVector<Attribute> args;
  for (unsigned i = 0; i < kernel.getNumOperands(); ++i) {
    FailureOr<rt::ArgAttr> arg = inputArg(kernel, i);
    if (failed(arg))
      return failure();
    args.push_back(*arg);
  }
  for (OpResult output : kernel->getResults()) {
    FailureOr<rt::ArgAttr> arg = outputArg(kernel, output, rows);
    if (failed(arg))
      return failure();
    argOf[output] = *arg;
    rowSpaceOf[output] = rows;
    if (arg->getKind() != rt::ArgKind::Kv)
      args.push_back(*arg);
  }
  auto dispatch = rt::DispatchOp::create(
      builder, kernel.getLoc(), table.outline(kernel).getSymName(),
      builder.getArrayAttr(args), kernel.getSplit(), kernel.getRangesAttr(),
      rows, /*merge=*/false);
  if (sharesAttention(kernel))
    cast<rt::DispatchOp>(builder.clone(*dispatch)).setMerge(true);
  return success();
}

LogicalResult BodyConverter::run() {
  // Slots are inserted before this op, which marks where dispatches begin.
  auto mark = rt::JoinOp::create(builder, body.getLoc(), rt::JoinWhen::Always);
  slotBuilder.setInsertionPoint(mark);
  LogicalResult result = bindArguments();
  for (Operation &op : body.front().without_terminator()) {
    if (failed(result))
      break;
    if (auto kernel = dyn_cast<lm::KernelOp>(op))
      result = convert(kernel);
    else if (!isa<lm::WeightOp>(op))
      result =
          op.emitOpError("is not in a kernel: run --lm-form-kernels first");
  }
  mark.erase();
  return result;
}

struct ConvertLmToRtPass : impl::ConvertLmToRtPassBase<ConvertLmToRtPass> {
  void runOnOperation() override {
    if (failed(convert()))
      signalPassFailure();
  }

private:
  /// The function that `symbol`, of module attribute `name`, names.
  FailureOr<func::FuncOp> bodyOf(StringRef name, Attribute symbol) {
    auto reference = dyn_cast_if_present<FlatSymbolRefAttr>(symbol);
    auto body =
        reference
            ? getOperation().lookupSymbol<func::FuncOp>(reference.getValue())
            : func::FuncOp();
    if (!body || body.isDeclaration())
      return getOperation().emitError("is no model: expected '")
             << name << "' to name a function";
    return body;
  }
  FailureOr<func::FuncOp> bodyOf(StringRef name) {
    return bodyOf(name, getOperation()->getAttr(name));
  }

  /// Shares of the first kernel that is cut.
  int64_t sharesOf(ModuleOp module) {
    int64_t shares = 1;
    module.walk([&](lm::KernelOp kernel) {
      if (!kernel.getRangesAttr())
        return WalkResult::advance();
      shares = kernel.getRangesAttr().getShares();
      return WalkResult::interrupt();
    });
    return shares;
  }

  LogicalResult convert();
  rt::ProgramOp createProgram(Type carried, ArrayAttr layers);
  template <typename ListOp>
  LogicalResult convertBody(func::FuncOp body, Part part, ListOp list,
                            KernelTable &table) {
    auto program = list->template getParentOfType<rt::ProgramOp>();
    return BodyConverter(body, part, program, list.getBody().front(), table)
        .run();
  }
};

/// An empty program with the buffer of the carried value and its lists.
rt::ProgramOp ConvertLmToRtPass::createProgram(Type carried, ArrayAttr layers) {
  ModuleOp module = getOperation();
  auto builder = OpBuilder::atBlockEnd(module.getBody());
  Location loc = module.getLoc();
  auto program = rt::ProgramOp::create(builder, loc, KernelTable::kProgram,
                                       sharesOf(module), layers,
                                       /*arena_bytes_per_row=*/IntegerAttr(),
                                       /*logit_bytes_per_row=*/IntegerAttr(),
                                       /*private_bytes_per_row=*/IntegerAttr());
  builder.setInsertionPointToStart(&program.getBody().emplaceBlock());
  rt::BufferOp::create(builder, loc, kCarried, rt::BufferKind::Activation,
                       *rt::bytesPerRow(carried), /*copies=*/1,
                       rt::RowSpace::Tokens, /*private_copy=*/true,
                       /*offset=*/IntegerAttr(),
                       /*private_offset=*/IntegerAttr());
  rt::PrologueOp::create(builder, loc).getBody().emplaceBlock();
  llvm::SetVector<Attribute> distinct(layers.begin(), layers.end());
  for (Attribute symbol : distinct)
    rt::BlockOp::create(builder, loc,
                        cast<FlatSymbolRefAttr>(symbol).getValue())
        .getBody()
        .emplaceBlock();
  rt::EpilogueOp::create(builder, loc).getBody().emplaceBlock();
  return program;
}

LogicalResult ConvertLmToRtPass::convert() {
  ModuleOp module = getOperation();
  auto prologue = bodyOf(lm::LmDialect::kPrologueAttr);
  auto epilogue = bodyOf(lm::LmDialect::kEpilogueAttr);
  auto layers = module->getAttrOfType<ArrayAttr>(lm::LmDialect::kLayersAttr);
  if (failed(prologue) || failed(epilogue))
    return failure();
  if (!layers || prologue->getNumResults() != 1 ||
      !rt::bytesPerRow(prologue->getResultTypes().front()))
    return module.emitError("is no model: expected '")
           << lm::LmDialect::kLayersAttr
           << "', and a prologue that gives rows to them";

  llvm::StringMap<func::FuncOp> bodies;
  for (Attribute layer : layers) {
    auto body = bodyOf(lm::LmDialect::kLayersAttr, layer);
    if (failed(body))
      return failure();
    bodies[body->getName()] = *body;
  }

  KernelTable table(module);
  rt::ProgramOp program =
      createProgram(prologue->getResultTypes().front(), layers);
  Block &lists = program.getBody().front();
  for (auto list : lists.getOps<rt::PrologueOp>())
    if (failed(convertBody(*prologue, Part::Prologue, list, table)))
      return failure();
  for (auto list : lists.getOps<rt::BlockOp>())
    if (failed(
            convertBody(bodies[list.getSymName()], Part::Layer, list, table)))
      return failure();
  for (auto list : lists.getOps<rt::EpilogueOp>())
    if (failed(convertBody(*epilogue, Part::Epilogue, list, table)))
      return failure();

  program->moveAfter(&module.getBody()->back());
  for (StringRef name :
       {lm::LmDialect::kPrologueAttr, lm::LmDialect::kLayersAttr,
        lm::LmDialect::kEpilogueAttr})
    module->removeAttr(name);
  for (auto body : llvm::make_early_inc_range(module.getOps<func::FuncOp>()))
    body.erase();
  insertJoins(program);
  return success();
}
} // namespace
} // namespace quern

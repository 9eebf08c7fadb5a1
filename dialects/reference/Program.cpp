//===- Program.cpp - Runs dispatch lists with tensors for buffers ---------===//
#include "dialects/reference/Evaluate.h"

#include "mlir/IR/SymbolTable.h"

#include <numeric>

using namespace mlir;
using namespace quern;
using namespace quern::reference;

namespace {
/// One step over one sequence: every buffer is the tensor last written to it.
class ProgramRun {
public:
  ProgramRun(rt::ProgramOp program, ArrayRef<int32_t> tokens,
             const WeightProvider &weights)
      : program(program), module(program->getParentOfType<ModuleOp>()),
        tokens(tokens), weights(weights) {}

  FailureOr<Tensor> run();

private:
  LogicalResult runList(Region &list, int64_t layer);
  LogicalResult runDispatch(rt::DispatchOp op, int64_t layer);
  FailureOr<Datum> argument(rt::DispatchOp op, rt::ArgAttr arg, Type type,
                            int64_t layer);
  FailureOr<Datum> weight(rt::DispatchOp op, StringRef name, int64_t layer);
  Tensor stepInput(rt::StepInput input) const;

  rt::ProgramOp program;
  ModuleOp module;
  ArrayRef<int32_t> tokens;
  const WeightProvider &weights;
  llvm::StringMap<Datum> buffers;
  llvm::DenseMap<int64_t, Datum> caches;
};
} // namespace

Tensor ProgramRun::stepInput(rt::StepInput input) const {
  const int64_t rows = tokens.size();
  Tensor tensor = Tensor::makeIndices({rows});
  switch (input) {
  case rt::StepInput::Tokens:
    llvm::copy(tokens, tensor.indices.begin());
    break;
  case rt::StepInput::Positions:
  case rt::StepInput::Slots:
  case rt::StepInput::LogitRows:
  case rt::StepInput::PageTable:
    std::iota(tensor.indices.begin(), tensor.indices.end(), 0);
    break;
  case rt::StepInput::Sequences: // All rows are of sequence 0.
    break;
  case rt::StepInput::AttentionTiles: // Kernels' bodies say nothing of tiles.
    break;
  }
  return tensor;
}

FailureOr<Datum> ProgramRun::weight(rt::DispatchOp op, StringRef name,
                                    int64_t layer) {
  for (auto slot : op->getBlock()->getOps<rt::WeightSlotOp>())
    if (slot.getName() == name) {
      FailureOr<Tensor> tensor =
          getWeight(op, name, cast<RankedTensorType>(slot.getType()),
                    slot.getSource(), weights, layer);
      if (failed(tensor))
        return failure();
      return datum(std::move(*tensor));
    }
  return op.emitOpError() << "has no slot of weight '" << name << "'";
}

FailureOr<Datum> ProgramRun::argument(rt::DispatchOp op, rt::ArgAttr arg,
                                      Type type, int64_t layer) {
  switch (arg.getKind()) {
  case rt::ArgKind::Buffer: {
    auto buffer = buffers.find(arg.getName());
    if (buffer == buffers.end())
      return op.emitOpError()
             << "reads buffer @" << arg.getName() << " before it is written";
    return buffer->second;
  }
  case rt::ArgKind::Weight:
    return weight(op, arg.getName(), layer);
  case rt::ArgKind::Kv:
    return caches
        .try_emplace(layer, datum(makeCache(cast<lm::KvCacheType>(type))))
        .first->second;
  case rt::ArgKind::Step:
    return datum(stepInput(arg.getStepInput()));
  }
  llvm_unreachable("all kinds are handled");
}

LogicalResult ProgramRun::runDispatch(rt::DispatchOp op, int64_t layer) {
  auto kernel = module.lookupSymbol<rt::KernelOp>(op.getKernel());
  if (!kernel)
    return op.emitOpError() << "names unknown kernel " << op.getKernelAttr();
  auto args = llvm::to_vector(op.getArgs().getAsRange<rt::ArgAttr>());
  FunctionType type = kernel.getFunctionType();
  Data inputs;
  for (auto [arg, input] : llvm::zip(args, type.getInputs())) {
    FailureOr<Datum> value = argument(op, arg, input, layer);
    if (failed(value))
      return failure();
    inputs.push_back(*value);
  }
  FailureOr<Data> results =
      runRegion(kernel.getBody(), inputs, weights, layer, op.getRangesAttr());
  if (failed(results))
    return failure();
  size_t next = type.getNumInputs();
  for (const Datum &result : *results) {
    if (std::holds_alternative<std::shared_ptr<const KvCache>>(result))
      caches.insert_or_assign(layer, result);
    else
      buffers.insert_or_assign(args[next++].getName(), result);
  }
  return success();
}

LogicalResult ProgramRun::runList(Region &list, int64_t layer) {
  for (auto op : list.getOps<rt::DispatchOp>())
    // Results are whole already where a merge repeats their dispatch.
    if (!op.getMerge() && failed(runDispatch(op, layer)))
      return failure();
  return success();
}

FailureOr<Tensor> ProgramRun::run() {
  for (auto prologue : program.getOps<rt::PrologueOp>())
    if (failed(runList(prologue.getBody(), 0)))
      return failure();
  for (auto [index, name] :
       llvm::enumerate(program.getLayers().getAsRange<FlatSymbolRefAttr>())) {
    auto block = program.lookupSymbol<rt::BlockOp>(name.getValue());
    if (!block || failed(runList(block.getBody(), index)))
      return failure();
  }
  for (auto epilogue : program.getOps<rt::EpilogueOp>())
    if (failed(runList(epilogue.getBody(), 0)))
      return failure();
  for (auto buffer : program.getOps<rt::BufferOp>())
    if (buffer.getKind() == rt::BufferKind::Logits)
      if (auto logits = buffers.find(buffer.getSymName());
          logits != buffers.end())
        return *std::get<std::shared_ptr<const Tensor>>(logits->second);
  return program.emitOpError("writes no buffer of logits");
}

FailureOr<Tensor> reference::runProgram(rt::ProgramOp program,
                                        ArrayRef<int32_t> tokens,
                                        const WeightProvider &weights) {
  return ProgramRun(program, tokens, weights).run();
}

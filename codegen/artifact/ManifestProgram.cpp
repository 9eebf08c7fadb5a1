#include "codegen/artifact/ManifestProgram.h"

#include "codegen/kernels/KernelFacts.h"
#include "runtime/schema/kernel_abi.h"

using namespace mlir;
using namespace quern;
namespace fb = flatbuffers;

template <typename T> using Offsets = std::vector<fb::Offset<T>>;

static llvm::Error malformed(const llvm::Twine &message) {
  return compileError(ExitCode::Malformed, message);
}

static schema::RowClass rowClass(rt::RowSpace rows) {
  return rows == rt::RowSpace::Logits ? schema::RowClass::Logits
                                      : schema::RowClass::Tokens;
}

static schema::JoinWhen joinWhen(rt::JoinWhen when) {
  switch (when) {
  case rt::JoinWhen::Always:
    return schema::JoinWhen::Always;
  case rt::JoinWhen::Rows:
    return schema::JoinWhen::Rows;
  case rt::JoinWhen::Split:
    return schema::JoinWhen::Split;
  }
  llvm_unreachable("every kind of join is a case");
}

/// What follows the pool of pages where a kernel takes a cache (section 5 of
/// docs/architecture.md).
static constexpr schema::StepInput kKvStepInputs[] = {
    schema::StepInput::PageTable, schema::StepInput::AttentionTiles,
    schema::StepInput::Slots, schema::StepInput::RowSequences,
    schema::StepInput::AttentionStates};

/// Pointers that a dispatch of `kernel` gives.
static uint32_t argumentCount(rt::KernelOp kernel) {
  uint32_t count = 0;
  for (Type type : kernel.getArgTypes())
    count += 1 + (isa<lm::KvCacheType>(type) ? std::size(kKvStepInputs) : 0);
  return count;
}

static schema::StepInput stepInput(rt::StepInput input) {
  switch (input) {
  case rt::StepInput::Tokens:
    return schema::StepInput::Tokens;
  case rt::StepInput::Positions:
    return schema::StepInput::Positions;
  case rt::StepInput::Slots:
    return schema::StepInput::Slots;
  case rt::StepInput::Sequences:
    return schema::StepInput::RowSequences;
  case rt::StepInput::PageTable:
    return schema::StepInput::PageTable;
  case rt::StepInput::AttentionTiles:
    return schema::StepInput::AttentionTiles;
  case rt::StepInput::LogitRows:
    return schema::StepInput::LogitRows;
  }
  llvm_unreachable("every step input is a case");
}

llvm::Error ProgramTranslator::collect() {
  for (auto op : module.getOps<rt::KernelOp>()) {
    kernelIndex[op.getSymName()] = static_cast<uint32_t>(kernelRefs.size());
    kernelRefs.push_back({op, argumentCount(op), std::nullopt});
  }
  for (auto op : program.getBody().getOps<rt::BufferOp>()) {
    const auto copies = static_cast<uint32_t>(op.getCopies());
    const std::string name = op.getSymName().str();
    bufferRefs[name] = {
        op.getKind(), static_cast<uint32_t>(bufferRecords.size()), copies > 1};
    if (op.getKind() == rt::BufferKind::Logits)
      continue;
    if (!op.getOffset())
      return malformed("buffer @" + name +
                       " has no place in memory; run --rt-plan-memory first");
    bufferRecords.push_back(schema::CreateBuffer(
        fbb, fbb.CreateString(name), op.getBytesPerRow(),
        rowClass(op.getRows()), copies, op.getPrivateCopy(), *op.getOffset(),
        op.getPrivateOffset().value_or(0)));
  }
  return llvm::Error::success();
}

/// Whether an operand of the kernel's region is a cache that it appends to.
static bool appendsToCache(rt::KernelOp kernel) {
  return llvm::any_of(kernel.getFunctionType().getResults(),
                      [](Type type) { return isa<lm::KvCacheType>(type); });
}

llvm::Expected<schema::Arg>
ProgramTranslator::argument(rt::DispatchOp op, size_t position,
                            KernelRef &kernel, const ProgramBody &body) {
  auto arg = cast<rt::ArgAttr>(op.getArgs()[position]);
  const bool isOutput = position >= kernel.op.getNumInputs();
  auto access = isOutput ? schema::Access::Write : schema::Access::Read;
  auto make = [&](schema::ArgKind kind, uint32_t index) {
    return schema::Arg(kind, access, index);
  };
  switch (arg.getKind()) {
  case rt::ArgKind::Buffer: {
    auto buffer = bufferRefs.find(arg.getName());
    if (buffer == bufferRefs.end())
      return malformed("a dispatch of @" + op.getKernel() + " names buffer @" +
                       arg.getName() + ", which the program does not have");
    if (buffer->second.kind == rt::BufferKind::Logits)
      return make(schema::ArgKind::Logits, 0);
    const bool partial = isOutput && buffer->second.partial;
    return make(partial ? schema::ArgKind::Partial
                        : schema::ArgKind::Activation,
                buffer->second.index);
  }
  case rt::ArgKind::Weight: {
    for (size_t slot = 0; slot < body.slots.size(); ++slot) {
      rt::WeightSlotOp weight = body.slots[slot];
      if (weight.getName() == arg.getName())
        return make(schema::ArgKind::Weight, static_cast<uint32_t>(slot));
    }
    return malformed("a dispatch of @" + op.getKernel() + " reads weight \"" +
                     arg.getName() + "\", which has no slot in " + body.name);
  }
  case rt::ArgKind::Kv:
    if (appendsToCache(kernel.op))
      access = schema::Access::ReadWrite;
    return make(schema::ArgKind::Kv, 0);
  case rt::ArgKind::Step:
    return make(schema::ArgKind::Step,
                static_cast<uint32_t>(stepInput(arg.getStepInput())));
  }
  llvm_unreachable("every kind of argument is a case");
}

llvm::Expected<fb::Offset<schema::Instruction>>
ProgramTranslator::dispatch(rt::DispatchOp op, const ProgramBody &body) {
  auto found = kernelIndex.find(op.getKernel());
  if (found == kernelIndex.end())
    return malformed("a dispatch in " + body.name + " names kernel @" +
                     op.getKernel() + ", which the module does not have");
  KernelRef &kernel = kernelRefs[found->second];
  if (op.getArgs().size() != kernel.op.getArgTypes().size())
    return malformed("a dispatch of @" + op.getKernel() + " in " + body.name +
                     " has " + llvm::Twine(op.getArgs().size()) +
                     " arguments; its kernel wants " +
                     llvm::Twine(kernel.op.getArgTypes().size()));
  std::vector<schema::Arg> args;
  for (size_t i = 0; i < op.getArgs().size(); ++i) {
    llvm::Expected<schema::Arg> arg = argument(op, i, kernel, body);
    if (!arg)
      return arg.takeError();
    args.push_back(*arg);
    if (arg->kind() == schema::ArgKind::Kv)
      for (schema::StepInput input : kKvStepInputs) {
        const auto access = input == schema::StepInput::AttentionStates
                                ? schema::Access::ReadWrite
                                : schema::Access::Read;
        args.push_back(schema::Arg(schema::ArgKind::Step, access,
                                   static_cast<uint32_t>(input)));
      }
  }
  const bool shares = op.getSplit() == lm::KernelSplit::Shares;
  lm::RangesAttr ranges = op.getRanges().value_or(lm::RangesAttr());
  std::vector<int64_t> bounds;
  uint32_t segments = 0;
  if (shares && ranges) {
    bounds = ranges.getBounds().vec();
    segments = static_cast<uint32_t>(ranges.getSegments());
  }
  if (kernel.ranges && *kernel.ranges != segments)
    return malformed("dispatches of @" + op.getKernel() +
                     " differ in their number of range segments");
  kernel.ranges = segments;
  auto argList = fbb.CreateVectorOfStructs(args);
  auto rangeList = fbb.CreateVector(bounds);
  return schema::CreateInstruction(
      fbb, schema::Op::Dispatch, schema::JoinWhen::Always, found->second,
      shares ? schema::Split::Shares : schema::Split::Rows,
      rowClass(op.getRows()), argList, rangeList, op.getMerge());
}

fb::Offset<schema::WeightSlot>
ProgramTranslator::slot(rt::WeightSlotOp op, llvm::ArrayRef<uint64_t> sizes) {
  auto type = cast<RankedTensorType>(op.getType());
  const auto columns =
      static_cast<uint64_t>(type.getDimSize(type.getRank() - 1));
  const auto rows =
      type.getRank() == 2 ? static_cast<uint64_t>(type.getDimSize(0)) : 1;
  auto split = schema::WeightSplit::Whole;
  if (op.getRanges())
    split = op.getSplit() == lm::MatmulSplit::N ? schema::WeightSplit::N
                                                : schema::WeightSplit::K;
  const std::string_view format = blockFormatInfo(*lm::formatOf(type)).name;
  auto name = fbb.CreateString(op.getName().str());
  auto formatName = fbb.CreateString(format.data(), format.size());
  auto sizeList = fbb.CreateVector(sizes.data(), sizes.size());
  return schema::CreateWeightSlot(fbb, name, formatName, rows, columns, split,
                                  sizeList);
}

llvm::Expected<fb::Offset<schema::Body>>
ProgramTranslator::body(const ProgramBody &body,
                        llvm::ArrayRef<uint64_t> sizes) {
  const size_t shares = program.getShares();
  Offsets<schema::WeightSlot> slots;
  for (size_t i = 0; i < body.slots.size(); ++i)
    slots.push_back(slot(body.slots[i], sizes.slice(i * shares, shares)));
  Offsets<schema::Instruction> instructions;
  for (Operation *op : body.instructions) {
    if (auto join = dyn_cast<rt::JoinOp>(op)) {
      instructions.push_back(schema::CreateInstruction(
          fbb, schema::Op::Join, joinWhen(join.getWhen())));
      continue;
    }
    auto dispatched = dyn_cast<rt::DispatchOp>(op);
    if (!dispatched)
      return malformed(body.name + " holds " + op->getName().getStringRef() +
                       "; only dispatches and joins are wanted");
    llvm::Expected<fb::Offset<schema::Instruction>> instruction =
        dispatch(dispatched, body);
    if (!instruction)
      return instruction.takeError();
    instructions.push_back(*instruction);
  }
  auto name = fbb.CreateString(body.name);
  auto slotList = fbb.CreateVector(slots);
  return schema::CreateBody(fbb, name, slotList,
                            fbb.CreateVector(instructions));
}

/// The cache of a layer, from the type that its kernels take.
llvm::Expected<schema::KvLayer>
ProgramTranslator::kvLayer(const ProgramBody &body) const {
  for (Operation *op : body.instructions) {
    auto dispatch = dyn_cast<rt::DispatchOp>(op);
    auto kernel =
        dispatch ? kernelIndex.find(dispatch.getKernel()) : kernelIndex.end();
    if (kernel == kernelIndex.end())
      continue;
    rt::KernelOp kernelOp = kernelRefs[kernel->second].op;
    for (Type type : kernelOp.getFunctionType().getInputs())
      if (auto kv = dyn_cast<lm::KvCacheType>(type)) {
        const KvLayout layout(kv);
        const schema::KvElement element =
            layout.isInt8                 ? schema::KvElement::Int8
            : kv.getElementType().isF32() ? schema::KvElement::F32
                                          : schema::KvElement::F16;
        return schema::KvLayer(static_cast<uint64_t>(layout.pageBytes()),
                               static_cast<uint32_t>(kv.getHeads()),
                               static_cast<uint32_t>(kv.getHeadDim()),
                               static_cast<uint32_t>(kv.getPage()), element);
      }
  }
  return malformed(body.name + " has no kernel with a KV cache");
}

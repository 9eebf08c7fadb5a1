#include "codegen/artifact/ManifestBuilder.h"

#include "codegen/target/Target.h"
#include "runtime/schema/file_header.h"
#include "runtime/schema/kernel_abi.h"
#include "llvm/ADT/StringMap.h"

using namespace mlir;
using namespace quern;
namespace fb = flatbuffers;

template <typename T> using Offsets = std::vector<fb::Offset<T>>;

static llvm::Error malformed(const llvm::Twine &message) {
  return compileError(ExitCode::Malformed, message);
}

static schema::Hash256 hash256(const Digest &digest) {
  return schema::Hash256(fb::span<const uint8_t, 32>(digest.data(), 32));
}

static schema::RowClass rowClass(rt::RowSpace rows) {
  return rows == rt::RowSpace::Logits ? schema::RowClass::Logits
                                      : schema::RowClass::Tokens;
}

/// What follows the pool of pages where a kernel takes a cache (section 5 of
/// docs/architecture.md).
static constexpr schema::StepInput kKvStepInputs[] = {
    schema::StepInput::PageTable, schema::StepInput::AttentionTiles,
    schema::StepInput::Slots, schema::StepInput::RowSequences};

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

namespace {
class ManifestTranslator {
public:
  explicit ManifestTranslator(const ManifestInputs &inputs)
      : in(inputs), module(inputs.module), program(inputs.program) {}
  llvm::Expected<std::vector<uint8_t>> run();

private:
  /// What a buffer's symbol means to a dispatch.
  struct BufferRef {
    rt::BufferKind kind;
    uint32_t index;
    bool partial;
  };
  struct KernelRef {
    uint32_t index;
    rt::KernelOp op;
    /// Range segments of its dispatches; unset before the first.
    std::optional<uint32_t> ranges;
  };

  fb::Offset<schema::ModelInfo> model();
  fb::Offset<fb::Vector<fb::Offset<schema::Segment>>> segments();
  fb::Offset<fb::Vector<fb::Offset<schema::Target>>> targets();
  llvm::Error collectBuffers();
  llvm::Expected<fb::Offset<schema::Kernel>> kernel(const KernelRef &kernel);
  llvm::Expected<Offsets<schema::GpuKernelCode>>
  gpuKernelCodes(const std::string &kernel);
  llvm::Expected<fb::Offset<schema::Body>> body(size_t index);
  llvm::Expected<fb::Offset<schema::Instruction>>
  dispatch(rt::DispatchOp op, const ProgramBody &body);
  llvm::Expected<schema::Arg> argument(rt::DispatchOp op, size_t position,
                                       KernelRef &kernel,
                                       const ProgramBody &body);
  fb::Offset<schema::WeightSlot> slot(rt::WeightSlotOp op,
                                      llvm::ArrayRef<uint64_t> sizes);
  llvm::Expected<schema::KvLayer> kvLayer(const ProgramBody &body) const;
  fb::Offset<schema::BodyCall> call(size_t body, const CallWeights &weights);
  uint32_t segmentOf(llvm::StringRef name) const;

  int64_t integer(StringRef key) const {
    auto attr = modelAttr ? modelAttr.getAs<IntegerAttr>(key) : IntegerAttr();
    return attr ? attr.getInt() : 0;
  }
  std::string text(StringRef key) const {
    auto attr = modelAttr ? modelAttr.getAs<StringAttr>(key) : StringAttr();
    return attr ? attr.getValue().str() : "";
  }

  const ManifestInputs &in;
  ModuleOp module;
  rt::ProgramOp program;
  DictionaryAttr modelAttr;
  fb::FlatBufferBuilder fbb;
  Offsets<schema::Buffer> buffers;
  llvm::StringMap<BufferRef> bufferRefs;
  std::vector<KernelRef> kernels;
  llvm::StringMap<uint32_t> kernelIndex;
  bool precise = false;
};
} // namespace

//===----------------------------------------------------------------------===//
// Model, segments, targets
//===----------------------------------------------------------------------===//

fb::Offset<schema::ModelInfo> ManifestTranslator::model() {
  auto name = fbb.CreateString(text("name"));
  auto family = fbb.CreateString(text("family"));
  const std::string licence = text("licence");
  auto licenceText =
      licence.empty() ? fb::Offset<fb::String>() : fbb.CreateString(licence);
  schema::ModelInfoBuilder info(fbb);
  info.add_name(name);
  info.add_family(family);
  info.add_vocab(static_cast<uint32_t>(integer("vocab")));
  info.add_hidden(static_cast<uint32_t>(integer("hidden")));
  info.add_layers(static_cast<uint32_t>(in.bodies.layers.size()));
  info.add_heads(static_cast<uint32_t>(integer("heads")));
  info.add_kv_heads(static_cast<uint32_t>(integer("kv_heads")));
  info.add_head_dim(static_cast<uint32_t>(integer("head_dim")));
  info.add_ffn(static_cast<uint32_t>(integer("ffn")));
  info.add_context(static_cast<uint32_t>(integer("context")));
  info.add_parameters(in.weights.parameters);
  if (!licence.empty())
    info.add_licence(licenceText);
  schema::Hash256 source;
  if (in.sourceHash) {
    source = hash256(*in.sourceHash);
    info.add_source_hash(&source);
  }
  return info.Finish();
}

fb::Offset<fb::Vector<fb::Offset<schema::Segment>>>
ManifestTranslator::segments() {
  Offsets<schema::Segment> records;
  for (const SegmentRecord &segment : in.segments) {
    const schema::Hash256 hash = hash256(segment.hash);
    records.push_back(
        schema::CreateSegment(fbb, segment.kind, fbb.CreateString(segment.name),
                              segment.offset, segment.size, &hash));
  }
  return fbb.CreateVector(records);
}

uint32_t ManifestTranslator::segmentOf(llvm::StringRef name) const {
  for (size_t i = 0; i < in.segments.size(); ++i)
    if (in.segments[i].name == name)
      return static_cast<uint32_t>(i);
  llvm_unreachable("every image has a segment");
}

fb::Offset<fb::Vector<fb::Offset<schema::Target>>>
ManifestTranslator::targets() {
  Offsets<schema::Target> records;
  for (const host::CodeImage &image : in.images) {
    Offsets<fb::String> features;
    if (const Target *target = findTarget(image.target))
      for (const CpuFeature &feature : target->features)
        features.push_back(
            fbb.CreateString(feature.llvmName.data(), feature.llvmName.size()));
    auto featureList = fbb.CreateVector(features);
    records.push_back(schema::CreateTarget(fbb, fbb.CreateString(image.target),
                                           featureList,
                                           segmentOf("code." + image.target)));
  }
  for (const nvptx::PtxImage &image : in.ptxImages) {
    const GpuFacts gpu = findTarget(image.target)->gpu;
    records.push_back(schema::CreateTarget(
        fbb, fbb.CreateString(image.target),
        fbb.CreateVector(Offsets<fb::String>()),
        segmentOf("ptx." + image.target), schema::TargetKind::Gpu, gpu.sm,
        gpu.exact, gpu.ptxVersion));
  }
  return fbb.CreateVector(records);
}

//===----------------------------------------------------------------------===//
// Buffers and kernels
//===----------------------------------------------------------------------===//

llvm::Error ManifestTranslator::collectBuffers() {
  for (auto op : program.getBody().getOps<rt::BufferOp>()) {
    const auto copies = static_cast<uint32_t>(op.getCopies());
    const std::string name = op.getSymName().str();
    bufferRefs[name] = {op.getKind(), static_cast<uint32_t>(buffers.size()),
                        copies > 1};
    if (op.getKind() == rt::BufferKind::Logits)
      continue;
    if (!op.getOffset())
      return malformed("buffer @" + name +
                       " has no place in memory; run --rt-plan-memory first");
    buffers.push_back(schema::CreateBuffer(
        fbb, fbb.CreateString(name), op.getBytesPerRow(),
        rowClass(op.getRows()), copies, op.getPrivateCopy(), *op.getOffset(),
        op.getPrivateOffset().value_or(0)));
  }
  return llvm::Error::success();
}

llvm::Expected<Offsets<schema::GpuKernelCode>>
ManifestTranslator::gpuKernelCodes(const std::string &kernel) {
  static_assert(static_cast<int>(nvptx::GridCount::AttentionTiles) ==
                static_cast<int>(schema::GridCount::AttentionTiles));
  Offsets<schema::GpuKernelCode> codes;
  // GPU targets follow the host's.
  auto target = static_cast<uint32_t>(in.images.size());
  for (const nvptx::PtxImage &image : in.ptxImages) {
    const size_t before = codes.size();
    for (const nvptx::PtxKernel &code : image.kernels) {
      if (code.kernel != kernel)
        continue;
      std::vector<schema::GridFactor> grid;
      for (const nvptx::GridFactor &factor : code.launch.grid)
        grid.emplace_back(factor.per,
                          static_cast<schema::GridCount>(factor.count));
      auto gridList = fbb.CreateVectorOfStructs(grid);
      codes.push_back(schema::CreateGpuKernelCode(
          fbb, target, static_cast<schema::Role>(code.role),
          fbb.CreateString(code.entry), code.launch.blockThreads,
          code.launch.sharedBytes, gridList));
    }
    if (codes.size() != before + kRoleCount)
      return compileError(ExitCode::Failure, "no PTX of kernel @" + kernel +
                                                 " for " + image.target);
    ++target;
  }
  return codes;
}

llvm::Expected<fb::Offset<schema::Kernel>>
ManifestTranslator::kernel(const KernelRef &kernel) {
  rt::KernelOp op = kernel.op;
  const std::string name = op.getSymName().str();
  std::vector<schema::KernelCode> codes;
  for (size_t target = 0; target < in.images.size(); ++target)
    for (int role = 0; role < kRoleCount; ++role) {
      auto code = llvm::find_if(
          in.images[target].kernels, [&](const host::KernelCode &code) {
            return code.kernel == name && static_cast<int>(code.role) == role;
          });
      if (code == in.images[target].kernels.end())
        return compileError(ExitCode::Failure,
                            "no code of kernel @" + name + " for " +
                                in.images[target].target + "/" +
                                roleName(static_cast<Role>(role)).data());
      codes.emplace_back(code->offset, code->scratchBytes,
                         static_cast<uint32_t>(target),
                         static_cast<schema::Role>(role));
    }
  auto codeList = fbb.CreateVectorOfStructs(codes);
  llvm::Expected<Offsets<schema::GpuKernelCode>> gpuCodes =
      gpuKernelCodes(name);
  if (!gpuCodes)
    return gpuCodes.takeError();
  return schema::CreateKernel(fbb, fbb.CreateString(name), codeList,
                              argumentCount(op), kernel.ranges.value_or(0),
                              fbb.CreateVector(*gpuCodes));
}

//===----------------------------------------------------------------------===//
// Bodies
//===----------------------------------------------------------------------===//

/// Whether an operand of the kernel's region is a cache that it appends to.
static bool appendsToCache(rt::KernelOp kernel) {
  return llvm::any_of(kernel.getFunctionType().getResults(),
                      [](Type type) { return isa<lm::KvCacheType>(type); });
}

llvm::Expected<schema::Arg>
ManifestTranslator::argument(rt::DispatchOp op, size_t position,
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
ManifestTranslator::dispatch(rt::DispatchOp op, const ProgramBody &body) {
  auto found = kernelIndex.find(op.getKernel());
  if (found == kernelIndex.end())
    return malformed("a dispatch in " + body.name + " names kernel @" +
                     op.getKernel() + ", which the module does not have");
  KernelRef &kernel = kernels[found->second];
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
      for (schema::StepInput input : kKvStepInputs)
        args.push_back(schema::Arg(schema::ArgKind::Step, schema::Access::Read,
                                   static_cast<uint32_t>(input)));
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
      rowClass(op.getRows()), argList, rangeList);
}

fb::Offset<schema::WeightSlot>
ManifestTranslator::slot(rt::WeightSlotOp op, llvm::ArrayRef<uint64_t> sizes) {
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
ManifestTranslator::body(size_t index) {
  const ProgramBody &body = in.bodies.bodies[index];
  const size_t shares = program.getShares();
  Offsets<schema::WeightSlot> slots;
  for (size_t i = 0; i < body.slots.size(); ++i)
    slots.push_back(slot(
        body.slots[i],
        llvm::ArrayRef(in.weights.sizes[index]).slice(i * shares, shares)));
  Offsets<schema::Instruction> instructions;
  for (Operation *op : body.instructions) {
    if (auto join = dyn_cast<rt::JoinOp>(op)) {
      instructions.push_back(schema::CreateInstruction(
          fbb, schema::Op::Join,
          join.getWhen() == rt::JoinWhen::Rows ? schema::JoinWhen::Rows
                                               : schema::JoinWhen::Always));
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

fb::Offset<schema::BodyCall>
ManifestTranslator::call(size_t body, const CallWeights &weights) {
  return schema::CreateBodyCall(fbb, static_cast<uint32_t>(body),
                                fbb.CreateVector(weights.offsets));
}

/// The cache of a layer, from the type that its kernels take.
llvm::Expected<schema::KvLayer>
ManifestTranslator::kvLayer(const ProgramBody &body) const {
  for (Operation *op : body.instructions) {
    auto dispatch = dyn_cast<rt::DispatchOp>(op);
    auto kernel =
        dispatch ? kernelIndex.find(dispatch.getKernel()) : kernelIndex.end();
    if (kernel == kernelIndex.end())
      continue;
    rt::KernelOp kernelOp = kernels[kernel->second].op;
    for (Type type : kernelOp.getFunctionType().getInputs())
      if (auto kv = dyn_cast<lm::KvCacheType>(type)) {
        const bool wide = kv.getElementType().isF32();
        const auto bytes = static_cast<uint64_t>(2 * kv.getRowElements() *
                                                 kv.getPage() * (wide ? 4 : 2));
        return schema::KvLayer(bytes, static_cast<uint32_t>(kv.getHeads()),
                               static_cast<uint32_t>(kv.getHeadDim()),
                               static_cast<uint32_t>(kv.getPage()),
                               wide ? schema::KvElement::F32
                                    : schema::KvElement::F16);
      }
  }
  return malformed(body.name + " has no kernel with a KV cache");
}

//===----------------------------------------------------------------------===//
// The whole
//===----------------------------------------------------------------------===//

llvm::Expected<std::vector<uint8_t>> ManifestTranslator::run() {
  modelAttr = module->getAttrOfType<DictionaryAttr>(lm::LmDialect::kModelAttr);
  for (auto op : module.getOps<rt::KernelOp>()) {
    kernelIndex[op.getSymName()] = static_cast<uint32_t>(kernels.size());
    kernels.push_back(
        {static_cast<uint32_t>(kernels.size()), op, std::nullopt});
  }
  if (llvm::Error error = collectBuffers())
    return std::move(error);

  Offsets<schema::Body> bodies;
  for (size_t i = 0; i < in.bodies.bodies.size(); ++i) {
    llvm::Expected<fb::Offset<schema::Body>> built = body(i);
    if (!built)
      return built.takeError();
    bodies.push_back(*built);
  }
  Offsets<schema::Kernel> kernelList;
  for (const KernelRef &ref : kernels) {
    llvm::Expected<fb::Offset<schema::Kernel>> built = kernel(ref);
    if (!built)
      return built.takeError();
    kernelList.push_back(*built);
  }
  Offsets<schema::BodyCall> layers;
  std::vector<schema::KvLayer> kv;
  for (size_t i = 0; i < in.bodies.layers.size(); ++i) {
    const size_t index = in.bodies.layers[i];
    llvm::Expected<schema::KvLayer> cache = kvLayer(in.bodies.bodies[index]);
    if (!cache)
      return cache.takeError();
    precise |= cache->element() == schema::KvElement::F32;
    kv.push_back(*cache);
    layers.push_back(call(index, in.weights.layers[i]));
  }

  auto manifest = schema::CreateManifest(
      fbb, kManifestVersion, fbb.CreateString(in.producer), model(), segments(),
      targets(), static_cast<uint32_t>(program.getShares()), precise,
      fbb.CreateVector(kernelList), fbb.CreateVector(buffers),
      fbb.CreateVector(bodies), call(0, in.weights.prologue),
      fbb.CreateVector(layers),
      call(in.bodies.bodies.size() - 1, in.weights.epilogue),
      fbb.CreateVectorOfStructs(kv), program.getArenaBytesPerRow().value_or(0),
      program.getLogitBytesPerRow().value_or(0),
      program.getPrivateBytesPerRow().value_or(0));
  schema::FinishManifestBuffer(fbb, manifest);
  return std::vector<uint8_t>(fbb.GetBufferPointer(),
                              fbb.GetBufferPointer() + fbb.GetSize());
}

llvm::Expected<std::vector<uint8_t>>
quern::buildManifest(const ManifestInputs &inputs) {
  return ManifestTranslator(inputs).run();
}

llvm::Expected<rt::ProgramOp> quern::findProgram(ModuleOp module) {
  auto programs = module.getOps<rt::ProgramOp>();
  if (programs.empty() || std::next(programs.begin()) != programs.end())
    return malformed(
        "the module has " +
        llvm::Twine(std::distance(programs.begin(), programs.end())) +
        " rt.program ops; exactly one is wanted");
  return *programs.begin();
}

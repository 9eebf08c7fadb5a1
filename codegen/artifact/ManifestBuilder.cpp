#include "codegen/artifact/ManifestBuilder.h"
#include "codegen/artifact/ManifestProgram.h"

#include "codegen/kernels/KernelWork.h"
#include "codegen/target/Target.h"
#include "dialects/rt/KernelSignature.h"
#include "runtime/schema/file_header.h"
#include "runtime/schema/plain_text.h"

using namespace mlir;
using namespace quern;
namespace fb = flatbuffers;

template <typename T> using Offsets = std::vector<fb::Offset<T>>;

static schema::Hash256 hash256(const Digest &digest) {
  return schema::Hash256(fb::span<const uint8_t, 32>(digest.data(), 32));
}

namespace {
class ManifestTranslator {
public:
  explicit ManifestTranslator(const ManifestInputs &inputs)
      : in(inputs), program(inputs.module, inputs.program, fbb) {}
  llvm::Expected<std::vector<uint8_t>> run();

private:
  fb::Offset<schema::ModelInfo> model();
  fb::Offset<fb::Vector<fb::Offset<schema::Segment>>> segments();
  fb::Offset<fb::Vector<fb::Offset<schema::Target>>> targets();
  llvm::Expected<fb::Offset<schema::Kernel>>
  kernel(const ProgramTranslator::KernelRef &kernel);
  llvm::Expected<Offsets<schema::GpuKernelCode>>
  gpuKernelCodes(const std::string &kernel);
  fb::Offset<schema::GpuKernelCode> gpuCode(uint32_t target, Role role,
                                            const std::string &entry,
                                            const nvptx::Launch &launch);
  Offsets<schema::KernelForm> forms(const std::string &kernel);
  fb::Offset<schema::KernelWork> work(rt::KernelOp op);
  fb::Offset<fb::Vector<fb::Offset<schema::GpuSampler>>> samplers();
  fb::Offset<schema::BodyCall> call(size_t body, const CallWeights &weights);
  uint32_t segmentOf(llvm::StringRef name) const;

  int64_t integer(StringRef key) const {
    auto attr = modelAttr ? modelAttr.getAs<IntegerAttr>(key) : IntegerAttr();
    return attr ? attr.getInt() : 0;
  }
  /// A text of the model, as a manifest may hold it.
  std::string text(StringRef key) const {
    auto attr = modelAttr ? modelAttr.getAs<StringAttr>(key) : StringAttr();
    return attr ? PlainText(attr.getValue()) : "";
  }

  const ManifestInputs &in;
  DictionaryAttr modelAttr;
  fb::FlatBufferBuilder fbb;
  ProgramTranslator program;
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
    const Target &target = *findTarget(image.target);
    const GpuFacts &gpu = target.gpu;
    records.push_back(schema::CreateTarget(
        fbb, fbb.CreateString(image.target),
        fbb.CreateVector(Offsets<fb::String>()),
        segmentOf("ptx." + image.target), schema::TargetKind::Gpu, gpu.sm,
        gpu.exact, gpu.ptxVersion, target.attentionTileRows));
  }
  return fbb.CreateVector(records);
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

fb::Offset<schema::GpuKernelCode>
ManifestTranslator::gpuCode(uint32_t target, Role role,
                            const std::string &entry,
                            const nvptx::Launch &launch) {
  static_assert(static_cast<int>(nvptx::GridCount::Pages) ==
                static_cast<int>(schema::GridCount::Pages));
  std::vector<schema::GridFactor> grid;
  for (const nvptx::GridFactor &factor : launch.grid)
    grid.emplace_back(factor.per, static_cast<schema::GridCount>(factor.count));
  auto entryName = fbb.CreateString(entry);
  auto gridList = fbb.CreateVectorOfStructs(grid);
  return schema::CreateGpuKernelCode(
      fbb, target, static_cast<schema::Role>(role), entryName,
      launch.blockThreads, launch.sharedBytes, gridList,
      static_cast<uint32_t>(launch.workspaceBytesPerRow),
      launch.countersPerRow);
}

/// Every target has the same samplers.
fb::Offset<fb::Vector<fb::Offset<schema::GpuSampler>>>
ManifestTranslator::samplers() {
  Offsets<schema::GpuSampler> samplers;
  const size_t count =
      in.ptxImages.empty() ? 0 : in.ptxImages.front().samplers.size();
  for (size_t i = 0; i < count; ++i) {
    Offsets<schema::GpuKernelCode> codes;
    for (auto [index, image] : llvm::enumerate(in.ptxImages)) {
      const nvptx::PtxSampler &sampler = image.samplers[i];
      codes.push_back(gpuCode(static_cast<uint32_t>(in.images.size() + index),
                              Role::Decode, sampler.entry, sampler.launch));
    }
    samplers.push_back(schema::CreateGpuSampler(
        fbb, in.ptxImages.front().samplers[i].candidates,
        fbb.CreateVector(codes)));
  }
  return fbb.CreateVector(samplers);
}

llvm::Expected<Offsets<schema::GpuKernelCode>>
ManifestTranslator::gpuKernelCodes(const std::string &kernel) {
  Offsets<schema::GpuKernelCode> codes;
  // GPU targets follow the host's.
  auto target = static_cast<uint32_t>(in.images.size());
  for (const nvptx::PtxImage &image : in.ptxImages) {
    const size_t before = codes.size();
    for (const nvptx::PtxKernel &code : image.kernels) {
      if (code.kernel == kernel)
        codes.push_back(gpuCode(target, code.role, code.entry, code.launch));
    }
    if (codes.size() != before + kRoleCount)
      return compileError(ExitCode::Failure, "no PTX of kernel @" + kernel +
                                                 " for " + image.target);
    ++target;
  }
  return codes;
}

static schema::Arithmetic arithmeticOf(Numerics numerics) {
  switch (numerics) {
  case Numerics::Int8:
    return schema::Arithmetic::Int8;
  case Numerics::Bf16:
    return schema::Arithmetic::Bf16;
  case Numerics::F16:
    return schema::Arithmetic::F16;
  case Numerics::Float:
    return schema::Arithmetic::F32;
  case Numerics::E4M3:
    return schema::Arithmetic::E4M3;
  case Numerics::Int16:
    return schema::Arithmetic::Int16;
  }
  llvm_unreachable("all numerics are listed");
}

static fb::Offset<schema::KernelForm> formRecord(fb::FlatBufferBuilder &fbb,
                                                 uint32_t target, Role role,
                                                 const KernelForm &form) {
  auto generator =
      fbb.CreateString(form.generator.data(), form.generator.size());
  return schema::CreateKernelForm(fbb, target, static_cast<schema::Role>(role),
                                  generator, arithmeticOf(form.arithmetic),
                                  static_cast<uint32_t>(form.tile.rows),
                                  static_cast<uint32_t>(form.tile.blocks),
                                  static_cast<uint32_t>(form.tile.keys),
                                  static_cast<uint32_t>(form.tile.prefetch));
}

Offsets<schema::KernelForm>
ManifestTranslator::forms(const std::string &kernel) {
  Offsets<schema::KernelForm> forms;
  uint32_t target = 0;
  auto add = [&](const auto &images) {
    for (const auto &image : images) {
      for (const auto &code : image.kernels)
        if (code.kernel == kernel)
          forms.push_back(formRecord(fbb, target, code.role, code.form));
      ++target;
    }
  };
  add(in.images);
  add(in.ptxImages);
  return forms;
}

fb::Offset<schema::KernelWork> ManifestTranslator::work(rt::KernelOp op) {
  const KernelWork work = workOf(op);
  return schema::CreateKernelWork(fbb, static_cast<uint64_t>(work.flopsPerRow),
                                  static_cast<uint64_t>(work.flopsPerPair),
                                  static_cast<uint64_t>(work.bytesPerRow),
                                  static_cast<uint64_t>(work.bytesPerKey),
                                  static_cast<uint64_t>(work.window),
                                  work.gathersWeights);
}

llvm::Expected<fb::Offset<schema::Kernel>>
ManifestTranslator::kernel(const ProgramTranslator::KernelRef &kernel) {
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
  auto nameText = fbb.CreateString(name);
  auto gpuCodeList = fbb.CreateVector(*gpuCodes);
  auto formList = fbb.CreateVector(forms(name));
  auto signature = fbb.CreateString(rt::kernelSignature(op));
  return schema::CreateKernel(fbb, nameText, codeList, kernel.arguments,
                              kernel.ranges.value_or(0), gpuCodeList, formList,
                              work(op), signature);
}

//===----------------------------------------------------------------------===//
// The whole
//===----------------------------------------------------------------------===//

fb::Offset<schema::BodyCall>
ManifestTranslator::call(size_t body, const CallWeights &weights) {
  return schema::CreateBodyCall(fbb, static_cast<uint32_t>(body),
                                fbb.CreateVector(weights.offsets));
}

llvm::Expected<std::vector<uint8_t>> ManifestTranslator::run() {
  modelAttr =
      in.module->getAttrOfType<DictionaryAttr>(lm::LmDialect::kModelAttr);
  if (llvm::Error error = program.collect())
    return std::move(error);

  Offsets<schema::Body> bodies;
  for (size_t i = 0; i < in.bodies.bodies.size(); ++i) {
    llvm::Expected<fb::Offset<schema::Body>> built =
        program.body(in.bodies.bodies[i], in.weights.sizes[i]);
    if (!built)
      return built.takeError();
    bodies.push_back(*built);
  }
  Offsets<schema::Kernel> kernelList;
  for (const ProgramTranslator::KernelRef &ref : program.kernels()) {
    llvm::Expected<fb::Offset<schema::Kernel>> built = kernel(ref);
    if (!built)
      return built.takeError();
    kernelList.push_back(*built);
  }
  Offsets<schema::BodyCall> layers;
  std::vector<schema::KvLayer> kv;
  bool precise = false;
  for (size_t i = 0; i < in.bodies.layers.size(); ++i) {
    const size_t index = in.bodies.layers[i];
    llvm::Expected<schema::KvLayer> cache =
        program.kvLayer(in.bodies.bodies[index]);
    if (!cache)
      return cache.takeError();
    precise |= cache->element() == schema::KvElement::F32;
    kv.push_back(*cache);
    layers.push_back(call(index, in.weights.layers[i]));
  }

  rt::ProgramOp plan = in.program;
  auto manifest = schema::CreateManifest(
      fbb, kManifestVersion, fbb.CreateString(in.producer), model(), segments(),
      targets(), static_cast<uint32_t>(plan.getShares()), precise,
      fbb.CreateVector(kernelList), fbb.CreateVector(program.buffers()),
      fbb.CreateVector(bodies), call(0, in.weights.prologue),
      fbb.CreateVector(layers),
      call(in.bodies.bodies.size() - 1, in.weights.epilogue),
      fbb.CreateVectorOfStructs(kv), plan.getArenaBytesPerRow().value_or(0),
      plan.getLogitBytesPerRow().value_or(0),
      plan.getPrivateBytesPerRow().value_or(0), samplers(),
      fbb.CreateVectorOfStrings(in.tuning));
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
    return compileError(
        ExitCode::Malformed,
        "the module has " +
            llvm::Twine(std::distance(programs.begin(), programs.end())) +
            " rt.program ops; exactly one is wanted");
  return *programs.begin();
}

//===- PtxCodegen.cpp - rt.kernel ops to PTX text -------------------------===//
#include "codegen/ptx/PtxCodegen.h"

#include "codegen/ptx/Kernel.h"
#include "codegen/ptx/Lowering.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "runtime/schema/kernel_abi.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;

namespace quern::nvptx {
namespace {

class ImageBuilder {
public:
  ImageBuilder(ModuleOp module, const Target &target, const PtxOptions &options)
      : context(module.getContext()), target(target), options(options),
        emitter(target) {
    image.target = target.name;
    module.walk([&](rt::DispatchOp op) {
      unsigned &segments = dispatchSegments[op.getKernel()];
      if (auto ranges = op.getRanges())
        segments = std::max<unsigned>(segments, ranges->getSegments());
    });
  }

  LogicalResult add(rt::KernelOp op);
  /// Adds samplers of logits over `vocab` tokens.
  LogicalResult addSamplers(int64_t vocab);
  PtxImage take() { return std::move(image); }

private:
  struct Generated {
    std::string entry;
    Launch launch;
    KernelForm form;
    KernelFamily family;
  };
  FailureOr<Generated> generate(rt::KernelOp op, Role role);
  /// A name that PTX takes and no other entry has.
  std::string entryName(StringRef kernel, Role role);
  void append(StringRef text);

  MLIRContext *context;
  const Target &target;
  const PtxOptions &options;
  PtxEmitter emitter;
  PtxImage image;
  llvm::StringSet<> names;
  llvm::StringMap<unsigned> dispatchSegments;
};

std::string ImageBuilder::entryName(StringRef kernel, Role role) {
  std::string name = (kernel + "_").str() + std::string(roleName(role));
  for (char &c : name)
    if (!llvm::isAlnum(c))
      c = '_';
  if (!llvm::isAlpha(name.front()))
    name.insert(0, "k");
  std::string unique = name;
  for (int i = 1; !names.insert(unique).second; ++i)
    unique = name + "_" + std::to_string(i);
  return unique;
}

void ImageBuilder::append(StringRef text) {
  // The directives of the module come once.
  constexpr StringLiteral kLastDirective = ".address_size 64\n";
  if (!image.text.empty())
    text = text.substr(text.find(kLastDirective) + kLastDirective.size());
  image.text += text;
}

/// Marks the parameters that no kernel writes, so that loads of weights go
/// through the read-only path.
void markWeights(rt::KernelOp op, LLVM::LLVMFuncOp function) {
  unsigned position = 0;
  for (BlockArgument argument : op.getBody().front().getArguments()) {
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (type && type.hasStaticShape()) {
      function.setArgAttr(position, LLVM::LLVMDialect::getNoAliasAttrName(),
                          UnitAttr::get(op.getContext()));
      function.setArgAttr(position, LLVM::LLVMDialect::getReadonlyAttrName(),
                          UnitAttr::get(op.getContext()));
    }
    position += isa<lm::KvCacheType>(argument.getType()) ? KvArgs::kCount : 1;
  }
}

/// The scale of an e4m3 row is known when the whole row is, which only kernels
/// that work row by row have.
LogicalResult checkScaledRows(Kernel &kernel, KernelFamily family) {
  for (Value result : kernel.yielded())
    if (family != KernelFamily::Rows &&
        isa<RankedTensorType>(result.getType()) && kernel.hasFp8Rows(result))
      return kernel.emitError()
             << "gives pieces of e4m3 rows, whose scale is of a whole row; "
                "quantize in a kernel split over rows";
  return success();
}

FailureOr<ImageBuilder::Generated> ImageBuilder::generate(rt::KernelOp op,
                                                          Role role) {
  Location loc = op.getLoc();
  OwningOpRef<ModuleOp> module = ModuleOp::create(loc);
  OpBuilder builder(context);
  builder.setInsertionPointToEnd(module->getBody());
  SmallVector<Type> parameters(pointerCount(op),
                               LLVM::LLVMPointerType::get(context, kGlobal));
  parameters.append(kDimCount, builder.getI64Type());
  Type none = LLVM::LLVMVoidType::get(context);
  std::string name = entryName(op.getSymName(), role);
  auto function = LLVM::LLVMFuncOp::create(
      builder, loc, name, LLVM::LLVMFunctionType::get(none, parameters));
  Block *entry = function.addEntryBlock(builder);
  builder.setInsertionPointToStart(entry);

  Emitter e(builder, loc, target);
  Kernel kernel(e, op, role, entry);
  const auto *generator = chooseGenerator(kernelGenerators(), kernel);
  if (!generator || failed(checkScaledRows(kernel, generator->family)) ||
      failed(generator->generate(kernel)))
    return failure();
  kernel.addRanges(std::max(1u, dispatchSegments.lookup(op.getSymName())));
  LLVM::ReturnOp::create(builder, loc, ValueRange());
  function.setFunctionType(LLVM::LLVMFunctionType::get(
      none, SmallVector<Type>(entry->getArgumentTypes())));
  function->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(),
                    builder.getUnitAttr());
  function->setAttr(
      NVVM::NVVMDialect::getMaxntidAttrName(),
      builder.getDenseI32ArrayAttr(
          {static_cast<int32_t>(kernel.launch.blockThreads), 1, 1}));
  function->setAttr(NVVM::NVVMDialect::getMinctasmAttrName(),
                    builder.getI32IntegerAttr(1));
  markWeights(op, function);
  if (kernel.launch.sharedBytes > target.gpu.sharedBytes) {
    kernel.emitError() << "takes " << kernel.launch.sharedBytes
                       << " bytes of shared memory; a block of " << target.name
                       << " has " << target.gpu.sharedBytes;
    return failure();
  }

  std::string prefix;
  if (!options.dumpKernelsTo.empty())
    prefix = options.dumpKernelsTo + "/" + op.getSymName().str() + "." +
             std::string(target.name) + "." + std::string(roleName(role));
  FailureOr<std::string> text = emitter.emit(*module, prefix);
  if (failed(text))
    return failure();
  append(*text);
  KernelForm form = formOf(*generator, kernel);
  if (options.explain)
    options.explain(llvm::formatv(
        "{0} {1}/{2}: {3} ({9}; {10}), rows {4}, blocks {5}, keys {6}, {7} "
        "threads, "
        "{8} bytes of shared memory",
        op.getSymName(), std::string(target.name), std::string(roleName(role)),
        generator->name, kernel.tile.rows, kernel.tile.blocks, kernel.tile.keys,
        kernel.launch.blockThreads, kernel.launch.sharedBytes,
        generator->reason, std::string(numericsName(form.arithmetic))));
  return Generated{name, kernel.launch, form, generator->family};
}

LogicalResult ImageBuilder::add(rt::KernelOp op) {
  FailureOr<Generated> decode = generate(op, Role::Decode);
  if (failed(decode))
    return failure();
  image.kernels.push_back({op.getSymName().str(), Role::Decode, decode->entry,
                           decode->launch, decode->form});
  // The roles share an entry where neither numerics nor algorithm can differ.
  FailureOr<Generated> prefill = decode;
  if (decode->family != KernelFamily::Rows || touchesActivations(op))
    prefill = generate(op, Role::Prefill);
  if (failed(prefill))
    return failure();
  image.kernels.push_back({op.getSymName().str(), Role::Prefill, prefill->entry,
                           prefill->launch, prefill->form});
  return success();
}

/// rt.kernel @top_K, the K best of `vocab` logits.
OwningOpRef<ModuleOp> makeSampler(MLIRContext *context, int64_t vocab,
                                  int64_t k) {
  Location loc = UnknownLoc::get(context);
  OwningOpRef<ModuleOp> module = ModuleOp::create(loc);
  auto builder = OpBuilder::atBlockBegin(module->getBody());
  auto rows = [&](int64_t columns, Type element) -> Type {
    return RankedTensorType::get({ShapedType::kDynamic, columns}, element);
  };
  Type logits = rows(vocab, builder.getF32Type());
  SmallVector<Type> results = {rows(k, builder.getF32Type()),
                               rows(k, builder.getI32Type())};
  auto kernel = rt::KernelOp::create(builder, loc, "top_" + std::to_string(k),
                                     builder.getFunctionType(logits, results),
                                     lm::KernelSplit::Rows,
                                     /*tiles=*/DictionaryAttr());
  Block &body = kernel.getBody().emplaceBlock();
  body.addArgument(logits, loc);
  builder.setInsertionPointToEnd(&body);
  auto best = lm::TopKOp::create(builder, loc, results, body.getArgument(0), k);
  lm::YieldOp::create(builder, loc, best.getResults());
  return module;
}

LogicalResult ImageBuilder::addSamplers(int64_t vocab) {
  // Greedy sampling wants one; 256 serve top-k, a penalty of its best included.
  constexpr int64_t kCandidates[] = {1, 256};
  for (int64_t k : kCandidates) {
    if (k > 1 && k > vocab)
      return success();
    OwningOpRef<ModuleOp> module = makeSampler(context, vocab, k);
    auto kernel = *module->getOps<rt::KernelOp>().begin();
    FailureOr<Generated> generated = generate(kernel, Role::Decode);
    if (failed(generated))
      return failure();
    image.samplers.push_back(
        {static_cast<uint32_t>(k), generated->entry, generated->launch});
  }
  return success();
}

/// Columns of the program's logits; 0 without a program.
int64_t vocabOf(ModuleOp module) {
  int64_t vocab = 0;
  module.walk([&](rt::BufferOp buffer) {
    if (buffer.getKind() == rt::BufferKind::Logits)
      vocab = static_cast<int64_t>(buffer.getBytesPerRow()) / 4;
  });
  return vocab;
}

} // namespace

FailureOr<PtxImage> generatePtx(ModuleOp module, const Target &target,
                                const PtxOptions &options) {
  ImageBuilder builder(module, target, options);
  WalkResult walk = module.walk([&](rt::KernelOp op) {
    return succeeded(builder.add(op)) ? WalkResult::advance()
                                      : WalkResult::interrupt();
  });
  if (walk.wasInterrupted())
    return failure();
  if (int64_t vocab = vocabOf(module);
      vocab > 0 && failed(builder.addSamplers(vocab)))
    return failure();
  return builder.take();
}

} // namespace quern::nvptx

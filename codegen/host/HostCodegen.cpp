//===- HostCodegen.cpp - rt.kernel ops to x86-64 code images --------------===//
#include "codegen/host/HostCodegen.h"

#include "codegen/host/FlatImage.h"
#include "codegen/host/Kernel.h"
#include "codegen/host/Lowering.h"
#include "mlir/IR/Verifier.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;

namespace quern::host {
namespace {

class ImageBuilder {
public:
  ImageBuilder(MLIRContext *context, const Target &target,
               const CodegenOptions &options)
      : context(context), target(target), options(options), objects(target) {
    image.target = target.name;
  }

  LogicalResult add(rt::KernelOp op);
  CodeImage take() { return std::move(image); }

private:
  struct Generated {
    uint64_t offset, scratchBytes;
    KernelForm form;
    KernelFamily family;
  };
  FailureOr<Generated> generate(rt::KernelOp op, Role role);

  MLIRContext *context;
  const Target &target;
  const CodegenOptions &options;
  ObjectEmitter objects;
  CodeImage image;
};

FailureOr<ImageBuilder::Generated> ImageBuilder::generate(rt::KernelOp op,
                                                          Role role) {
  Location loc = op.getLoc();
  OwningOpRef<ModuleOp> module = ModuleOp::create(loc);
  OpBuilder builder(context);
  builder.setInsertionPointToEnd(module->getBody());
  Type pointer = LLVM::LLVMPointerType::get(context);
  auto type = LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(context),
                                          {pointer, pointer, pointer});
  auto function = LLVM::LLVMFuncOp::create(builder, loc, op.getSymName(), type);
  Block *entry = function.addEntryBlock(builder);
  builder.setInsertionPointToStart(entry);

  Emitter emitter(builder, loc, target);
  Kernel kernel(emitter, op, role, entry->getArguments());
  const auto *generator = chooseGenerator(kernelGenerators(), kernel);
  if (!generator || failed(generator->generate(kernel)))
    return failure();
  LLVM::ReturnOp::create(builder, loc, ValueRange());

  std::string prefix;
  if (!options.dumpKernelsTo.empty())
    prefix = options.dumpKernelsTo + "/" + op.getSymName().str() + "." +
             std::string(target.name) + "." + std::string(roleName(role));
  auto object = objects.emit(*module, prefix);
  if (failed(object))
    return failure();
  size_t before = image.bytes.size();
  llvm::Expected<uint64_t> offset =
      appendObject(image.bytes, *object, op.getSymName());
  if (!offset) {
    return kernel.emitError() << llvm::toString(offset.takeError());
  }
  KernelForm form = formOf(*generator, kernel);
  if (options.explain)
    options.explain(llvm::formatv(
        "{0} {1}/{2}: {3} ({9}; {10}), rows {4}, blocks {5}, keys {6}, "
        "prefetch {7}, "
        "{8} bytes of code",
        op.getSymName(), std::string(target.name), std::string(roleName(role)),
        generator->name, kernel.tile.rows, kernel.tile.blocks, kernel.tile.keys,
        kernel.tile.prefetch, image.bytes.size() - before, generator->reason,
        std::string(numericsName(form.arithmetic))));
  return Generated{*offset, static_cast<uint64_t>(kernel.scratchBytes()), form,
                   generator->family};
}

LogicalResult ImageBuilder::add(rt::KernelOp op) {
  FailureOr<Generated> decode = generate(op, Role::Decode);
  if (failed(decode))
    return failure();
  image.kernels.push_back({op.getSymName().str(), Role::Decode, decode->offset,
                           decode->scratchBytes, decode->form});
  // The roles share code where neither numerics nor the tile can differ.
  bool sameNumerics =
      target.numericsFor(Role::Decode) == target.numericsFor(Role::Prefill) ||
      !touchesActivations(op);
  FailureOr<Generated> prefill = decode;
  if (!sameNumerics ||
      !(decode->form.tile == tileOf(op, target, Role::Prefill, decode->family)))
    prefill = generate(op, Role::Prefill);
  if (failed(prefill))
    return failure();
  image.kernels.push_back({op.getSymName().str(), Role::Prefill,
                           prefill->offset, prefill->scratchBytes,
                           prefill->form});
  return success();
}

} // namespace

FailureOr<CodeImage> generateHostCode(ModuleOp module, const Target &target,
                                      const CodegenOptions &options) {
  ImageBuilder builder(module.getContext(), target, options);
  WalkResult walk = module.walk([&](rt::KernelOp op) {
    return succeeded(builder.add(op)) ? WalkResult::advance()
                                      : WalkResult::interrupt();
  });
  if (walk.wasInterrupted())
    return failure();
  return builder.take();
}

} // namespace quern::host

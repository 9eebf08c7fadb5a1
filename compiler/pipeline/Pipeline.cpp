#include "compiler/pipeline/Pipeline.h"

#include "dialects/lm/Lm.h"
#include "dialects/rt/Rt.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "passes/Passes.h"

using namespace mlir;
using namespace quern;

//===----------------------------------------------------------------------===//
// Passes
//===----------------------------------------------------------------------===//

namespace {
/// A row of the table of passes.
struct PipelinePass {
  Phase phase;
  llvm::StringLiteral name;
  /// `--disable-pass=` takes it.
  bool optional;
  /// Makes the pass; null when these options do without it.
  std::unique_ptr<Pass> (*create)(const PipelineOptions &, bool enabled);
};
} // namespace

/// A pass without options.
template <std::unique_ptr<Pass> (*create)()>
static std::unique_ptr<Pass> plain(const PipelineOptions &, bool enabled) {
  return enabled ? create() : nullptr;
}

static std::unique_ptr<Pass> quantizeWeights(const PipelineOptions &options,
                                             bool enabled) {
  if (!enabled || !options.quantizeFormat)
    return nullptr;
  QuantizeWeightsPassOptions passOptions;
  passOptions.format = *options.quantizeFormat;
  return createQuantizeWeightsPass(passOptions);
}

static std::unique_ptr<Pass> quantizeActivations(const PipelineOptions &options,
                                                 bool enabled) {
  return enabled && !options.precise ? createQuantizeActivationsPass()
                                     : nullptr;
}

static std::unique_ptr<Pass> tileAttention(const PipelineOptions &options,
                                           bool enabled) {
  TileAttentionPassOptions passOptions;
  passOptions.targetNames.assign(options.targets.begin(),
                                 options.targets.end());
  return enabled ? createTileAttentionPass(passOptions) : nullptr;
}

static std::unique_ptr<Pass> tileMatmul(const PipelineOptions &options,
                                        bool enabled) {
  TileMatmulPassOptions passOptions;
  passOptions.targetNames.assign(options.targets.begin(),
                                 options.targets.end());
  return enabled ? createTileMatmulPass(passOptions) : nullptr;
}

static std::unique_ptr<Pass> splitShares(const PipelineOptions &options,
                                         bool enabled) {
  SplitSharesPassOptions passOptions;
  passOptions.shares = options.shares;
  return enabled ? createSplitSharesPass(passOptions) : nullptr;
}

/// Without grouping every op is a kernel of its own.
static std::unique_ptr<Pass> formKernels(const PipelineOptions &,
                                         bool enabled) {
  FormKernelsPassOptions passOptions;
  passOptions.fuse = enabled;
  return createFormKernelsPass(passOptions);
}

static std::unique_ptr<Pass> applyTuning(const PipelineOptions &options, bool) {
  ApplyTuningPassOptions passOptions;
  passOptions.tiles.assign(options.tunedTiles.begin(),
                           options.tunedTiles.end());
  return options.tunedTiles.empty() ? nullptr
                                    : createApplyTuningPass(passOptions);
}

static constexpr PipelinePass kPasses[] = {
    {Phase::Normalize, "normalize", true, plain<createNormalizePass>},
    {Phase::Quantize, "quantize-weights", true, quantizeWeights},
    {Phase::Quantize, "quantize-activations", true, quantizeActivations},
    {Phase::Fuse, "fuse-dequant-matmul", true,
     plain<createFuseDequantMatmulPass>},
    {Phase::Fuse, "fuse-qkv", true, plain<createFuseQkvPass>},
    {Phase::Fuse, "fuse-swiglu", true, plain<createFuseSwigluPass>},
    {Phase::Fuse, "fuse-add-rms-norm", true, plain<createFuseAddRmsNormPass>},
    {Phase::Tile, "convert-attention-to-online-attention", true,
     plain<createConvertAttentionToOnlineAttentionPass>},
    {Phase::Tile, "tile-attention", true, tileAttention},
    {Phase::Tile, "tile-matmul", true, tileMatmul},
    {Phase::Tile, "split-shares", true, splitShares},
    {Phase::Kernels, "form-kernels", true, formKernels},
    {Phase::Lower, "convert-lm-to-rt", false, plain<createConvertLmToRtPass>},
    {Phase::Lower, "apply-tuning", false, applyTuning},
    {Phase::Memory, "plan-memory", false, plain<createPlanMemoryPass>},
};

std::vector<llvm::StringRef> quern::optionalPassNames() {
  std::vector<llvm::StringRef> names;
  for (const PipelinePass &pass : kPasses)
    if (pass.optional)
      names.push_back(pass.name);
  return names;
}

void quern::buildPhase(Phase phase, const PipelineOptions &options,
                       PassManager &manager) {
  for (const PipelinePass &row : kPasses) {
    if (row.phase != phase)
      continue;
    const bool enabled =
        !row.optional || !llvm::is_contained(options.disabledPasses, row.name);
    if (std::unique_ptr<Pass> pass = row.create(options, enabled))
      manager.addPass(std::move(pass));
  }
}

//===----------------------------------------------------------------------===//
// Legality
//===----------------------------------------------------------------------===//

/// A model as tensors: lm ops in functions, kernels excluded.
static LogicalResult checkTensors(ModuleOp module) {
  WalkResult result = module.walk([&](Operation *op) {
    if (isa<ModuleOp, func::FuncOp, func::ReturnOp>(op) ||
        (isa<lm::LmDialect>(op->getDialect()) &&
         !isa<lm::KernelOp, lm::YieldOp>(op)))
      return WalkResult::advance();
    op->emitOpError("is not legal here: expected lm ops on tensors");
    return WalkResult::interrupt();
  });
  return failure(result.wasInterrupted());
}

/// Bodies hold weights and kernels, kernels hold lm ops.
static LogicalResult checkKernels(ModuleOp module) {
  for (auto function : module.getOps<func::FuncOp>())
    for (Operation &op : function.getOps())
      if (!isa<lm::WeightOp, lm::KernelOp, func::ReturnOp>(op))
        return op.emitOpError(
            "is not legal here: expected only lm.weight, lm.kernel and return");
  return success();
}

/// Everything is rt, but for the lm ops inside rt.kernel.
static LogicalResult checkRuntime(ModuleOp module) {
  WalkResult result = module.walk<WalkOrder::PreOrder>([](Operation *op) {
    if (isa<ModuleOp>(op))
      return WalkResult::advance();
    if (isa<rt::KernelOp>(op))
      return WalkResult::skip();
    if (isa<rt::RtDialect>(op->getDialect()))
      return WalkResult::advance();
    op->emitOpError("is not legal here: expected rt ops");
    return WalkResult::interrupt();
  });
  return failure(result.wasInterrupted());
}

LogicalResult quern::checkPhase(Phase phase, ModuleOp module) {
  switch (phase) {
  case Phase::Import:
  case Phase::Normalize:
  case Phase::Quantize:
  case Phase::Fuse:
  case Phase::Tile:
    return checkTensors(module);
  case Phase::Kernels:
    return checkKernels(module);
  case Phase::Lower:
  case Phase::Memory:
    return checkRuntime(module);
  case Phase::Codegen:
  case Phase::Artifact:
    return success();
  }
  llvm_unreachable("every phase is a case");
}

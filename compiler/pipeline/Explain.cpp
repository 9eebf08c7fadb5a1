#include "compiler/pipeline/Explain.h"

#include "codegen/kernels/KernelFacts.h"
#include "dialects/rt/KernelSignature.h"
#include "dialects/rt/Rt.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace quern;

using Line = std::function<void(const std::string &)>;

/// "3 lm.rms_norm, 2 lm.quantize" of the ops that `keep` keeps, in order of
/// appearance.
static std::string countOps(Region &region,
                            llvm::function_ref<bool(Operation *)> keep) {
  llvm::MapVector<StringRef, unsigned> counts;
  region.walk([&](Operation *op) {
    if (keep(op))
      ++counts[op->getName().getStringRef()];
  });
  std::string text;
  for (auto [name, count] : counts)
    text +=
        (text.empty() ? "" : ", ") + std::to_string(count) + " " + name.str();
  return text;
}

/// " (--disable-pass=NAME)" when that is why.
static std::string because(const PipelineOptions &options, StringRef pass,
                           StringRef otherwise) {
  const bool disabled = llvm::is_contained(options.disabledPasses, pass);
  return disabled ? ": --disable-pass=" + pass.str() + " says so"
                  : ": " + otherwise.str();
}

static std::string formatNameOf(Type type) {
  std::optional<BlockFormat> format = lm::formatOf(type);
  return format ? std::string(blockFormatInfo(*format).name) : "?";
}

/// The weight behind a value, through a dequantize; null for activations.
static lm::WeightOp weightOf(Value value) {
  if (auto dequantize = value.getDefiningOp<lm::DequantizeOp>())
    value = dequantize.getX();
  return value.getDefiningOp<lm::WeightOp>();
}

static void explainQuantize(func::FuncOp body, const PipelineOptions &options,
                            const Line &line) {
  const std::string where = body.getSymName().str() + ": ";
  body.walk([&](lm::MatmulOp op) {
    lm::WeightOp weight = weightOf(op.getW());
    if (!weight)
      return;
    auto type = cast<RankedTensorType>(weight.getType());
    if (auto source = weight.getSource())
      line(where + weight.getName().str() + ": " + formatNameOf(*source) +
           " becomes " + formatNameOf(type));
    auto dequantize = op.getX().getDefiningOp<lm::DequantizeOp>();
    if (dequantize)
      line(where + weight.getName().str() + " (" + formatNameOf(type) +
           ") reads " +
           (lm::isQuantizedActivations(dequantize.getX().getType())
                ? "int8"
                : formatNameOf(dequantize.getX().getType())) +
           " activations");
    else
      line(where + weight.getName().str() + " (" + formatNameOf(type) +
           ") reads float activations" +
           (options.precise
                ? ": --precise says so"
                : because(options, "quantize-activations",
                          "its columns are no whole groups of 32")));
  });
}

static int64_t floatRow(Value value) { return 4 * columnsOf(value); }

/// What a fused op saves over the ops that it is made of: bytes that are not
/// moved and dispatches. Empty for other ops.
static std::string fusionSaving(Operation *op) {
  auto saves = [](const char *how, int64_t bytes, const char *what) {
    return std::string(" ") + how + ": saves " + std::to_string(bytes) +
           " bytes " + what;
  };
  if (auto product = dyn_cast<lm::QuantMatmulOp>(op)) {
    auto type = cast<RankedTensorType>(product.getW().getType());
    const std::string how = "reads " + formatNameOf(type) + " as it is stored";
    return saves(how.c_str(), 4 * type.getNumElements(),
                 "of floats, written and read, and 1 dispatch");
  }
  if (auto qkv = dyn_cast<lm::QkvProjOp>(op))
    return saves("reads its rows once instead of three times",
                 2 * *rt::bytesPerRow(qkv.getX().getType()),
                 "a row, read, and 2 dispatches");
  if (auto swiglu = dyn_cast<lm::SwigluOp>(op))
    return saves("keeps silu of the gate in registers",
                 floatRow(swiglu.getLhs()),
                 "a row, written and read, and 1 dispatch");
  if (auto norm = dyn_cast<lm::AddRmsNormOp>(op))
    return saves("has the sum at hand for the norm", floatRow(norm.getX()),
                 "a row, read, and 1 dispatch");
  return "";
}

static void explainFuse(func::FuncOp body, const PipelineOptions &options,
                        const Line &line) {
  const std::string where = body.getSymName().str() + ": ";
  const std::string fused = countOps(body.getBody(), [](Operation *op) {
    return isa<lm::SwigluOp, lm::AddRmsNormOp, lm::QkvProjOp,
               lm::QuantMatmulOp>(op);
  });
  line(where + (fused.empty() ? "nothing fused" : "fused into " + fused));
  body.walk([&](Operation *op) {
    if (const std::string saving = fusionSaving(op); !saving.empty())
      line(where + op->getName().getStringRef().str() + saving);
  });
  body.walk([&](Operation *op) {
    std::string reason;
    if (isa<lm::MatmulOp>(op))
      reason = because(options, "fuse-dequant-matmul",
                       "its weight is read by something else, or is no weight");
    else if (isa<lm::SiluOp>(op))
      reason = because(options, "fuse-swiglu",
                       "its result is not multiplied by one other value");
    else if (auto norm = dyn_cast<lm::RmsNormOp>(op))
      reason = because(options, "fuse-add-rms-norm",
                       norm.getX().getDefiningOp<lm::AddOp>()
                           ? "the sum is in another form"
                           : "the sum before it is in another body");
    else if (isa<lm::RopeOp>(op) &&
             !op->getOperand(0).getDefiningOp<lm::QkvProjOp>())
      reason = because(options, "fuse-qkv",
                       "the projections differ in their inputs or biases");
    if (!reason.empty())
      line(where + op->getName().getStringRef().str() + " stays alone" +
           reason);
  });
}

/// "[0:288] [288:576]", a bracket a share.
static std::string describeRanges(lm::RangesAttr ranges) {
  std::string text;
  for (int64_t share = 0; share < ranges.getShares(); ++share) {
    text += share ? " [" : "[";
    for (int64_t segment = 0; segment < ranges.getSegments(); ++segment)
      text += (segment ? ", " : "") +
              std::to_string(ranges.getBegin(share, segment)) + ":" +
              std::to_string(ranges.getEnd(share, segment));
    text += "]";
  }
  return text;
}

/// What being one kernel saves over a kernel an op: "; 3 dispatches less, and
/// 12288 bytes a row that are not written and read again".
static std::string describeSaving(lm::KernelOp kernel) {
  unsigned ops = 0;
  int64_t bytes = 0;
  Block &block = kernel.getBody().front();
  Operation *yield = block.getTerminator();
  for (Operation &op : block.without_terminator()) {
    ++ops;
    for (Value result : op.getResults()) {
      auto type = dyn_cast<RankedTensorType>(result.getType());
      if (type && !type.hasStaticShape() &&
          !llvm::is_contained(yield->getOperands(), result))
        bytes += (type.getRank() == 3 ? type.getDimSize(0) : 1) *
                 rt::bytesPerRow(result.getType()).value_or(0);
    }
  }
  if (ops < 2)
    return "";
  std::string text = "; saves " + std::to_string(ops - 1) +
                     (ops == 2 ? " dispatch" : " dispatches");
  if (bytes)
    text += " and " + std::to_string(bytes) +
            " bytes a row of intermediates, written and read";
  return text;
}

static void explainKernels(func::FuncOp body, const Line &line) {
  body.walk([&](lm::KernelOp kernel) {
    std::string text =
        body.getSymName().str() + ": kernel " + kernel.getName().str() + " = " +
        countOps(kernel.getBody(),
                 [](Operation *op) { return !isa<lm::YieldOp>(op); });
    text += kernel.getSplit() == lm::KernelSplit::Rows ? "; split over rows"
                                                       : "; split over shares";
    if (lm::RangesAttr ranges = kernel.getRanges().value_or(lm::RangesAttr()))
      text += " " + describeRanges(ranges);
    if (DictionaryAttr tiles = kernel.getTiles().value_or(DictionaryAttr()))
      for (NamedAttribute entry : tiles)
        if (auto tile = dyn_cast<lm::TileAttr>(entry.getValue()))
          text += "; " + entry.getName().str() +
                  " rows=" + std::to_string(tile.getRows()) +
                  " blocks=" + std::to_string(tile.getBlocks()) +
                  " keys=" + std::to_string(tile.getKeys()) +
                  " prefetch=" + std::to_string(tile.getPrefetch());
    line(text + describeSaving(kernel));
  });
}

static void explainProgram(ModuleOp module, const Line &line) {
  for (auto kernel : module.getOps<rt::KernelOp>())
    line("kernel " + kernel.getSymName().str() + ": signature " +
         rt::kernelSignature(kernel));
  for (auto program : module.getOps<rt::ProgramOp>())
    for (Operation &list : program.getBody().getOps()) {
      if (list.getNumRegions() == 0)
        continue;
      const std::string counts = countOps(list.getRegion(0), [](Operation *op) {
        return isa<rt::DispatchOp, rt::JoinOp>(op);
      });
      auto symbol = dyn_cast<SymbolOpInterface>(list);
      line((symbol ? symbol.getName() : list.getName().stripDialect()).str() +
           ": " + counts);
    }
}

static void explainMemory(ModuleOp module, const Line &line) {
  for (auto program : module.getOps<rt::ProgramOp>()) {
    uint64_t sum = 0;
    for (auto buffer : program.getBody().getOps<rt::BufferOp>())
      if (buffer.getOffset())
        sum += buffer.getBytesPerRow() * buffer.getCopies();
    if (auto arena = program.getArenaBytesPerRow())
      line("arena: " + std::to_string(*arena) +
           " bytes per row of capacity; without sharing " +
           std::to_string(sum));
  }
}

void quern::explainPhase(Phase phase, ModuleOp module,
                         const PipelineOptions &options, const Line &line) {
  if (phase == Phase::Lower)
    return explainProgram(module, line);
  if (phase == Phase::Memory)
    return explainMemory(module, line);
  for (auto body : module.getOps<func::FuncOp>()) {
    if (phase == Phase::Quantize)
      explainQuantize(body, options, line);
    else if (phase == Phase::Fuse)
      explainFuse(body, options, line);
    else if (phase == Phase::Kernels)
      explainKernels(body, line);
  }
}

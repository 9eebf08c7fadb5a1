//===- FormKernels.cpp - Group ops into kernels ---------------------------===//
//
// Plans the groups of a body (one function per family), then writes a kernel
// per group, in an order in which every kernel finds its operands.
//
//===----------------------------------------------------------------------===//
#include "passes/Passes.h"
#include "passes/Projection.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_FORMKERNELSPASS
#include "passes/Passes.h.inc"

namespace {
/// Ops of one kernel, in the order in which its body will have them.
struct Group {
  std::string name;
  lm::KernelSplit split;
  SmallVector<Operation *> ops;
};

/// "attn_output" of the weight "blk.{layer}.attn_output.weight".
std::string nameOfWeight(Value value, StringRef otherwise) {
  auto weight = storedWeight(value).getDefiningOp<lm::WeightOp>();
  if (!weight)
    return otherwise.str();
  StringRef name = weight.getName();
  name.consume_back(".weight");
  name = name.substr(name.rfind('.') + 1);
  return name.empty() ? otherwise.str() : name.str();
}

/// Numbers that lm.quantize rounds together.
constexpr int64_t kActivationGroup = 32;

/// Everything about one body: plans its groups and replaces its ops.
class KernelFormer {
public:
  KernelFormer(func::FuncOp body, bool fuse, int64_t shares)
      : body(body), fuse(fuse), shares(shares) {}

  LogicalResult run();

private:
  // One function per family of more than one op.
  void planGateUp(lm::SwigluOp swiglu);
  void planRopeAppend(lm::KvAppendOp append);
  void planNorm(Operation *norm, Value summed, StringRef name);
  void planAttention(Operation *attention);
  void planAlone(Operation *op);

  /// Adds the `lm.quantize` that reads `value`, if there is one. `inPieces`:
  /// the kernel's blocks have pieces of rows, of which no scale of a row can be
  /// made.
  void addQuantize(Value value, bool inPieces,
                   SmallVectorImpl<Operation *> &ops);
  void addGroup(std::string name, lm::KernelSplit split,
                ArrayRef<Operation *> ops);

  LogicalResult sortGroups();
  LogicalResult emit(const Group &group);
  lm::RangesAttr rangesOf(const Group &group);
  lm::RangesAttr wholeRange(ArrayRef<Value> segments);

  func::FuncOp body;
  bool fuse;
  int64_t shares;
  SmallVector<Group> groups;
  /// Group of an op, as an index into `groups`.
  llvm::DenseMap<Operation *, unsigned> groupOf;
};

//===----------------------------------------------------------------------===//
// Planning
//===----------------------------------------------------------------------===//

void KernelFormer::addGroup(std::string name, lm::KernelSplit split,
                            ArrayRef<Operation *> ops) {
  for (Operation *op : ops)
    groupOf[op] = groups.size();
  groups.push_back({std::move(name), split, llvm::to_vector(ops)});
}

void KernelFormer::addQuantize(Value value, bool inPieces,
                               SmallVectorImpl<Operation *> &ops) {
  for (Operation *reader : value.getUsers()) {
    if (!isa<lm::QuantizeOp>(reader) || groupOf.contains(reader))
      continue;
    BlockFormat format = *lm::formatOf(reader->getResult(0).getType());
    if (!inPieces || !blockFormatInfo(format).isRowScaled()) {
      ops.push_back(reader);
      return;
    }
  }
}

void KernelFormer::planGateUp(lm::SwigluOp swiglu) {
  auto gate = soleProjectionOf(swiglu.getGate());
  auto up = soleProjectionOf(swiglu.getUp());
  if (!gate || !up || gate->x != up->x || gate->op == up->op ||
      gate->op->getAttr("ranges") != up->op->getAttr("ranges"))
    return;
  if (gate->bias || up->bias) {
    swiglu.emitRemark("not in one kernel with gate and up: they have biases");
    return;
  }
  SmallVector<Operation *> ops = {gate->op, up->op, swiglu};
  addQuantize(swiglu.getResult(), /*inPieces=*/true, ops);
  addGroup("gate_up", lm::KernelSplit::Shares, ops);
}

/// Queries first: segments are queries, keys, values.
void KernelFormer::planRopeAppend(lm::KvAppendOp append) {
  SmallVector<Operation *> ops;
  auto key = soleDef<lm::RopeOp>(append.getK());
  for (Operation *reader : append.getResult().getUsers()) {
    if (!lm::isAttention(*reader))
      continue;
    auto query = soleDef<lm::RopeOp>(reader->getOperand(0));
    if (key && query && query->getBlock() == append->getBlock())
      ops.push_back(query);
    break;
  }
  if (key)
    ops.push_back(key);
  ops.push_back(append);
  addGroup(ops.size() > 1 ? "rope_append" : "kv_append",
           lm::KernelSplit::Shares, ops);
}

void KernelFormer::planNorm(Operation *norm, Value summed, StringRef name) {
  SmallVector<Operation *> ops;
  if (auto sum = soleDef<lm::ReduceSharesOp>(summed))
    ops.push_back(sum);
  ops.push_back(norm);
  addQuantize(norm->getResults().back(), /*inPieces=*/false, ops);
  addGroup(name.str(), lm::KernelSplit::Rows, ops);
}

void KernelFormer::planAttention(Operation *attention) {
  SmallVector<Operation *> ops = {attention};
  // A kernel computes head by head, so a group must not cross heads.
  auto cache = cast<lm::KvCacheType>(attention->getOperand(1).getType());
  if (cache.getHeadDim() % kActivationGroup == 0)
    addQuantize(attention->getResult(0), /*inPieces=*/true, ops);
  addGroup("attention", lm::KernelSplit::Shares, ops);
}

/// A group of one op.
void KernelFormer::planAlone(Operation *op) {
  auto rows = lm::KernelSplit::Rows, byShares = lm::KernelSplit::Shares;
  StringRef mnemonic = op->getName().stripDialect();
  TypeSwitch<Operation *>(op)
      .Case([&](lm::QuantMatmulOp matmul) {
        addGroup(nameOfWeight(matmul.getW(), mnemonic), byShares, op);
      })
      .Case<lm::MatmulOp, lm::QkvProjOp, lm::KvAppendOp>(
          [&](Operation *) { addGroup(mnemonic.str(), byShares, op); })
      .Case<lm::AttentionOp, lm::OnlineAttentionOp>(
          [&](Operation *) { addGroup("attention", byShares, op); })
      .Case([&](lm::EmbeddingOp) { addGroup("embed", rows, op); })
      .Default([&](Operation *) { addGroup(mnemonic.str(), rows, op); });
}

//===----------------------------------------------------------------------===//
// Order
//===----------------------------------------------------------------------===//

/// Sorts the groups so that each comes after those it reads from, and stays
/// close to the order of the body.
LogicalResult KernelFormer::sortGroups() {
  SmallVector<llvm::SmallDenseSet<unsigned>> waitsFor(groups.size());
  for (auto [index, group] : llvm::enumerate(groups))
    for (Operation *op : group.ops)
      for (Value operand : op->getOperands())
        if (auto it = groupOf.find(operand.getDefiningOp());
            it != groupOf.end() && it->second != index)
          waitsFor[index].insert(it->second);

  SmallVector<unsigned> byPosition;
  for (Operation &op : body.front())
    if (auto it = groupOf.find(&op); it != groupOf.end())
      if (groups[it->second].ops.front() == &op)
        byPosition.push_back(it->second);

  SmallVector<Group> sorted;
  llvm::SmallDenseSet<unsigned> done;
  while (done.size() < groups.size()) {
    const size_t before = done.size();
    for (unsigned index : byPosition) {
      if (done.contains(index) ||
          !llvm::all_of(waitsFor[index],
                        [&](unsigned other) { return done.contains(other); }))
        continue;
      done.insert(index);
      sorted.push_back(groups[index]);
    }
    if (done.size() == before)
      return body.emitError("its kernels would read from each other");
  }
  groups = std::move(sorted);
  return success();
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

int64_t columnsOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getShape().back();
}

/// All of each segment in share 0, and nothing in the others.
lm::RangesAttr KernelFormer::wholeRange(ArrayRef<Value> segments) {
  SmallVector<int64_t> bounds;
  for (int64_t share = 0; share < shares; ++share)
    for (Value segment : segments)
      bounds.append({share == 0 ? 0 : columnsOf(segment), columnsOf(segment)});
  return lm::RangesAttr::get(body.getContext(), segments.size(), bounds);
}

/// The ranges of a group: those of its ops, one after the other. Gate and up
/// are cut alike and count once.
lm::RangesAttr KernelFormer::rangesOf(const Group &group) {
  SmallVector<lm::RangesAttr> parts;
  for (Operation *op : group.ops) {
    if (isa<lm::QuantizeOp, lm::SwigluOp>(op) ||
        (projectionOf(op) && !parts.empty()))
      continue;
    auto ranges = op->getAttrOfType<lm::RangesAttr>("ranges");
    if (!ranges) {
      auto append = dyn_cast<lm::KvAppendOp>(op);
      ranges = append ? wholeRange({append.getK(), append.getV()})
                      : wholeRange(llvm::to_vector_of<Value>(op->getResults()));
    }
    // The keys of the append are cut like their rope, which has said so.
    parts.push_back(ranges);
  }
  const bool ropesKeys =
      isa<lm::KvAppendOp>(group.ops.back()) && parts.size() > 1;
  SmallVector<int64_t> bounds;
  int64_t segments = 0;
  for (int64_t share = 0; share < parts.front().getShares(); ++share) {
    segments = 0;
    for (auto [index, part] : llvm::enumerate(parts)) {
      const bool skipKeys = ropesKeys && index + 1 == parts.size();
      for (int64_t s = skipKeys ? 1 : 0; s < part.getSegments(); ++s) {
        bounds.append({part.getBegin(share, s), part.getEnd(share, s)});
        ++segments;
      }
    }
  }
  return lm::RangesAttr::get(body.getContext(), segments, bounds);
}

LogicalResult KernelFormer::emit(const Group &group) {
  llvm::SetVector<Value> inputs, outputs;
  llvm::SmallPtrSet<Operation *, 4> members(group.ops.begin(), group.ops.end());
  for (Operation *op : group.ops) {
    for (Value operand : op->getOperands())
      if (!members.contains(operand.getDefiningOp()))
        inputs.insert(operand);
    for (Value result : op->getResults())
      if (llvm::any_of(result.getUsers(), [&](Operation *reader) {
            return !members.contains(reader);
          }))
        outputs.insert(result);
  }

  OpBuilder builder(body.front().getTerminator());
  const bool cut = group.split == lm::KernelSplit::Shares;
  DictionaryAttr tiles;
  for (Operation *op : group.ops)
    if (!tiles)
      tiles = op->getAttrOfType<DictionaryAttr>("tiles");
  auto kernel = lm::KernelOp::create(
      builder, group.ops.back()->getLoc(),
      TypeRange(ValueRange(outputs.getArrayRef())), inputs.getArrayRef(),
      group.name, group.split, cut ? rangesOf(group) : lm::RangesAttr(), tiles);
  Block &block = kernel.getBody().emplaceBlock();
  IRMapping inside;
  for (Value input : inputs)
    inside.map(input, block.addArgument(input.getType(), input.getLoc()));
  builder.setInsertionPointToEnd(&block);
  for (Operation *op : group.ops) {
    Operation *clone = builder.clone(*op, inside);
    clone->removeAttr("tiles");
    clone->removeAttr("ranges");
  }
  SmallVector<Value> yielded;
  for (Value output : outputs)
    yielded.push_back(inside.lookup(output));
  lm::YieldOp::create(builder, kernel.getLoc(), yielded);

  for (auto [index, output] : llvm::enumerate(outputs.takeVector()))
    output.replaceUsesWithIf(kernel.getResult(index), [&](OpOperand &use) {
      return !members.contains(use.getOwner());
    });
  return success();
}

/// A weight is read in its stored format, also where nobody fused that before.
void readStoredWeights(func::FuncOp body) {
  IRRewriter rewriter(body.getContext());
  body.walk([&](lm::MatmulOp matmul) {
    rewriter.setInsertionPoint(matmul);
    auto ranges = matmul->getAttrOfType<lm::RangesAttr>("ranges");
    rewriter.replaceOpWithNewOp<lm::QuantMatmulOp>(
        matmul, matmul.getType(), matmul.getX(), storedWeight(matmul.getW()),
        matmul.getBias(), lm::MatmulSplit::N, ranges, matmul.getTilesAttr());
  });
  body.walk([&](lm::DequantizeOp dequantize) {
    if (dequantize->use_empty())
      rewriter.eraseOp(dequantize);
  });
}

LogicalResult KernelFormer::run() {
  readStoredWeights(body);
  SmallVector<Operation *> ops;
  for (Operation &op : body.front().without_terminator())
    if (!isa<lm::WeightOp, lm::KernelOp>(op))
      ops.push_back(&op);
  auto unplanned = [&](Operation *op) { return !groupOf.contains(op); };
  if (fuse) {
    for (Operation *op : llvm::make_filter_range(ops, unplanned)) {
      TypeSwitch<Operation *>(op)
          .Case([&](lm::SwigluOp swiglu) { planGateUp(swiglu); })
          .Case([&](lm::KvAppendOp append) { planRopeAppend(append); })
          .Case([&](lm::RmsNormOp norm) {
            planNorm(norm, norm.getX(), nameOfWeight(norm.getW(), "norm"));
          })
          .Case([&](lm::AddRmsNormOp norm) {
            planNorm(norm, norm.getDelta(), nameOfWeight(norm.getW(), "norm"));
          })
          .Case<lm::AttentionOp, lm::OnlineAttentionOp>(
              [&](Operation *attention) { planAttention(attention); });
    }
  }
  for (Operation *op : llvm::make_filter_range(ops, unplanned))
    planAlone(op);
  if (failed(sortGroups()))
    return failure();
  for (const Group &group : groups)
    if (failed(emit(group)))
      return failure();
  for (Operation *op : llvm::reverse(ops))
    op->dropAllUses();
  for (Operation *op : ops)
    op->erase();
  return success();
}

/// Shares that the model was cut in: those of the first ranges found.
int64_t sharesOf(ModuleOp module) {
  int64_t shares = 1;
  module.walk([&](Operation *op) {
    auto ranges = op->getAttrOfType<lm::RangesAttr>("ranges");
    if (!ranges)
      return WalkResult::advance();
    shares = ranges.getShares();
    return WalkResult::interrupt();
  });
  return shares;
}

struct FormKernelsPass : impl::FormKernelsPassBase<FormKernelsPass> {
  using FormKernelsPassBase::FormKernelsPassBase;

  void runOnOperation() override {
    const int64_t shares = sharesOf(getOperation());
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (failed(KernelFormer(function, fuse, shares).run()))
        return signalPassFailure();
  }
};
} // namespace
} // namespace quern

//===- InsertJoins.cpp - Where threads must meet --------------------------===//
//
// Walks the dispatches of a step in order and remembers who touched a buffer
// since the last join. A conflict (two accesses, one of them a write) between
// threads asks for a join; which kind depends on how both divide their work.
//
// Attention's work is dealt out to shares anew in every step, mostly by the
// shares' own heads, but not always: what it touches needs a join in the other
// steps where shares otherwise keep apart.
//
//===----------------------------------------------------------------------===//
#include "passes/conversion/InsertJoins.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"

using namespace mlir;

namespace quern {
namespace {

/// (shares) what a share touches, from begin to end: columns of a buffer,
/// copies of a partial result, heads of the KV pages. Empty: any share touches
/// all.
using Pieces = SmallVector<std::pair<int64_t, int64_t>>;

/// What must stand between two accesses to one buffer, or stands behind one. A
/// join of a kind happens in all steps in which one of a lesser kind happens.
enum class Need { Nothing, RowsJoin, SplitJoin, AlwaysJoin };

/// The step's states of attention, among the names of buffers.
constexpr StringLiteral kStates = "attention states";

/// One touch of a buffer by a dispatch.
struct Access {
  StringRef buffer; ///< empty: the layer's KV pages; or kStates
  bool write;
  /// Threads write copies of their own in small steps.
  bool isPrivate;
  lm::KernelSplit split;
  rt::RowSpace rows;
  /// Split over rows: reads no other row than it writes.
  bool ownRow;
  /// Split over shares.
  Pieces pieces;
  /// Not all steps have every share touch its own `pieces`.
  bool dealtOut;
  /// The strongest join since.
  Need joined = Need::Nothing;
};

/// No share touches what another one touched before.
bool sharesKeepApart(const Access &before, const Access &after) {
  if (before.pieces.size() != after.pieces.size() || before.pieces.empty())
    return false;
  for (auto [s, mine] : llvm::enumerate(before.pieces))
    for (auto [t, other] : llvm::enumerate(after.pieces))
      if (s != t && mine.first < other.second && other.first < mine.second)
        return false;
  return true;
}

Need needBetween(const Access &before, const Access &after) {
  const auto rows = lm::KernelSplit::Rows;
  if (before.buffer != after.buffer || (!before.write && !after.write))
    return Need::Nothing;
  if (before.split == rows && after.split == rows)
    return before.ownRow && after.ownRow && before.rows == after.rows
               ? Need::Nothing
               : Need::RowsJoin;
  if (before.split != rows && after.split != rows) {
    if (!sharesKeepApart(before, after))
      return Need::AlwaysJoin;
    const bool mayMeet = before.dealtOut || after.dealtOut;
    return mayMeet && before.pieces.size() > 1 ? Need::SplitJoin
                                               : Need::Nothing;
  }
  return before.isPrivate ? Need::RowsJoin : Need::AlwaysJoin;
}

/// Number of the rope `rope` among those of its kernel, which is its segment.
int64_t ropeNumber(lm::RopeOp rope) {
  int64_t number = 0;
  for (auto other : rope->getBlock()->getOps<lm::RopeOp>()) {
    if (other == rope)
      break;
    ++number;
  }
  return number;
}

/// The shares' ranges of `segment`, in pieces of `unit` columns that are
/// counted whole wherever a range touches them.
Pieces segmentPieces(rt::DispatchOp dispatch, int64_t segment,
                     int64_t unit = 1) {
  Pieces pieces;
  if (lm::RangesAttr ranges = dispatch.getRangesAttr())
    for (int64_t share = 0; share < ranges.getShares(); ++share)
      pieces.push_back({ranges.getBegin(share, segment) / unit,
                        llvm::divideCeil(ranges.getEnd(share, segment), unit)});
  return pieces;
}

/// Segment of the keys that `append` writes.
int64_t keySegment(lm::KvAppendOp append) {
  auto key = append.getK().getDefiningOp<lm::RopeOp>();
  return key ? ropeNumber(key) : 0;
}

/// What the op of `use` reads of its operand.
Pieces piecesRead(rt::DispatchOp dispatch, OpOperand &use) {
  Operation *op = use.getOwner();
  if (auto matmul = dyn_cast<lm::QuantMatmulOp>(op))
    return matmul.getSplit() == lm::MatmulSplit::K ? segmentPieces(dispatch, 0)
                                                   : Pieces();
  if (auto rope = dyn_cast<lm::RopeOp>(op))
    return segmentPieces(dispatch, ropeNumber(rope));
  if (auto append = dyn_cast<lm::KvAppendOp>(op))
    return segmentPieces(dispatch, keySegment(append) +
                                       (use.get() == append.getV() ? 1 : 0));
  if (!lm::isAttention(*op))
    return {};
  auto cache = dyn_cast<lm::KvCacheType>(use.get().getType());
  if (!cache)
    return segmentPieces(dispatch, 0);
  // Query heads of a group share a KV head.
  const int64_t heads = op->getAttrOfType<IntegerAttr>("heads").getInt();
  return segmentPieces(dispatch, 0,
                       cache.getHeadDim() * (heads / cache.getHeads()));
}

/// What a kernel split over shares writes of a result.
Pieces piecesWritten(rt::DispatchOp dispatch, Value yielded) {
  Operation *op = yielded.getDefiningOp();
  if (auto append = dyn_cast_if_present<lm::KvAppendOp>(op))
    return segmentPieces(dispatch, keySegment(append),
                         cast<lm::KvCacheType>(yielded.getType()).getHeadDim());
  auto tensor = cast<RankedTensorType>(yielded.getType());
  if (tensor.getRank() == 3) {
    Pieces copies;
    for (int64_t share = 0; share < tensor.getDimSize(0); ++share)
      copies.push_back({share, share + 1});
    return copies;
  }
  if (auto rope = dyn_cast<lm::RopeOp>(op))
    return segmentPieces(dispatch, ropeNumber(rope));
  if (isa<lm::QkvProjOp>(op))
    return segmentPieces(dispatch, cast<OpResult>(yielded).getResultNumber());
  return segmentPieces(dispatch, 0);
}

/// Everything that a dispatch touches and another may write.
class AccessReader {
public:
  AccessReader(rt::ProgramOp program)
      : program(program), module(program->getParentOfType<ModuleOp>()) {}

  SmallVector<Access> read(rt::DispatchOp dispatch) {
    auto kernel = SymbolTable::lookupNearestSymbolFrom<rt::KernelOp>(
        module, dispatch.getKernelAttr());
    Block &body = kernel.getBody().front();
    const bool attends = llvm::any_of(body, lm::isAttention);
    SmallVector<Access> accesses;
    auto args = dispatch.getArgs().getAsRange<rt::ArgAttr>();
    auto arg = args.begin();
    for (BlockArgument input : body.getArguments()) {
      // A merge reads nothing that dispatches hand on, but states.
      if (!dispatch.getMerge())
        addInput(dispatch, *arg, input, accesses);
      ++arg;
    }
    for (Value result : body.getTerminator()->getOperands()) {
      const bool isCache = isa<lm::KvCacheType>(result.getType());
      Access written = access(
          dispatch, isCache ? StringRef() : (*arg++).getName(), /*write=*/true);
      if (dispatch.getSplit() == lm::KernelSplit::Shares)
        written.pieces = piecesWritten(dispatch, result);
      written.dealtOut = attends && !dispatch.getMerge();
      accesses.push_back(written);
    }
    if (attends && dispatch.getSplit() == lm::KernelSplit::Shares)
      accesses.push_back(states(dispatch));
    return accesses;
  }

private:
  Access access(rt::DispatchOp dispatch, StringRef name, bool write) {
    rt::BufferOp buffer;
    if (!name.empty())
      buffer = cast<rt::BufferOp>(SymbolTable::lookupSymbolIn(program, name));
    return {.buffer = name,
            .write = write,
            .isPrivate = buffer && buffer.getPrivateCopy(),
            .split = dispatch.getSplit(),
            .rows = dispatch.getRows(),
            .ownRow = true,
            .pieces = {},
            .dealtOut = false};
  }

  /// All attention of a step has its states in one place: the parts of one
  /// must not come before the merge of another is done.
  Access states(rt::DispatchOp dispatch) {
    Access touched = access(dispatch, {}, /*write=*/!dispatch.getMerge());
    touched.buffer = kStates;
    touched.pieces = segmentPieces(dispatch, 0);
    touched.dealtOut = true;
    return touched;
  }

  void addInput(rt::DispatchOp dispatch, rt::ArgAttr arg, BlockArgument input,
                SmallVectorImpl<Access> &accesses) {
    const bool isCache = arg.getKind() == rt::ArgKind::Kv;
    if (!isCache && arg.getKind() != rt::ArgKind::Buffer)
      return;
    for (OpOperand &use : input.getUses()) {
      if (isCache && isa<lm::KvAppendOp>(use.getOwner()))
        continue; // it only writes
      Access read = access(dispatch, isCache ? StringRef() : arg.getName(),
                           /*write=*/false);
      read.ownRow = !isa<lm::SelectRowsOp>(use.getOwner());
      read.pieces = piecesRead(dispatch, use);
      read.dealtOut = lm::isAttention(*use.getOwner());
      accesses.push_back(read);
    }
  }

  rt::ProgramOp program;
  ModuleOp module;
};

/// Accesses that other threads may not have seen.
using State = SmallVector<Access>;

/// The kinds of joins and the needs that they satisfy.
constexpr std::pair<rt::JoinWhen, Need> kJoins[] = {
    {rt::JoinWhen::Rows, Need::RowsJoin},
    {rt::JoinWhen::Split, Need::SplitJoin},
    {rt::JoinWhen::Always, Need::AlwaysJoin}};

/// Records a join, in place.
void passJoin(State &state, rt::JoinWhen when) {
  if (when == rt::JoinWhen::Always)
    state.clear();
  Need need = llvm::find_if(kJoins, [&](auto &join) {
                return join.first == when;
              })->second;
  for (Access &access : state)
    access.joined = std::max(access.joined, need);
}

Need needBefore(const State &state, ArrayRef<Access> accesses) {
  Need need = Need::Nothing;
  for (const Access &before : state) {
    for (const Access &after : accesses) {
      Need pair = needBetween(before, after);
      if (pair > before.joined)
        need = std::max(need, pair);
    }
  }
  return need;
}

/// Puts a join of `when` before `op`; strengthens one that is there.
void joinBefore(Operation *op, rt::JoinWhen when) {
  OpBuilder builder(op);
  if (auto join = dyn_cast_if_present<rt::JoinOp>(op->getPrevNode()))
    join.setWhen(when);
  else
    rt::JoinOp::create(builder, op->getLoc(), when);
}

/// Walks one list from `state`, which becomes the state at its end, and inserts
/// the joins that it needs.
void joinList(Block &list, AccessReader &reader, State &state) {
  for (Operation &op : llvm::make_early_inc_range(list)) {
    if (auto join = dyn_cast<rt::JoinOp>(op))
      passJoin(state, join.getWhen());
    auto dispatch = dyn_cast<rt::DispatchOp>(op);
    if (!dispatch)
      continue;
    SmallVector<Access> accesses = reader.read(dispatch);
    Need need = needBefore(state, accesses);
    for (auto [when, satisfied] : kJoins)
      if (need == satisfied) {
        joinBefore(dispatch, when);
        passJoin(state, when);
      }
    state.append(accesses);
  }
  // The next list works on the pages of another layer.
  llvm::erase_if(state, [](const Access &a) { return a.buffer.empty(); });
}

} // namespace

void insertJoins(rt::ProgramOp program) {
  AccessReader reader(program);
  State beforeBlocks;
  Block &body = program.getBody().front();
  for (auto prologue : body.getOps<rt::PrologueOp>())
    joinList(prologue.getBody().front(), reader, beforeBlocks);
  // Any block may follow any other. The first round finds how blocks end, the
  // second joins what follows that; joins only shorten what is unseen at an
  // end.
  SmallVector<State> ends;
  for (int round = 0; round < 2; ++round) {
    State before = beforeBlocks;
    for (const State &end : ends)
      before.append(end);
    ends.clear();
    for (auto block : body.getOps<rt::BlockOp>()) {
      State state = before;
      joinList(block.getBody().front(), reader, state);
      ends.push_back(state);
    }
  }
  for (const State &end : ends)
    beforeBlocks.append(end);
  for (auto epilogue : body.getOps<rt::EpilogueOp>())
    joinList(epilogue.getBody().front(), reader, beforeBlocks);
}

} // namespace quern

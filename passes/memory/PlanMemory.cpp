//===- PlanMemory.cpp - Give every buffer its place -----------------------===//
//
// Three plans, each a greedy packing of intervals, biggest buffer first:
//
//   arena of token rows   \  shared by all threads: time is counted in joins
//   arena of logit rows   /
//   private memory           one thread's own: time is counted in dispatches
//
//===----------------------------------------------------------------------===//
#include "dialects/rt/Rt.h"
#include "passes/Passes.h"

#include "llvm/ADT/MapVector.h"

using namespace mlir;

namespace quern {
#define GEN_PASS_DEF_PLANMEMORYPASS
#include "passes/Passes.h.inc"

namespace {
/// Buffers begin at multiples of so many bytes (kBufferAlignment).
constexpr int64_t kAlignment = 64;

/// A dispatch list of the program.
struct List {
  /// Stretches between unconditional joins, minus one.
  int64_t lastStretch = 0;
  bool isBlock = false;
};

/// When a buffer is used: in one list, from one moment to another.
struct Life {
  int64_t list = -1;
  int64_t firstStretch = 0, lastStretch = 0;
  int64_t firstDispatch = 0, lastDispatch = 0;
  /// Used in several lists: alive all the time.
  bool carried = false;
};

/// A buffer with its place in one plan.
struct Placed {
  rt::BufferOp buffer;
  Life life;
  /// Place in the program.
  size_t order;
  int64_t size;
  int64_t offset = 0;
};

class Planner {
public:
  explicit Planner(rt::ProgramOp program) : program(program) {
    for (Operation &op : program.getBody().front())
      if (!isa<rt::BufferOp>(op))
        readList(op);
  }

  /// Places the arena buffers of `rows`; returns the bytes per row.
  int64_t planArena(rt::RowSpace rows);
  /// Places private buffers in a thread's own memory.
  int64_t planPrivate();

private:
  using Conflict = llvm::function_ref<bool(const Life &, const Life &)>;

  void readList(Operation &op);
  void touch(StringAttr name, int64_t list, int64_t stretch, int64_t dispatch);
  bool inArenaTogether(const Life &a, const Life &b) const;
  bool follows(const Life &before, const Life &after) const;
  SmallVector<Placed> place(ArrayRef<rt::BufferOp> buffers, Conflict conflict,
                            int64_t &peak) const;
  SmallVector<rt::BufferOp>
  buffersWhere(llvm::function_ref<bool(rt::BufferOp)> wanted);

  rt::ProgramOp program;
  SmallVector<List> lists;
  llvm::MapVector<StringAttr, Life> lives;
};

void Planner::touch(StringAttr name, int64_t list, int64_t stretch,
                    int64_t dispatch) {
  auto [it, isNew] = lives.insert({name, Life()});
  Life &life = it->second;
  if (isNew) {
    life = {list, stretch, stretch, dispatch, dispatch, false};
    return;
  }
  life.carried |= life.list != list;
  life.lastStretch = stretch;
  life.lastDispatch = dispatch;
}

void Planner::readList(Operation &op) {
  const int64_t list = lists.size();
  lists.push_back({0, isa<rt::BlockOp>(op)});
  int64_t stretch = 0, dispatch = 0;
  for (Operation &instruction : op.getRegion(0).front()) {
    if (auto join = dyn_cast<rt::JoinOp>(instruction))
      stretch += join.getWhen() == rt::JoinWhen::Always;
    auto call = dyn_cast<rt::DispatchOp>(instruction);
    if (!call)
      continue;
    for (auto arg : call.getArgs().getAsRange<rt::ArgAttr>())
      if (arg.getKind() == rt::ArgKind::Buffer)
        touch(StringAttr::get(op.getContext(), arg.getName()), list, stretch,
              dispatch);
    ++dispatch;
  }
  lists[list].lastStretch = stretch;
}

/// Whether the last use of `before` may be in the same stretch of a step as the
/// first use of `after`: at the end of one list, at the beginning of a later.
bool Planner::follows(const Life &before, const Life &after) const {
  const List &first = lists[before.list], &second = lists[after.list];
  const bool adjacent =
      before.list < after.list || (first.isBlock && second.isBlock);
  // A list without a join passes on what came before it.
  if (first.lastStretch == 0 || second.lastStretch == 0)
    return adjacent;
  return adjacent && before.lastStretch == first.lastStretch &&
         after.firstStretch == 0;
}

/// Whether two buffers must not overlap in an arena.
bool Planner::inArenaTogether(const Life &a, const Life &b) const {
  if (a.carried || b.carried)
    return true;
  if (a.list == b.list && a.firstStretch <= b.lastStretch &&
      b.firstStretch <= a.lastStretch)
    return true;
  return follows(a, b) || follows(b, a);
}

SmallVector<rt::BufferOp>
Planner::buffersWhere(llvm::function_ref<bool(rt::BufferOp)> wanted) {
  SmallVector<rt::BufferOp> buffers;
  for (auto buffer : program.getBody().getOps<rt::BufferOp>())
    if (buffer.getKind() == rt::BufferKind::Activation &&
        lives.contains(buffer.getSymNameAttr()) && wanted(buffer))
      buffers.push_back(buffer);
  return buffers;
}

/// Places each buffer, the biggest first, at the lowest offset where none that
/// it conflicts with lies.
SmallVector<Placed> Planner::place(ArrayRef<rt::BufferOp> buffers,
                                   Conflict conflict, int64_t &peak) const {
  SmallVector<Placed> waiting;
  for (rt::BufferOp buffer : buffers)
    waiting.push_back(
        {buffer, lives.lookup(buffer.getSymNameAttr()), waiting.size(),
         static_cast<int64_t>(llvm::alignTo(
             buffer.getBytesPerRow() * buffer.getCopies(), kAlignment))});
  llvm::sort(waiting, [](const Placed &a, const Placed &b) {
    return std::tie(b.size, a.order) < std::tie(a.size, b.order);
  });
  SmallVector<Placed> placed;
  peak = 0;
  for (Placed &next : waiting) {
    // `placed` is sorted by offset: take the first gap that fits.
    for (const Placed &other : placed) {
      if (!conflict(next.life, other.life))
        continue;
      if (next.offset + next.size <= other.offset)
        break;
      next.offset = std::max(next.offset, other.offset + other.size);
    }
    peak = std::max(peak, next.offset + next.size);
    placed.insert(llvm::upper_bound(placed, next,
                                    [](const Placed &a, const Placed &b) {
                                      return a.offset < b.offset;
                                    }),
                  next);
  }
  return placed;
}

int64_t Planner::planArena(rt::RowSpace rows) {
  int64_t peak = 0;
  auto conflict = [&](const Life &a, const Life &b) {
    return inArenaTogether(a, b);
  };
  auto buffers = buffersWhere(
      [&](rt::BufferOp buffer) { return buffer.getRows() == rows; });
  for (Placed &placed : place(buffers, conflict, peak))
    placed.buffer.setOffset(placed.offset);
  return peak;
}

int64_t Planner::planPrivate() {
  int64_t peak = 0;
  auto conflict = [](const Life &a, const Life &b) {
    return a.carried || b.carried ||
           (a.list == b.list && a.firstDispatch <= b.lastDispatch &&
            b.firstDispatch <= a.lastDispatch);
  };
  auto buffers =
      buffersWhere([](rt::BufferOp buffer) { return buffer.getPrivateCopy(); });
  for (Placed &placed : place(buffers, conflict, peak))
    placed.buffer.setPrivateOffset(placed.offset);
  return peak;
}

struct PlanMemoryPass : impl::PlanMemoryPassBase<PlanMemoryPass> {
  void runOnOperation() override {
    getOperation().walk([&](rt::ProgramOp program) {
      Planner planner(program);
      program.setArenaBytesPerRow(planner.planArena(rt::RowSpace::Tokens));
      program.setLogitBytesPerRow(planner.planArena(rt::RowSpace::Logits));
      program.setPrivateBytesPerRow(planner.planPrivate());
    });
  }
};
} // namespace
} // namespace quern

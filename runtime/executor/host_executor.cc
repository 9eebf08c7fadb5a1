#include "runtime/executor/host_executor.h"

#include <algorithm>
#include <bit>
#include <bitset>
#include <cstring>
#include <string>

#include "runtime/base/clock.h"
#include "runtime/schema/file_header.h"

namespace quern {
namespace {

/// Threads' memory lies this far apart, so that they share no page.
constexpr uint64_t kThreadAlignment = 4096;

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

int ThreadCount(const Program& program, const ExecutorOptions& options) {
  return std::clamp(options.threads, 1, static_cast<int>(program.shares));
}

/// Bytes of a small arena: row classes, then logits, each from a place in `offsets`.
uint64_t SmallStride(const Program& program, std::array<uint64_t, 3>& offsets) {
  uint64_t bytes = 0;
  const uint64_t per_row[] = {program.arena_bytes_per_row[0], program.arena_bytes_per_row[1],
                              uint64_t{program.vocab} * sizeof(float)};
  for (size_t i = 0; i < offsets.size(); ++i) {
    offsets[i] = bytes;
    bytes += AlignUp(per_row[i] * kSmallStepRows, kBufferAlignment);
  }
  return AlignUp(bytes, kThreadAlignment);
}

uint64_t ThreadStride(const Program& program, uint64_t scratch_bytes) {
  return AlignUp(program.private_bytes_per_row * kSmallStepRows + scratch_bytes, kThreadAlignment);
}

#if defined(__has_attribute) && __has_attribute(disable_sanitizer_instrumentation)
#define QUERN_READS_BESIDE_WRITERS __attribute__((disable_sanitizer_instrumentation))
#else
#define QUERN_READS_BESIDE_WRITERS
#endif

/// Copies what an absent thread may be writing to: the pieces that it writes are computed again, so
/// whatever is read of them is never used. The thread sanitizer cannot know that.
QUERN_READS_BESIDE_WRITERS void CopyBesideWriter(std::byte* to, const std::byte* from,
                                                 uint64_t bytes) {
  for (uint64_t at = 0; at < bytes; at += sizeof(uint64_t)) {
    *reinterpret_cast<uint64_t*>(to + at) =
        __atomic_load_n(reinterpret_cast<const uint64_t*>(from + at), __ATOMIC_RELAXED);
  }
}

}  // namespace

/// Brings what a thread reads next into its L2 cache while it waits for others.
class ReadAhead {
 public:
  /// From `begin` on, but for what is too much, or lies behind `end`.
  void Aim(const std::byte* begin, const std::byte* end) {
    at_ = begin;
    end_ = begin + std::min<std::ptrdiff_t>(kMostBytes, end - begin);
  }
  /// Asks for the next lines. False: there are none.
  bool Ask() {
    if (end_ - at_ < kLines * kLineBytes) return false;
    for (int line = 0; line < kLines; ++line, at_ += kLineBytes) __builtin_prefetch(at_, 0, 2);
    return true;
  }

 private:
  /// A part of what any L2 cache of these machines holds.
  static constexpr std::ptrdiff_t kMostBytes = 256 << 10;
  static constexpr int kLines = 16, kLineBytes = 64;
  const std::byte* at_ = nullptr;
  const std::byte* end_ = nullptr;
};

/// One thread's walk through the program in one step.
class HostExecutor::StepThread {
 public:
  StepThread(HostExecutor& executor, const StepInput& input, int thread)
      : e_(executor),
        program_(executor.program_),
        role_(static_cast<size_t>(input.role)),
        logits_(reinterpret_cast<std::byte*>(input.logits)),
        thread_(thread),
        threads_(executor.threads()),
        rows_{executor.inputs_.rows(), executor.inputs_.logit_rows()},
        small_(rows_[0] <= kSmallStepRows),
        aligned_(executor.aligned_),
        merges_(executor.merges_),
        memory_(executor.thread_memory_.data() + thread * executor.thread_stride_),
        profile_(executor.profiling_ ? &executor.profile_ : nullptr) {
    if (profile_) profile_->timeline[static_cast<size_t>(thread)].clear();
    dims_[kDimPageTableStride] = executor.inputs_.page_table_stride();
    LookAround();
  }

  /// False: this thread was left behind.
  bool Run() {
    const size_t end = rows_[1] > 0 ? e_.points_.size() : e_.epilogue_;
    for (; at_ < end; ++at_) {
      const Point& point = e_.points_[at_];
      if (!Happens(*point.instruction)) continue;
      if (point.instruction->op == schema::Op::Dispatch) {
        if (!e_.team_->Enter(thread_, point.attached)) return false;
        Timed(static_cast<int32_t>(point.instruction->kernel), [&] { Dispatch(point); });
      } else {
        bool here = true;
        Timed(ProfileSpan::kJoin, [&] { here = Join(); });
        if (!here) return false;
      }
    }
    return Join();
  }

 private:
  /// Whether the step has a use for `instruction`.
  bool Happens(const Instruction& instruction) const {
    if (instruction.op == schema::Op::Dispatch) return merges_ || !instruction.merge;
    switch (instruction.when) {
      case schema::JoinWhen::Always:
        return true;
      case schema::JoinWhen::Rows:
        return !small_;
      case schema::JoinWhen::Split:
        return !aligned_;
    }
    return true;
  }

  bool Join() {
    AimAhead();
    if (!e_.team_->Join(thread_, take_over_, meanwhile_)) return false;
    last_join_ = at_;
    LookAround();
    return true;
  }

  /// At a join: at the weights of the next dispatch that is split over shares. Those of the
  /// dispatches after it follow them.
  void AimAhead() {
    ahead_ = {};
    if (!small_ || mine_.none() || at_ >= e_.points_.size()) return;
    const Point& next = e_.points_[e_.points_[at_].next_stream];
    if (next.stream < 0) return;
    size_t share = 0;
    while (!mine_[share]) ++share;
    const std::byte* weights = Mutable(e_.weights_.data());
    const size_t slot = static_cast<size_t>(next.stream) * program_.shares;
    ahead_.Aim(weights + next.call->weight_offsets[slot + share], weights + e_.weights_.size());
  }

  /// Reads what the threads agreed on.
  void LookAround() {
    arena_ = e_.arena_.load(std::memory_order_acquire);
    for (size_t share = 0; share < program_.shares; ++share) {
      mine_[share] = e_.owners_[share].load(std::memory_order_acquire) == thread_;
    }
  }

  /// Does what the absent threads owe since the last join, in another arena. Their dispatches that
  /// are split over rows are this thread's too, and done.
  void TakeOver(std::span<const int> absent) {
    for (int thread : absent)
      e_.left_in_[static_cast<size_t>(thread)] = static_cast<int64_t>(arena_);
    const size_t from = arena_;
    arena_ = e_.FreeArena(static_cast<int64_t>(from));
    CopyArena(from, arena_);
    const std::bitset<kMaxShares> own = mine_;
    for (size_t share = 0; share < program_.shares; ++share) {
      const int owner = e_.owners_[share].load(std::memory_order_relaxed);
      mine_[share] = std::find(absent.begin(), absent.end(), owner) != absent.end();
    }
    for (size_t at = last_join_; at < at_; ++at) {
      const Point& point = e_.points_[at];
      const bool owed = point.instruction->op == schema::Op::Dispatch &&
                        point.instruction->split == schema::Split::Shares &&
                        Happens(*point.instruction);
      if (owed) Dispatch(point);
    }
    for (size_t share = 0; share < program_.shares; ++share) {
      if (mine_[share]) e_.owners_[share].store(thread_, std::memory_order_release);
    }
    mine_ |= own;
    e_.arena_.store(arena_, std::memory_order_release);
  }

  void CopyArena(size_t from, size_t to) const {
    std::byte* const source = e_.SmallArena(from);
    const uint64_t logits = e_.small_offsets_[2];
    CopyBesideWriter(e_.SmallArena(to), source, logits);
    if (StatesAreRead()) CopyBesideWriter(e_.States(to), e_.States(from), StateBytesOfStep());
    if (at_ <= e_.epilogue_) return;
    CopyBesideWriter(e_.SmallArena(to) + logits, source + logits, LogitBytes());
  }

  /// Whether a merge is owed since the last join, or comes next: nothing but joins stands between
  /// attention and its merge, so states are read by no other.
  bool StatesAreRead() const {
    for (size_t at = last_join_; merges_ && at < e_.points_.size(); ++at) {
      const Instruction& instruction = *e_.points_[at].instruction;
      if (instruction.merge) return true;
      if (at >= at_ && instruction.op == schema::Op::Dispatch) return false;
    }
    return false;
  }

  uint64_t StateBytesOfStep() const {
    const int64_t blocks = AttentionBlockStride(dims_[kDimPageTableStride]);
    return static_cast<uint64_t>(rows_[0] * blocks) * program_.state_bytes;
  }

  uint64_t LogitBytes() const {
    return static_cast<uint64_t>(rows_[1]) * program_.vocab * sizeof(float);
  }

  /// Does `work`, and writes down how long it took when somebody asked.
  template <typename Work>
  void Timed(int32_t kernel, const Work& work) {
    if (!profile_) return work();
    const int32_t layer = e_.points_[at_].layer;
    const uint64_t begin = NowNanoseconds();
    work();
    const uint64_t end = NowNanoseconds();
    profile_->timeline[static_cast<size_t>(thread_)].push_back({kernel, layer, begin, end});
    if (thread_ > 0) return;
    Profile::Entry& entry = kernel == ProfileSpan::kJoin
                                ? profile_->joins
                                : profile_->kernels[static_cast<size_t>(kernel)][role_];
    entry.calls += !e_.points_[at_].instruction->merge;  // the second half of a call
    entry.nanoseconds += end - begin;
  }

  void Dispatch(const Point& point) {
    const Instruction& d = *point.instruction;
    const int64_t rows = rows_[static_cast<size_t>(d.row_class)];
    dims_[kDimRows] = rows;
    const bool in_layer =
        point.layer >= 0 && static_cast<size_t>(point.layer) < program_.layers.size();
    kv_pool_ = in_layer ? e_.kv_.pool(static_cast<size_t>(point.layer)) : nullptr;
    dims_[kDimPageBytes] = in_layer ? e_.kv_.page_bytes(static_cast<size_t>(point.layer)) : 0;
    if (d.split == schema::Split::Rows) {
      int64_t range[2] = {0, rows};
      if (!small_) CutRows(rows, range);
      if (range[0] < range[1]) Call(d, *point.call, 0, range);
      return;
    }
    for (size_t share = 0; share < program_.shares; ++share) {
      if (mine_[share]) Call(d, *point.call, share, d.ranges.data() + share * d.segments * 2);
    }
  }

  /// This thread's rows: multiples of kRowSplitUnit.
  void CutRows(int64_t rows, int64_t range[2]) const {
    const int64_t units = (rows + kRowSplitUnit - 1) / kRowSplitUnit;
    range[0] = std::min(rows, thread_ * units / threads_ * kRowSplitUnit);
    range[1] = std::min(rows, (thread_ + 1) * units / threads_ * kRowSplitUnit);
  }

  void Call(const Instruction& d, const BodyCall& call, size_t share, const int64_t* ranges) {
    std::array<void*, kMaxKernelArgs + 1> args;
    items_ = {};
    if (d.attention >= 0) {
      items_ = e_.attention_[static_cast<size_t>(d.attention)].items(share, d.merge);
    }
    dims_[kDimAttentionTiles] = static_cast<int64_t>(items_.size());
    for (size_t i = 0; i < d.args.size(); ++i) {
      args[i] = Address(d.args[i], call, share);
    }
    args[d.args.size()] = memory_ + e_.private_bytes_;
    e_.kernels_.kernels[d.kernel].entries[role_](args.data(), dims_.data(), ranges);
  }

  std::byte* Address(const schema::Arg& arg, const BodyCall& call, size_t share) const {
    switch (arg.kind()) {
      case schema::ArgKind::Activation:
        return Buffer(arg.index(), 0);
      case schema::ArgKind::Partial:
        return Buffer(arg.index(), share);
      case schema::ArgKind::Step:
        return StepAddress(static_cast<schema::StepInput>(arg.index()));
      case schema::ArgKind::Weight:
        return Mutable(e_.weights_.data() +
                       call.weight_offsets[arg.index() * program_.shares + share]);
      case schema::ArgKind::Kv:
        return kv_pool_;
      case schema::ArgKind::Logits:
        return small_ ? e_.SmallArena(arena_) + e_.small_offsets_[2] : logits_;
    }
    return nullptr;
  }

  std::byte* StepAddress(schema::StepInput which) const {
    if (which == schema::StepInput::AttentionTiles) return Mutable(items_.data());
    if (which == schema::StepInput::AttentionStates) return merges_ ? e_.States(arena_) : nullptr;
    return Mutable(e_.inputs_.array(which).data());
  }

  std::byte* Buffer(uint32_t index, size_t copy) const {
    const BufferPlan& buffer = program_.buffers[index];
    if (small_ && buffer.per_thread) {
      return memory_ + buffer.private_offset * static_cast<uint64_t>(kSmallStepRows);
    }
    const auto row_class = static_cast<size_t>(buffer.row_class);
    std::byte* const arena = small_ ? e_.SmallArena(arena_) + e_.small_offsets_[row_class]
                                    : e_.arenas_[row_class].data();
    const int64_t capacity = small_ ? kSmallStepRows : e_.options_.max_rows;
    return arena + buffer.offset * static_cast<uint64_t>(capacity) +
           copy * static_cast<uint64_t>(rows_[row_class]) * buffer.bytes_per_row;
  }

  /// Kernels take all pointers as void*; what they only read stays unwritten.
  template <typename T>
  static std::byte* Mutable(const T* pointer) {
    return reinterpret_cast<std::byte*>(const_cast<T*>(pointer));
  }

  HostExecutor& e_;
  const Program& program_;
  const size_t role_;
  std::byte* const logits_;
  const int thread_;
  const int threads_;
  const std::array<int64_t, 2> rows_;  // by schema::RowClass
  const bool small_, aligned_, merges_;
  std::byte* const memory_;
  Profile* const profile_;
  const Team::TakeOver take_over_ = [this](std::span<const int> absent) { TakeOver(absent); };
  ReadAhead ahead_;
  const Team::Meanwhile meanwhile_ = [this] { return ahead_.Ask(); };
  std::bitset<kMaxShares> mine_;
  size_t arena_ = 0;
  size_t at_ = 0, last_join_ = 0;  // in points_
  std::byte* kv_pool_ = nullptr;
  std::span<const AttentionItem> items_;  // of the call at hand
  std::array<int64_t, kDimCount> dims_{};
};

uint64_t HostExecutor::ThreadBytes(const Program& program, uint64_t scratch_bytes) {
  std::array<uint64_t, 3> offsets;
  return ThreadStride(program, scratch_bytes) + SmallStride(program, offsets);
}

uint64_t HostExecutor::StateBytesPerBlock(const Program& program) {
  uint64_t bytes = 0;
  const auto rows = static_cast<uint64_t>(kSmallStepRows);
  return __builtin_mul_overflow(program.state_bytes, rows, &bytes) ? UINT64_MAX : bytes;
}

uint64_t HostExecutor::StateBytes(const Program& program, int64_t sequence_pages) {
  if (sequence_pages > INT32_MAX) return UINT64_MAX;
  // As wide as page tables of steps are: a power of two.
  const auto pages = static_cast<uint64_t>(std::max<int64_t>(sequence_pages, 1));
  const uint64_t stride = std::bit_ceil(pages);
  const auto blocks = static_cast<uint64_t>(AttentionBlockStride(static_cast<int64_t>(stride)));
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(StateBytesPerBlock(program), blocks, &bytes) ||
      bytes > UINT64_MAX - kThreadAlignment) {
    return UINT64_MAX;
  }
  return AlignUp(bytes, kThreadAlignment);
}

uint64_t HostExecutor::BytesNeeded(const Program& program, uint64_t scratch_bytes,
                                   const ExecutorOptions& options) {
  const auto rows = static_cast<uint64_t>(options.max_rows);
  uint64_t bytes = KvCache::BytesNeeded(program.kv, options.kv_pages);
  for (uint64_t per_row : program.arena_bytes_per_row) {
    uint64_t arena = 0;
    if (__builtin_mul_overflow(per_row, rows, &arena) ||
        __builtin_add_overflow(bytes, arena, &bytes)) {
      return UINT64_MAX;
    }
  }
  const int count = ThreadCount(program, options);
  const uint64_t states = count > 1 ? StateBytes(program, options.sequence_pages) : 0;
  uint64_t threads = 0;
  if (__builtin_add_overflow(ThreadBytes(program, scratch_bytes), states, &threads) ||
      __builtin_mul_overflow(threads, static_cast<uint64_t>(count), &threads)) {
    return UINT64_MAX;
  }
  return __builtin_add_overflow(bytes, threads, &bytes) ? UINT64_MAX : bytes;
}

KernelTable KernelTable::FromImage(const schema::Manifest& manifest, size_t target,
                                   CodeImage image) {
  KernelTable table;
  table.image = std::make_shared<const CodeImage>(std::move(image));
  for (const schema::Kernel* kernel : *manifest.kernels()) {
    Kernel entry;
    for (const schema::KernelCode* code : *kernel->codes()) {
      if (code->target() != target) continue;
      entry.entries[static_cast<size_t>(code->role())] = table.image->Entry(code->offset());
      table.scratch_bytes = std::max(table.scratch_bytes, code->scratch_bytes());
    }
    table.kernels.push_back(entry);
  }
  return table;
}

Result<std::unique_ptr<HostExecutor>> HostExecutor::Create(Program program, KernelTable kernels,
                                                           std::span<const uint8_t> weights,
                                                           const ExecutorOptions& options) {
  QUERN_RETURN_IF_ERROR(CheckOptions(options));
  const uint64_t needed = BytesNeeded(program, kernels.scratch_bytes, options);
  if (needed > MemoryLimit()) {
    return OutOfMemory("a session needs " + std::to_string(needed) +
                       " bytes and this machine has " + std::to_string(MemoryLimit()) +
                       "; lower context, kv_tokens or max_rows");
  }
  program.CountHostPages();
  if (ThreadCount(program, options) == 1) program.KeepContextsWhole();
  std::unique_ptr<HostExecutor> executor(
      new HostExecutor(std::move(program), std::move(kernels), weights, options));
  QUERN_RETURN_IF_ERROR(executor->Allocate());
  return executor;
}

Status HostExecutor::Allocate() {
  const int threads = ThreadCount(program_, options_);
  for (size_t row_class = 0; row_class < arenas_.size(); ++row_class) {
    QUERN_ASSIGN_OR_RETURN(arenas_[row_class],
                           HostMemory::Allocate(program_.arena_bytes_per_row[row_class] *
                                                    static_cast<uint64_t>(options_.max_rows),
                                                "activations"));
  }
  private_bytes_ = program_.private_bytes_per_row * kSmallStepRows;
  thread_stride_ = ThreadStride(program_, kernels_.scratch_bytes);
  QUERN_ASSIGN_OR_RETURN(
      thread_memory_,
      HostMemory::Allocate(thread_stride_ * static_cast<uint64_t>(threads), "threads"));
  QUERN_ASSIGN_OR_RETURN(kv_, KvCache::Create(program_.kv, options_.kv_pages));
  small_stride_ = SmallStride(program_, small_offsets_);
  QUERN_ASSIGN_OR_RETURN(
      small_arenas_,
      HostMemory::Allocate(small_stride_ * static_cast<uint64_t>(threads), "small steps"));
  state_stride_ = StateBytes(program_, options_.sequence_pages);
  QUERN_ASSIGN_OR_RETURN(
      states_, HostMemory::Allocate(state_stride_ * static_cast<uint64_t>(threads), "attention"));
  ListPoints();
  attention_.resize(program_.attention.size());
  owners_ = std::vector<std::atomic<int>>(program_.shares);
  left_in_.assign(static_cast<size_t>(threads), -1);
  QUERN_ASSIGN_OR_RETURN(
      team_, Team::Create({.threads = threads, .pin = options_.pin_threads},
                          [this](int t) { return StepThread(*this, *input_, t).Run(); }));
  return {};
}

void HostExecutor::ListPoints() {
  AddPoints(program_.prologue, -1);
  for (size_t layer = 0; layer < program_.layers.size(); ++layer) {
    AddPoints(program_.layers[layer], static_cast<int32_t>(layer));
  }
  epilogue_ = points_.size();
  AddPoints(program_.epilogue, static_cast<int32_t>(program_.layers.size()));
  size_t next = points_.size() - 1;
  for (size_t i = points_.size(); i-- > 0;) {
    points_[i].next_stream = next;
    if (points_[i].stream >= 0) next = i;
  }
  can_take_over_ = CanTakeOver();
}

int64_t HostExecutor::StreamOf(const Instruction& instruction) {
  if (instruction.op != schema::Op::Dispatch) return -1;
  if (instruction.split != schema::Split::Shares) return -1;
  for (const schema::Arg& arg : instruction.args) {
    if (arg.kind() == schema::ArgKind::Weight) return arg.index();
  }
  return -1;
}

void HostExecutor::AddPoints(const BodyCall& call, int32_t layer) {
  for (const Instruction& instruction : program_.bodies[call.body]) {
    const bool attached =
        std::any_of(instruction.args.begin(), instruction.args.end(), [](const schema::Arg& arg) {
          return arg.kind() == schema::ArgKind::Kv || arg.kind() == schema::ArgKind::Step;
        });
    points_.push_back({&instruction, &call, layer, attached, StreamOf(instruction)});
  }
}

/// Shares are computed again from what a thread has for itself at the end of a stretch between
/// joins, so nothing of that may have changed behind the first of them.
bool HostExecutor::CanTakeOver() const {
  bool shares = false;
  for (const Point& point : points_) {
    const Instruction& instruction = *point.instruction;
    if (instruction.op == schema::Op::Join) {
      if (instruction.when == schema::JoinWhen::Always) shares = false;
    } else if (instruction.split == schema::Split::Shares) {
      shares = true;
    } else if (shares) {
      return false;
    }
  }
  return true;
}

size_t HostExecutor::FreeArena(int64_t used) const {
  for (size_t arena = 0;; ++arena) {  // there are as many as threads, and one of them runs this
    const auto index = static_cast<int64_t>(arena);
    if (index != used && std::find(left_in_.begin(), left_in_.end(), index) == left_in_.end()) {
      return arena;
    }
  }
}

void HostExecutor::Share(std::span<const int> members) {
  const size_t shares = program_.shares;
  for (size_t n = 0; n < members.size(); ++n) {
    left_in_[static_cast<size_t>(members[n])] = -1;
    for (size_t share = n * shares / members.size(); share < (n + 1) * shares / members.size();
         ++share) {
      owners_[share].store(members[n], std::memory_order_relaxed);
    }
  }
  arena_.store(FreeArena(-1), std::memory_order_relaxed);
}

void HostExecutor::DealAttention(bool small) {
  const auto tiles = inputs_.array(schema::StepInput::AttentionTiles);
  const auto slots = inputs_.array(schema::StepInput::Slots);
  aligned_ = small;
  merges_ = false;
  for (size_t i = 0; i < attention_.size(); ++i) {
    attention_[i].Deal(program_.attention[i], tiles, slots, small);
    aligned_ &= attention_[i].aligned();
    merges_ |= attention_[i].merges();
  }
}

Status HostExecutor::Run(const StepInput& input) {
  const bool small = inputs_.rows() <= kSmallStepRows;
  // Profiles are of all threads.
  const bool patient = !small || !can_take_over_ || profiling_;
  input_ = &input;
  DealAttention(small);
  Share(team_->Gather(patient ? -1 : options_.patience));
  team_->Run();
  if (small && inputs_.logit_rows() > 0) {
    const std::byte* logits = SmallArena(arena_.load()) + small_offsets_[2];
    std::memcpy(input.logits, logits,
                static_cast<size_t>(inputs_.logit_rows()) * program_.vocab * sizeof(float));
  }
  return {};
}

}  // namespace quern

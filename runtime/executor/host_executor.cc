#include "runtime/executor/host_executor.h"

#include <algorithm>
#include <string>

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

uint64_t ThreadStride(const Program& program, uint64_t scratch_bytes) {
  return AlignUp(program.private_bytes_per_row * kSmallStepRows + scratch_bytes, kThreadAlignment);
}

}  // namespace

/// One thread's walk through the program in one step.
class HostExecutor::StepThread {
 public:
  StepThread(HostExecutor& executor, const StepInput& input, int thread)
      : e_(executor),
        program_(executor.program_),
        input_(input),
        thread_(thread),
        threads_(executor.threads()),
        rows_{executor.inputs_.rows(), executor.inputs_.logit_rows()},
        small_(rows_[0] <= kSmallStepRows),
        memory_(executor.thread_memory_.data() + thread * executor.thread_stride_),
        profile_(executor.profiling_ ? &executor.profile_ : nullptr) {
    if (profile_) profile_->timeline[static_cast<size_t>(thread)].clear();
    dims_[kDimAttentionTiles] = executor.inputs_.attention_tiles();
    dims_[kDimPageTableStride] = executor.inputs_.page_table_stride();
  }

  void Run() {
    RunCall(program_.prologue);
    for (size_t layer = 0; layer < program_.layers.size(); ++layer) {
      layer_ = static_cast<int32_t>(layer);
      kv_pool_ = e_.kv_.pool(layer);
      dims_[kDimPageBytes] = e_.kv_.page_bytes(layer);
      RunCall(program_.layers[layer]);
    }
    kv_pool_ = nullptr;
    dims_[kDimPageBytes] = 0;
    layer_ = static_cast<int32_t>(program_.layers.size());
    if (rows_[1] > 0) RunCall(program_.epilogue);
  }

 private:
  void RunCall(const BodyCall& call) {
    for (const Instruction& instruction : program_.bodies[call.body]) {
      if (instruction.op == schema::Op::Dispatch) {
        const auto kernel = static_cast<int32_t>(instruction.kernel);
        Timed(kernel, [&] { Dispatch(instruction, call); });
      } else if (instruction.when == schema::JoinWhen::Always || !small_) {
        Timed(ProfileSpan::kJoin, [&] { e_.pool_->Join(); });
      }
    }
  }

  /// Does `work`, and writes down how long it took when somebody asked.
  template <typename Work>
  void Timed(int32_t kernel, const Work& work) {
    if (!profile_) return work();
    const uint64_t begin = NowNanoseconds();
    work();
    const uint64_t end = NowNanoseconds();
    profile_->timeline[static_cast<size_t>(thread_)].push_back({kernel, layer_, begin, end});
    if (thread_ > 0) return;
    Profile::Entry& entry =
        kernel == ProfileSpan::kJoin
            ? profile_->joins
            : profile_->kernels[static_cast<size_t>(kernel)][static_cast<size_t>(input_.role)];
    ++entry.calls;
    entry.nanoseconds += end - begin;
  }

  void Dispatch(const Instruction& d, const BodyCall& call) {
    const int64_t rows = rows_[static_cast<size_t>(d.row_class)];
    dims_[kDimRows] = rows;
    if (d.split == schema::Split::Rows) {
      int64_t range[2] = {0, rows};
      if (!small_) CutRows(rows, range);
      if (range[0] < range[1]) Call(d, call, 0, range);
      return;
    }
    const auto shares = static_cast<int64_t>(program_.shares);
    for (int64_t share = thread_ * shares / threads_; share < (thread_ + 1) * shares / threads_;
         ++share) {
      Call(d, call, static_cast<size_t>(share),
           d.ranges.data() + static_cast<size_t>(share) * d.segments * 2);
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
    for (size_t i = 0; i < d.args.size(); ++i) {
      args[i] = Address(d.args[i], call, share);
    }
    args[d.args.size()] = memory_ + e_.private_bytes_;
    e_.kernels_.kernels[d.kernel].entries[static_cast<size_t>(input_.role)](args.data(),
                                                                            dims_.data(), ranges);
  }

  std::byte* Address(const schema::Arg& arg, const BodyCall& call, size_t share) const {
    switch (arg.kind()) {
      case schema::ArgKind::Activation:
        return Buffer(arg.index(), 0);
      case schema::ArgKind::Partial:
        return Buffer(arg.index(), share);
      case schema::ArgKind::Step:
        return Mutable(e_.inputs_.array(static_cast<schema::StepInput>(arg.index())).data());
      case schema::ArgKind::Weight:
        return Mutable(e_.weights_.data() +
                       call.weight_offsets[arg.index() * program_.shares + share]);
      case schema::ArgKind::Kv:
        return kv_pool_;
      case schema::ArgKind::Logits:
        return reinterpret_cast<std::byte*>(input_.logits);
    }
    return nullptr;
  }

  std::byte* Buffer(uint32_t index, size_t copy) const {
    const BufferPlan& buffer = program_.buffers[index];
    if (small_ && buffer.per_thread) {
      return memory_ + buffer.private_offset * static_cast<uint64_t>(kSmallStepRows);
    }
    const auto row_class = static_cast<size_t>(buffer.row_class);
    return e_.arenas_[row_class].data() +
           buffer.offset * static_cast<uint64_t>(e_.options_.max_rows) +
           copy * static_cast<uint64_t>(rows_[row_class]) * buffer.bytes_per_row;
  }

  /// Kernels take all pointers as void*; what they only read stays unwritten.
  template <typename T>
  static std::byte* Mutable(const T* pointer) {
    return reinterpret_cast<std::byte*>(const_cast<T*>(pointer));
  }

  HostExecutor& e_;
  const Program& program_;
  const StepInput& input_;
  const int thread_;
  const int threads_;
  const std::array<int64_t, 2> rows_;  // by schema::RowClass
  const bool small_;
  std::byte* const memory_;
  Profile* const profile_;
  int32_t layer_ = -1;
  std::byte* kv_pool_ = nullptr;
  std::array<int64_t, kDimCount> dims_{};
};

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
  uint64_t threads =
      ThreadStride(program, scratch_bytes) * static_cast<uint64_t>(ThreadCount(program, options));
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
  QUERN_ASSIGN_OR_RETURN(pool_,
                         ThreadPool::Create({.threads = threads, .pin = options_.pin_threads}));
  return {};
}

Status HostExecutor::Run(const StepInput& input) {
  pool_->Run([&](int thread) { StepThread(*this, input, thread).Run(); });
  return {};
}

}  // namespace quern

#include "runtime/executor/gpu_executor.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "runtime/device/gpu_target.h"
#include "runtime/schema/gpu_grid.h"

namespace quern {
namespace {

/// Arenas, pools and step inputs begin at multiples of so many bytes of the device's memory.
constexpr uint64_t kDeviceAlignment = 256;
/// Weights are copied in pieces of this size, so that progress can be told.
constexpr uint64_t kUploadBytes = uint64_t{32} << 20;
/// More shapes than a session meets at once; beyond it all are recorded anew.
constexpr size_t kMaxRecorded = 64;
/// Beyond this many rows a launch costs little beside the work.
constexpr int64_t kMaxRecordedRows = 64;

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

Status NotEnough(const GpuDevice& device, const std::string& what, uint64_t needed, uint64_t free) {
  return OutOfMemory(what + " needs " + std::to_string(needed) + " bytes and " + device.name() +
                     " (" + device.description() + ") has " + std::to_string(free) + " of " +
                     std::to_string(device.limits().memory_bytes) +
                     " free; lower context, kv_tokens or max_rows, or free the device");
}

}  // namespace

/// Pages on the device: the pools of all layers in one allocation. A failure is kept until the next
/// step reports it, since pages change hands where no status is returned.
class GpuExecutor::KvPools final : public KvMemory {
 public:
  static Result<std::unique_ptr<KvPools>> Create(GpuDevice& device,
                                                 std::span<const schema::KvLayer> layers,
                                                 int64_t pages) {
    std::unique_ptr<KvPools> pools(new KvPools(device));
    uint64_t bytes = 0;
    for (const schema::KvLayer& layer : layers) {
      pools->offsets_.push_back(bytes);
      pools->page_bytes_.push_back(layer.page_bytes());
      bytes += AlignUp(KvCache::BytesNeeded({&layer, 1}, pages), kDeviceAlignment);
    }
    QUERN_ASSIGN_OR_RETURN(pools->base_, device.Allocate(bytes));
    return pools;
  }

  DeviceAddress address(size_t layer) const { return base_ + offsets_[layer]; }
  std::byte* pool(size_t layer) const override {
    return reinterpret_cast<std::byte*>(address(layer));
  }
  bool starts_zeroed() const override { return false; }
  void Clear(int32_t page) override {
    for (size_t layer = 0; layer < offsets_.size(); ++layer) {
      Keep(device_.Fill(At(layer, page), 0, page_bytes_[layer]));
    }
  }
  void Copy(int32_t to, int32_t from) override {
    for (size_t layer = 0; layer < offsets_.size(); ++layer) {
      Keep(device_.Copy(At(layer, to), At(layer, from), page_bytes_[layer]));
    }
  }
  const Status& status() const { return status_; }

 private:
  explicit KvPools(GpuDevice& device) : device_(device) {}
  DeviceAddress At(size_t layer, int32_t page) const {
    return address(layer) + static_cast<uint64_t>(page) * page_bytes_[layer];
  }
  void Keep(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  GpuDevice& device_;
  DeviceAddress base_ = 0;
  std::vector<uint64_t> offsets_;     // by layer
  std::vector<uint64_t> page_bytes_;  // by layer
  Status status_;
};

/// The walk through the program that turns one step into launches.
class GpuExecutor::Walk {
 public:
  Walk(const GpuExecutor& executor, schema::Role role)
      : e_(executor),
        role_(static_cast<size_t>(role)),
        rows_{executor.inputs_.rows(), executor.inputs_.logit_rows()} {
    dims_[kDimAttentionTiles] = executor.inputs_.attention_tiles();
    dims_[kDimPageTableStride] = executor.inputs_.page_table_stride();
  }

  void Run() {
    const Program& program = e_.program_;
    RunCall(program.prologue);
    for (size_t layer = 0; layer < program.layers.size(); ++layer) {
      kv_pool_ = e_.pools_->address(layer);
      dims_[kDimPageBytes] = e_.kv_.page_bytes(layer);
      RunCall(program.layers[layer]);
    }
    kv_pool_ = 0;
    dims_[kDimPageBytes] = 0;
    if (rows_[1] > 0) RunCall(program.epilogue);
  }

  std::span<const GpuLaunch> launches() const { return launches_; }
  /// The manifest's kernel of each launch.
  std::span<const uint32_t> kernels() const { return kernels_; }

 private:
  void RunCall(const BodyCall& call) {
    for (const Instruction& d : e_.program_.bodies[call.body]) {
      if (d.op != schema::Op::Dispatch) continue;  // launches are in order anyway
      dims_[kDimRows] = rows_[static_cast<size_t>(d.row_class)];
      if (d.split == schema::Split::Rows) {
        Launch(d, call, 0, {});
        continue;
      }
      const size_t width = d.segments * 2;
      for (size_t share = 0; share < e_.program_.shares; ++share) {
        Launch(d, call, share, std::span(d.ranges).subspan(share * width, width));
      }
    }
  }

  void Launch(const Instruction& d, const BodyCall& call, size_t share,
              std::span<const int64_t> ranges) {
    const Kernel& kernel = e_.kernels_[d.kernel][role_];
    GpuLaunch launch;
    const GridCounts counts{static_cast<uint64_t>(dims_[kDimRows]),
                            static_cast<uint64_t>(dims_[kDimAttentionTiles]), ranges};
    for (size_t i = 0; i < kernel.grid.size(); ++i) {
      launch.grid[i] = static_cast<uint32_t>(GridBlocks(kernel.grid[i], counts));
      if (launch.grid[i] == 0) return;
    }
    launch.kernel = kernel.handle;
    launch.block_threads = kernel.block_threads;
    launch.shared_bytes = kernel.shared_bytes;
    for (const schema::Arg& arg : d.args) {
      launch.parameters.push_back(Address(arg, call, share));
    }
    for (int64_t dim : dims_) launch.parameters.push_back(static_cast<uint64_t>(dim));
    for (int64_t bound : ranges) launch.parameters.push_back(static_cast<uint64_t>(bound));
    if (d.split == schema::Split::Rows) {
      launch.parameters.push_back(0);
      launch.parameters.push_back(static_cast<uint64_t>(dims_[kDimRows]));
    }
    launches_.push_back(std::move(launch));
    kernels_.push_back(d.kernel);
  }

  DeviceAddress Address(const schema::Arg& arg, const BodyCall& call, size_t share) const {
    switch (arg.kind()) {
      case schema::ArgKind::Activation:
        return Buffer(arg.index(), 0);
      case schema::ArgKind::Partial:
        return Buffer(arg.index(), share);
      case schema::ArgKind::Step:
        return e_.input_addresses_[arg.index()];
      case schema::ArgKind::Weight:
        return e_.weights_ + call.weight_offsets[arg.index() * e_.program_.shares + share];
      case schema::ArgKind::Kv:
        return kv_pool_;
      case schema::ArgKind::Logits:
        return e_.logits_;
    }
    return 0;
  }

  /// As on the host in a large step: there are no private copies.
  DeviceAddress Buffer(uint32_t index, size_t copy) const {
    const BufferPlan& buffer = e_.program_.buffers[index];
    const auto row_class = static_cast<size_t>(buffer.row_class);
    return e_.arenas_[row_class] + buffer.offset * static_cast<uint64_t>(e_.options_.max_rows) +
           copy * static_cast<uint64_t>(rows_[row_class]) * buffer.bytes_per_row;
  }

  const GpuExecutor& e_;
  const size_t role_;
  const std::array<int64_t, 2> rows_;  // by schema::RowClass
  DeviceAddress kv_pool_ = 0;
  std::array<int64_t, kDimCount> dims_{};
  std::vector<GpuLaunch> launches_;
  std::vector<uint32_t> kernels_;
};

uint64_t GpuExecutor::BytesNeeded(const Program& program, uint64_t weight_bytes,
                                  const ExecutorOptions& options) {
  const auto rows = static_cast<uint64_t>(options.max_rows);
  uint64_t bytes = KvCache::BytesNeeded(program.kv, options.kv_pages);
  uint64_t inputs = 0;
  const uint64_t slack = kDeviceAlignment * (program.kv.size() + 8);
  // Per row: 5 numbers, a tile; and the page table of one full sequence.
  const uint64_t numbers = rows * (5 + kAttentionTileFields) +
                           2 * static_cast<uint64_t>(std::max<int64_t>(options.kv_pages, 1));
  if (__builtin_mul_overflow(numbers, uint64_t{4}, &inputs)) return UINT64_MAX;
  for (uint64_t part : {weight_bytes, inputs, slack, uint64_t{4} * program.vocab}) {
    if (__builtin_add_overflow(bytes, part, &bytes)) return UINT64_MAX;
  }
  for (uint64_t per_row : program.arena_bytes_per_row) {
    uint64_t arena = 0;
    if (__builtin_mul_overflow(per_row, rows, &arena) ||
        __builtin_add_overflow(bytes, arena, &bytes)) {
      return UINT64_MAX;
    }
  }
  return bytes;
}

Result<std::unique_ptr<GpuExecutor>> GpuExecutor::Create(const Artifact& artifact,
                                                         std::string_view isa,
                                                         std::unique_ptr<GpuDevice> device,
                                                         const ExecutorOptions& options) {
  QUERN_RETURN_IF_ERROR(CheckOptions(options));
  const std::vector<GpuTargetRequirement> targets = artifact.GpuTargets();
  QUERN_ASSIGN_OR_RETURN(const size_t target, SelectGpuTarget(targets, isa, device->limits()));
  std::unique_ptr<GpuExecutor> executor(
      new GpuExecutor(Program::Build(artifact.manifest()), options, std::move(device)));
  const uint64_t weight_bytes = artifact.weights().size();
  const uint64_t needed = BytesNeeded(executor->program_, weight_bytes, options);
  QUERN_ASSIGN_OR_RETURN(const uint64_t free, executor->device_->FreeMemory());
  if (needed > free) return NotEnough(*executor->device_, "the session", needed, free);
  QUERN_RETURN_IF_ERROR(executor->LoadKernels(artifact, targets[target]));
  QUERN_RETURN_IF_ERROR(executor->CheckGrids());
  QUERN_RETURN_IF_ERROR(executor->Allocate(weight_bytes));
  QUERN_RETURN_IF_ERROR(executor->UploadWeights(artifact.weights()));
  return executor;
}

Status GpuExecutor::LoadKernels(const Artifact& artifact, const GpuTargetRequirement& target) {
  target_ = target.name;
  const schema::Manifest& manifest = artifact.manifest();
  const schema::Target& record = *manifest.targets()->Get(static_cast<uint32_t>(target.index));
  const std::span<const uint8_t> text = artifact.SegmentBytes(record.code_segment());
  QUERN_ASSIGN_OR_RETURN(
      const GpuModule module,
      device_->LoadModule({reinterpret_cast<const char*>(text.data()), text.size()}));
  std::map<std::tuple<std::string, uint32_t, uint32_t>, GpuKernel> found;  // entries may be shared
  for (const schema::Kernel* kernel : *manifest.kernels()) {
    std::array<Kernel, kRoleCount>& roles = kernels_.emplace_back();
    for (const schema::GpuKernelCode* code : *kernel->gpu_codes()) {
      if (code->target() != target.index) continue;
      Kernel& made = roles[static_cast<size_t>(code->role())];
      made.block_threads = code->block_threads();
      made.shared_bytes = code->shared_bytes();
      for (uint32_t i = 0; code->grid() && i < code->grid()->size(); ++i) {
        made.grid.push_back(*code->grid()->Get(i));
      }
      GpuKernel& handle = found[{code->entry()->str(), made.block_threads, made.shared_bytes}];
      if (handle == GpuKernel{}) {
        QUERN_ASSIGN_OR_RETURN(handle, device_->FindKernel(module, code->entry()->str(),
                                                           made.block_threads, made.shared_bytes));
      }
      made.handle = handle;
    }
  }
  return {};
}

Status GpuExecutor::CheckGrids() const {
  const auto rows = static_cast<uint64_t>(options_.max_rows);
  const GridCounts most{rows, rows, {}};  // what ranges make was checked by the loader
  for (size_t kernel = 0; kernel < kernels_.size(); ++kernel) {
    for (const Kernel& code : kernels_[kernel]) {
      for (size_t i = 0; i < code.grid.size(); ++i) {
        const uint64_t blocks = GridBlocks(code.grid[i], most);
        if (blocks <= device_->limits().grid_blocks[i]) continue;
        return UsageError("with max_rows " + std::to_string(rows) + " kernel " +
                          program_.kernel_names[kernel] + " needs " + std::to_string(blocks) +
                          " blocks in one dimension and the device allows " +
                          std::to_string(device_->limits().grid_blocks[i]) + "; lower max_rows");
      }
    }
  }
  return {};
}

Status GpuExecutor::Allocate(uint64_t weight_bytes) {
  weight_bytes_ = weight_bytes;
  QUERN_ASSIGN_OR_RETURN(weights_, device_->Allocate(std::max<uint64_t>(weight_bytes, 1)));
  for (size_t row_class = 0; row_class < arenas_.size(); ++row_class) {
    const uint64_t bytes =
        program_.arena_bytes_per_row[row_class] * static_cast<uint64_t>(options_.max_rows);
    QUERN_ASSIGN_OR_RETURN(arenas_[row_class], device_->Allocate(std::max<uint64_t>(bytes, 1)));
  }
  QUERN_ASSIGN_OR_RETURN(std::unique_ptr<KvPools> pools,
                         KvPools::Create(*device_, program_.kv, options_.kv_pages));
  pools_ = pools.get();
  QUERN_ASSIGN_OR_RETURN(kv_, KvCache::Create(program_.kv, options_.kv_pages, std::move(pools)));
  return {};
}

Status GpuExecutor::UploadWeights(std::span<const uint8_t> weights) {
  for (uint64_t done = 0; done < weights.size();) {
    const uint64_t bytes = std::min<uint64_t>(kUploadBytes, weights.size() - done);
    QUERN_RETURN_IF_ERROR(device_->Upload(weights_ + done, weights.data() + done, bytes));
    done += bytes;
    if (options_.progress) options_.progress(done, weights.size());
  }
  return device_->Synchronize();
}

Status GpuExecutor::Grow(DeviceAddress& buffer, uint64_t& capacity, uint64_t bytes) {
  if (bytes <= capacity) return {};
  bytes = AlignUp(bytes + bytes / 2, kDeviceAlignment);
  QUERN_RETURN_IF_ERROR(device_->Synchronize());
  recorded_.clear();  // they hold the old address
  if (buffer) QUERN_RETURN_IF_ERROR(device_->Free(buffer));
  buffer = 0;
  capacity = 0;
  QUERN_ASSIGN_OR_RETURN(buffer, device_->Allocate(bytes));
  capacity = bytes;
  return {};
}

/// Packs the step's arrays behind one another, the page table last: where the others begin depends
/// only on how many rows, logit rows and tiles there are.
Status GpuExecutor::UploadInputs(const StepInput& input) {
  using schema::StepInput;
  constexpr StepInput kOrder[] = {
      StepInput::Tokens,    StepInput::Positions,      StepInput::Slots,    StepInput::RowSequences,
      StepInput::LogitRows, StepInput::AttentionTiles, StepInput::PageTable};
  constexpr size_t kUnit = kBufferAlignment / sizeof(int32_t);
  std::array<size_t, std::size(kOrder)> offsets{};  // in numbers
  staging_.clear();
  for (size_t i = 0; i < std::size(kOrder); ++i) {
    const std::span<const int32_t> array = inputs_.array(kOrder[i]);
    offsets[i] = staging_.size();
    staging_.insert(staging_.end(), array.begin(), array.end());
    staging_.resize(AlignUp(staging_.size(), kUnit));
  }
  const uint64_t bytes = staging_.size() * sizeof(int32_t);
  QUERN_RETURN_IF_ERROR(Grow(step_inputs_, step_inputs_capacity_, bytes));
  QUERN_RETURN_IF_ERROR(Grow(logits_, logits_capacity_,
                             input.logit_rows.size() * uint64_t{program_.vocab} * sizeof(float)));
  for (size_t i = 0; i < std::size(kOrder); ++i) {
    input_addresses_[static_cast<size_t>(kOrder[i])] = step_inputs_ + offsets[i] * sizeof(int32_t);
  }
  return device_->Upload(step_inputs_, staging_.data(), bytes);
}

Status GpuExecutor::LaunchStep(const StepInput& input) {
  const Shape shape = {static_cast<int64_t>(input.role), inputs_.rows(), inputs_.logit_rows(),
                       inputs_.attention_tiles(), inputs_.page_table_stride()};
  Recorded* recorded = nullptr;
  if (input.role == schema::Role::Decode && inputs_.rows() <= kMaxRecordedRows && !profiling_) {
    if (recorded_.size() >= kMaxRecorded && !recorded_.contains(shape)) recorded_.clear();
    recorded = &recorded_[shape];
    ++recorded->steps;
    if (recorded->graph) return recorded->graph->Launch();
  }
  Walk walk(*this, input.role);
  walk.Run();
  if (profiling_) {
    std::vector<uint64_t> nanoseconds(walk.launches().size());
    QUERN_RETURN_IF_ERROR(device_->LaunchTimed(walk.launches(), nanoseconds));
    for (size_t i = 0; i < nanoseconds.size(); ++i) {
      Profile::Entry& entry = profile_.kernels[walk.kernels()[i]][static_cast<size_t>(input.role)];
      ++entry.calls;
      entry.nanoseconds += nanoseconds[i];
    }
    return {};
  }
  if (recorded && recorded->steps > 1) {  // a shape that comes again
    QUERN_ASSIGN_OR_RETURN(recorded->graph, device_->Record(walk.launches()));
    return recorded->graph->Launch();
  }
  for (const GpuLaunch& launch : walk.launches()) QUERN_RETURN_IF_ERROR(device_->Launch(launch));
  return {};
}

Status GpuExecutor::Run(const StepInput& input) {
  QUERN_RETURN_IF_ERROR(pools_->status());
  QUERN_RETURN_IF_ERROR(UploadInputs(input));
  QUERN_RETURN_IF_ERROR(LaunchStep(input));
  if (input.logit_rows.empty()) return {};
  return device_->Download(input.logits, logits_,
                           input.logit_rows.size() * uint64_t{program_.vocab} * sizeof(float));
}

size_t GpuExecutor::graphs() const {
  return static_cast<size_t>(
      std::count_if(recorded_.begin(), recorded_.end(),
                    [](const auto& each) { return each.second.graph != nullptr; }));
}

}  // namespace quern

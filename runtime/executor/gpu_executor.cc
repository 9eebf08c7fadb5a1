#include "runtime/executor/gpu_executor.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "runtime/device/gpu_target.h"
#include "runtime/schema/gpu_grid.h"

namespace quern {
namespace {

/// Weights are copied in pieces of this size, so that progress can be told.
constexpr uint64_t kUploadBytes = uint64_t{32} << 20;
/// More shapes than a session meets at once; beyond it all are recorded anew.
constexpr size_t kMaxRecorded = 64;
/// Beyond this many rows a launch costs little beside the work.
constexpr int64_t kMaxRecordedRows = 64;

Status NotEnough(const GpuDevice& device, const std::string& what, uint64_t needed, uint64_t free) {
  return OutOfMemory(what + " needs " + std::to_string(needed) + " bytes and " + device.name() +
                     " (" + device.description() + ") has " + std::to_string(free) + " of " +
                     std::to_string(device.limits().memory_bytes) +
                     " free; lower context, kv_tokens or max_rows, or free the device");
}

}  // namespace

/// Pages on the device. A failure is kept until the next step reports it, since pages change hands
/// where no status is returned.
class GpuExecutor::KvPools final : public KvMemory {
 public:
  /// `addresses` of the layers' pools.
  KvPools(GpuDevice& device, std::span<const schema::KvLayer> layers,
          std::vector<DeviceAddress> addresses)
      : device_(device), addresses_(std::move(addresses)) {
    for (const schema::KvLayer& layer : layers) page_bytes_.push_back(layer.page_bytes());
  }

  DeviceAddress address(size_t layer) const { return addresses_[layer]; }
  std::byte* pool(size_t layer) const override {
    return reinterpret_cast<std::byte*>(address(layer));
  }
  bool starts_zeroed() const override { return false; }
  void Clear(int32_t page) override {
    for (size_t layer = 0; layer < addresses_.size(); ++layer) {
      Keep(device_.Fill(At(layer, page), 0, page_bytes_[layer]));
    }
  }
  void Copy(int32_t to, int32_t from) override {
    for (size_t layer = 0; layer < addresses_.size(); ++layer) {
      Keep(device_.Copy(At(layer, to), At(layer, from), page_bytes_[layer]));
    }
  }
  const Status& status() const { return status_; }

 private:
  DeviceAddress At(size_t layer, int32_t page) const {
    return address(layer) + static_cast<uint64_t>(page) * page_bytes_[layer];
  }
  void Keep(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  GpuDevice& device_;
  std::vector<DeviceAddress> addresses_;  // by layer
  std::vector<uint64_t> page_bytes_;      // by layer
  Status status_;
};

/// The walk through the program that turns one step into launches.
class GpuExecutor::Walk {
 public:
  Walk(const GpuExecutor& executor, schema::Role role)
      : e_(executor), role_(static_cast<size_t>(role)), rows_{executor.inputs_.rows(), 0} {
    dims_[kDimAttentionTiles] = executor.inputs_.attention_tiles();
    dims_[kDimPageTableStride] = executor.inputs_.page_table_stride();
  }

  /// The step up to the logits.
  void RunLayers() {
    const Program& program = e_.program_;
    RunCall(program.prologue);
    for (size_t layer = 0; layer < program.layers.size(); ++layer) {
      kv_pool_ = e_.pools_->address(layer);
      dims_[kDimPageBytes] = e_.kv_.page_bytes(layer);
      RunCall(program.layers[layer]);
    }
    kv_pool_ = 0;
    dims_[kDimPageBytes] = 0;
  }

  /// The logits of `count` of the step's logit rows, `first` and those behind it.
  void RunEpilogue(int64_t first, int64_t count) {
    first_logit_row_ = first;
    rows_[1] = count;
    RunCall(e_.program_.epilogue);
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
        return StepInput(static_cast<schema::StepInput>(arg.index()));
      case schema::ArgKind::Weight:
        return e_.At(e_.plan_.weights) +
               call.weight_offsets[arg.index() * e_.program_.shares + share];
      case schema::ArgKind::Kv:
        return kv_pool_;
      case schema::ArgKind::Logits:
        return e_.At(e_.plan_.logits);
    }
    return 0;
  }

  DeviceAddress StepInput(schema::StepInput which) const {
    const DeviceAddress address = e_.input_addresses_[static_cast<size_t>(which)];
    if (which != schema::StepInput::LogitRows) return address;
    return address + static_cast<uint64_t>(first_logit_row_) * sizeof(int32_t);
  }

  /// As on the host in a large step: there are no private copies.
  DeviceAddress Buffer(uint32_t index, size_t copy) const {
    const BufferPlan& buffer = e_.program_.buffers[index];
    const auto row_class = static_cast<size_t>(buffer.row_class);
    return e_.At(e_.plan_.arenas[row_class]) +
           buffer.offset * static_cast<uint64_t>(e_.plan_.capacity[row_class]) +
           copy * static_cast<uint64_t>(rows_[row_class]) * buffer.bytes_per_row;
  }

  const GpuExecutor& e_;
  const size_t role_;
  std::array<int64_t, 2> rows_;  // by schema::RowClass
  int64_t first_logit_row_ = 0;
  DeviceAddress kv_pool_ = 0;
  std::array<int64_t, kDimCount> dims_{};
  std::vector<GpuLaunch> launches_;
  std::vector<uint32_t> kernels_;
};

Result<std::unique_ptr<GpuExecutor>> GpuExecutor::Create(const Artifact& artifact,
                                                         std::string_view isa,
                                                         std::unique_ptr<GpuDevice> device,
                                                         const ExecutorOptions& options) {
  QUERN_RETURN_IF_ERROR(CheckOptions(options));
  const std::vector<GpuTargetRequirement> targets = artifact.GpuTargets();
  QUERN_ASSIGN_OR_RETURN(const size_t target, SelectGpuTarget(targets, isa, device->limits()));
  std::unique_ptr<GpuExecutor> executor(
      new GpuExecutor(Program::Build(artifact.manifest()), options, std::move(device)));
  executor->plan_ = GpuMemoryPlan::Make(executor->program_, artifact.weights().size(), options);
  const uint64_t needed = executor->plan_.bytes;
  QUERN_ASSIGN_OR_RETURN(const uint64_t free, executor->device_->FreeMemory());
  if (needed > free) return NotEnough(*executor->device_, "the session", needed, free);
  QUERN_RETURN_IF_ERROR(executor->LoadKernels(artifact, targets[target]));
  QUERN_RETURN_IF_ERROR(executor->CheckGrids());
  QUERN_RETURN_IF_ERROR(executor->Allocate());
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

Status GpuExecutor::Allocate() {
  QUERN_ASSIGN_OR_RETURN(memory_, device_->Allocate(plan_.bytes));
  std::vector<DeviceAddress> addresses;
  for (uint64_t offset : plan_.kv) addresses.push_back(At(offset));
  auto pools = std::make_unique<KvPools>(*device_, program_.kv, std::move(addresses));
  pools_ = pools.get();
  QUERN_ASSIGN_OR_RETURN(kv_, KvCache::Create(program_.kv, options_.kv_pages, std::move(pools)));
  return {};
}

Status GpuExecutor::UploadWeights(std::span<const uint8_t> weights) {
  for (uint64_t done = 0; done < weights.size();) {
    const uint64_t bytes = std::min<uint64_t>(kUploadBytes, weights.size() - done);
    QUERN_RETURN_IF_ERROR(device_->Upload(At(plan_.weights) + done, weights.data() + done, bytes));
    done += bytes;
    if (options_.progress) options_.progress(done, weights.size());
  }
  return device_->Synchronize();
}

Status GpuExecutor::UploadInputs() {
  constexpr size_t kUnit = kBufferAlignment / sizeof(int32_t);
  staging_.clear();
  for (schema::StepInput which : kGpuInputOrder) {
    input_addresses_[static_cast<size_t>(which)] =
        At(plan_.inputs) + staging_.size() * sizeof(int32_t);
    const std::span<const int32_t> array = inputs_.array(which);
    staging_.insert(staging_.end(), array.begin(), array.end());
    staging_.resize((staging_.size() + kUnit - 1) / kUnit * kUnit);
  }
  return device_->Upload(At(plan_.inputs), staging_.data(), staging_.size() * sizeof(int32_t));
}

Status GpuExecutor::LaunchStep(schema::Role role, int64_t logit_rows) {
  const Shape shape = {static_cast<int64_t>(role), inputs_.rows(), logit_rows,
                       inputs_.attention_tiles(), inputs_.page_table_stride()};
  Recorded* recorded = nullptr;
  if (role == schema::Role::Decode && inputs_.rows() <= kMaxRecordedRows && !profiling_) {
    if (recorded_.size() >= kMaxRecorded && !recorded_.contains(shape)) recorded_.clear();
    recorded = &recorded_[shape];
    ++recorded->steps;
    if (recorded->graph) return recorded->graph->Launch();
  }
  Walk walk(*this, role);
  walk.RunLayers();
  if (logit_rows > 0) walk.RunEpilogue(0, logit_rows);
  if (recorded && recorded->steps > 1) {  // a shape that comes again
    QUERN_ASSIGN_OR_RETURN(recorded->graph, device_->Record(walk.launches()));
    return recorded->graph->Launch();
  }
  return Launch(walk, role);
}

Status GpuExecutor::Launch(const Walk& walk, schema::Role role) {
  if (!profiling_) {
    for (const GpuLaunch& launch : walk.launches()) QUERN_RETURN_IF_ERROR(device_->Launch(launch));
    return {};
  }
  std::vector<uint64_t> nanoseconds(walk.launches().size());
  QUERN_RETURN_IF_ERROR(device_->LaunchTimed(walk.launches(), nanoseconds));
  for (size_t i = 0; i < nanoseconds.size(); ++i) {
    Profile::Entry& entry = profile_.kernels[walk.kernels()[i]][static_cast<size_t>(role)];
    ++entry.calls;
    entry.nanoseconds += nanoseconds[i];
  }
  return {};
}

Status GpuExecutor::Run(const StepInput& input) {
  QUERN_RETURN_IF_ERROR(pools_->status());
  QUERN_RETURN_IF_ERROR(UploadInputs());
  const int64_t rows = inputs_.logit_rows(), most = plan_.capacity[1];
  for (int64_t first = 0; first == 0 || first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    if (first == 0) {
      QUERN_RETURN_IF_ERROR(LaunchStep(input.role, count));
    } else {
      Walk walk(*this, input.role);
      walk.RunEpilogue(first, count);
      QUERN_RETURN_IF_ERROR(Launch(walk, input.role));
    }
    if (count == 0) return {};
    const auto floats = static_cast<uint64_t>(count) * program_.vocab;
    QUERN_RETURN_IF_ERROR(
        device_->Download(input.logits + static_cast<uint64_t>(first) * program_.vocab,
                          At(plan_.logits), floats * sizeof(float)));
  }
  return {};
}

size_t GpuExecutor::graphs() const {
  return static_cast<size_t>(
      std::count_if(recorded_.begin(), recorded_.end(),
                    [](const auto& each) { return each.second.graph != nullptr; }));
}

}  // namespace quern

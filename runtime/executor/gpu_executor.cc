#include "runtime/executor/gpu_executor.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "runtime/device/gpu_target.h"
#include "runtime/executor/gpu_walk.h"
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

/// The most that any kernel of a target wants: they run one after the other.
GpuMemoryPlan::PerRow PerRowOf(const schema::Manifest& manifest, size_t target) {
  GpuMemoryPlan::PerRow most;
  for (const schema::Kernel* kernel : *manifest.kernels()) {
    for (const schema::GpuKernelCode* code : *kernel->gpu_codes()) {
      if (code->target() != target) continue;
      most.workspace_bytes =
          std::max<uint64_t>(most.workspace_bytes, code->workspace_bytes_per_row());
      most.counters = std::max<uint64_t>(most.counters, code->counters_per_row());
    }
  }
  return most;
}

}  // namespace

Result<std::unique_ptr<GpuExecutor>> GpuExecutor::Create(const Artifact& artifact,
                                                         std::string_view isa,
                                                         std::unique_ptr<GpuDevice> device,
                                                         const ExecutorOptions& options) {
  QUERN_RETURN_IF_ERROR(CheckOptions(options));
  const std::vector<GpuTargetRequirement> targets = artifact.GpuTargets();
  QUERN_ASSIGN_OR_RETURN(const size_t target, SelectGpuTarget(targets, isa, device->limits()));
  std::unique_ptr<GpuExecutor> executor(
      new GpuExecutor(Program::Build(artifact.manifest()), options, std::move(device)));
  executor->plan_ =
      GpuMemoryPlan::Make(executor->program_, artifact.weights().size(),
                          PerRowOf(artifact.manifest(), targets[target].index), options);
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
  attention_tile_rows_ = target.attention_tile_rows;
  const schema::Manifest& manifest = artifact.manifest();
  const schema::Target& record = *manifest.targets()->Get(static_cast<uint32_t>(target.index));
  const std::span<const uint8_t> text = artifact.SegmentBytes(record.code_segment());
  QUERN_ASSIGN_OR_RETURN(
      const GpuModule module,
      device_->LoadModule({reinterpret_cast<const char*>(text.data()), text.size()}));
  for (const schema::Kernel* kernel : *manifest.kernels()) {
    std::array<Kernel, kRoleCount>& roles = kernels_.emplace_back();
    for (const schema::GpuKernelCode* code : *kernel->gpu_codes()) {
      if (code->target() != target.index) continue;
      QUERN_ASSIGN_OR_RETURN(roles[static_cast<size_t>(code->role())], LoadKernel(module, *code));
    }
  }
  for (uint32_t i = 0; manifest.samplers() && i < manifest.samplers()->size(); ++i) {
    const schema::GpuSampler& sampler = *manifest.samplers()->Get(i);
    for (const schema::GpuKernelCode* code : *sampler.codes()) {
      if (code->target() != target.index) continue;
      QUERN_ASSIGN_OR_RETURN(Kernel kernel, LoadKernel(module, *code));
      samplers_.push_back({static_cast<int32_t>(sampler.candidates()), std::move(kernel)});
      program_.kernel_names.push_back("sampler." + std::to_string(sampler.candidates()));
    }
  }
  return {};
}

Result<GpuExecutor::Kernel> GpuExecutor::LoadKernel(GpuModule module,
                                                    const schema::GpuKernelCode& code) {
  Kernel made;
  made.block_threads = code.block_threads();
  made.shared_bytes = code.shared_bytes();
  for (uint32_t i = 0; code.grid() && i < code.grid()->size(); ++i) {
    made.grid.push_back(*code.grid()->Get(i));
  }
  made.has_workspace = code.workspace_bytes_per_row() > 0;
  QUERN_ASSIGN_OR_RETURN(made.handle, device_->FindKernel(module, code.entry()->str(),
                                                          made.block_threads, made.shared_bytes));
  return made;
}

Status GpuExecutor::CheckGrids() const {
  const auto rows = static_cast<uint64_t>(options_.max_rows);
  // What ranges make was checked by the loader.
  const GridCounts most{
      rows, rows, std::bit_ceil(static_cast<uint64_t>(options_.sequence_pages)), {}};
  const auto check = [&](const Kernel& code, const std::string& name) -> Status {
    for (size_t i = 0; i < code.grid.size(); ++i) {
      const uint64_t blocks = GridBlocks(code.grid[i], most);
      if (blocks <= device_->limits().grid_blocks[i]) continue;
      return UsageError(
          "with max_rows " + std::to_string(rows) + " and " +
          std::to_string(options_.sequence_pages) + " KV pages a sequence kernel " + name +
          " needs " + std::to_string(blocks) + " blocks in one dimension and the device allows " +
          std::to_string(device_->limits().grid_blocks[i]) + "; lower max_rows or context");
    }
    return {};
  };
  for (size_t kernel = 0; kernel < kernels_.size(); ++kernel) {
    for (const Kernel& code : kernels_[kernel]) {
      QUERN_RETURN_IF_ERROR(check(code, program_.kernel_names[kernel]));
    }
  }
  for (const Sampler& sampler : samplers_) QUERN_RETURN_IF_ERROR(check(sampler.kernel, "sampler"));
  return {};
}

Status GpuExecutor::Allocate() {
  QUERN_ASSIGN_OR_RETURN(memory_, device_->Allocate(plan_.bytes));
  if (plan_.counter_bytes > 0) {
    QUERN_RETURN_IF_ERROR(device_->Fill(At(plan_.counters), 0, plan_.counter_bytes));
  }
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

const GpuExecutor::Sampler* GpuExecutor::SamplerFor(int32_t candidates) const {
  if (candidates <= 0 || samplers_.empty()) return nullptr;
  const auto enough = std::find_if(samplers_.begin(), samplers_.end(), [&](const Sampler& sampler) {
    return sampler.candidates >= candidates;
  });
  return enough == samplers_.end() ? &samplers_.back() : &*enough;
}

Status GpuExecutor::LaunchStep(schema::Role role, int64_t logit_rows, const Sampler* sampler) {
  const Shape shape = {static_cast<int64_t>(role),
                       inputs_.rows(),
                       logit_rows,
                       inputs_.attention_tiles(),
                       inputs_.page_table_stride(),
                       sampler ? sampler->candidates : 0};
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
  if (sampler) walk.RunSampler(*sampler, logit_rows);
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
  if (rows == 0) return LaunchStep(input.role, 0, nullptr);
  kept_ = 0;
  if (!input.logits) return RunKeeping(input.role, SamplerFor(input.candidates));
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    if (first == 0) {
      QUERN_RETURN_IF_ERROR(LaunchStep(input.role, count, nullptr));
    } else {
      Walk walk(*this, input.role);
      walk.RunEpilogue(first, count);
      QUERN_RETURN_IF_ERROR(Launch(walk, input.role));
    }
    const auto floats = static_cast<uint64_t>(count) * program_.vocab;
    QUERN_RETURN_IF_ERROR(
        device_->Download(input.logits + static_cast<uint64_t>(first) * program_.vocab,
                          At(plan_.logits), floats * sizeof(float)));
  }
  return {};
}

Status GpuExecutor::RunKeeping(schema::Role role, const Sampler* sampler) {
  candidates_.clear();
  candidate_count_ = sampler ? static_cast<size_t>(sampler->candidates) : 0;
  QUERN_RETURN_IF_ERROR(LaunchStep(role, inputs_.logit_rows(), sampler));
  const size_t count = static_cast<size_t>(inputs_.logit_rows()) * candidate_count_;
  std::vector<uint32_t> words(2 * count);  // values, then tokens
  QUERN_RETURN_IF_ERROR(
      device_->Download(words.data(), At(plan_.candidates), words.size() * sizeof(uint32_t)));
  for (size_t i = 0; i < count; ++i) {
    if (words[count + i] >= program_.vocab) {
      return Failure("the sampling kernel gave token " + std::to_string(words[count + i]) + " of " +
                     std::to_string(program_.vocab) + "; compile the model again");
    }
    candidates_.push_back({std::bit_cast<float>(words[i]), static_cast<int32_t>(words[count + i])});
  }
  kept_ = inputs_.logit_rows();
  return {};
}

Status GpuExecutor::ReadLogits(int64_t row, float* logits) {
  if (row < 0 || row >= kept_) return Executor::ReadLogits(row, logits);
  const uint64_t bytes = uint64_t{program_.vocab} * sizeof(float);
  return device_->Download(logits, At(plan_.logits) + static_cast<uint64_t>(row) * bytes, bytes);
}

std::span<const Candidate> GpuExecutor::candidates(int64_t row) const {
  if (row < 0 || row >= kept_ || candidates_.empty()) return {};
  return std::span(candidates_)
      .subspan(static_cast<size_t>(row) * candidate_count_, candidate_count_);
}

size_t GpuExecutor::graphs() const {
  return static_cast<size_t>(
      std::count_if(recorded_.begin(), recorded_.end(),
                    [](const auto& each) { return each.second.graph != nullptr; }));
}

}  // namespace quern

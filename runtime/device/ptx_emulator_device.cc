#include "runtime/device/ptx_emulator_device.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "runtime/device/gpu_target.h"
#include "runtime/device/host/cpu_features.h"
#include "runtime/device/host/host_memory.h"
#include "runtime/device/ptx_emulator/emulator.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {
namespace {

class PtxEmulatorDevice final : public GpuDevice {
 public:
  PtxEmulatorDevice(std::string_view target, const GpuLimits& limits, uint32_t threads)
      : target_(target), limits_(limits), threads_(threads), memory_(limits.memory_bytes) {}

  std::string name() const override { return "ptx-emulator"; }
  std::string description() const override { return "emulated " + target_; }
  const GpuLimits& limits() const override { return limits_; }
  Result<uint64_t> FreeMemory() override { return memory_.capacity() - memory_.used(); }

  Result<DeviceAddress> Allocate(uint64_t bytes) override { return memory_.Allocate(bytes); }
  Status Free(DeviceAddress address) override { return memory_.Free(address); }
  Status Upload(DeviceAddress destination, const void* source, uint64_t bytes) override {
    return Do([&] { return memory_.CopyToDevice(destination, source, bytes); }, bytes);
  }
  Status Download(void* destination, DeviceAddress source, uint64_t bytes) override {
    return Do([&] { return memory_.CopyToHost(destination, source, bytes); }, bytes);
  }
  Status Copy(DeviceAddress destination, DeviceAddress source, uint64_t bytes) override {
    return Do([&] { return memory_.Copy(destination, source, bytes); }, bytes);
  }
  Status Fill(DeviceAddress destination, uint8_t value, uint64_t bytes) override {
    return Do([&] { return memory_.Fill(destination, value, 1, bytes); }, bytes);
  }

  Result<GpuModule> LoadModule(std::string_view ptx) override;
  Status UnloadModule(GpuModule module) override;
  Result<GpuKernel> FindKernel(GpuModule module, const std::string& name, uint32_t block_threads,
                               uint32_t shared_bytes) override;

  Status Launch(const GpuLaunch& launch) override;
  Result<std::unique_ptr<GpuGraph>> Record(std::span<const GpuLaunch> launches) override;
  Status LaunchTimed(std::span<const GpuLaunch> launches, std::span<uint64_t> nanoseconds) override;
  Status Synchronize() override { return failed_; }

 private:
  /// Repeats a copy of the launches.
  class Repeat;

  struct Kernel {
    GpuModule module;
    std::string name;
  };

  template <typename Work>
  Status Do(Work work, uint64_t bytes) {
    if (!failed_.ok() || bytes == 0) return failed_;
    return work();
  }

  std::string target_;
  GpuLimits limits_;
  uint32_t threads_;
  ptx::Memory memory_;
  std::map<GpuModule, ptx::Module> modules_;
  std::map<GpuKernel, Kernel> kernels_;
  uint64_t last_handle_ = 0;
  /// Of the first kernel that failed: as on a GPU, nothing works afterwards.
  Status failed_;
};

class PtxEmulatorDevice::Repeat final : public GpuGraph {
 public:
  Repeat(PtxEmulatorDevice& device, std::span<const GpuLaunch> launches)
      : device_(device), launches_(launches.begin(), launches.end()) {}
  Status Launch() override {
    for (const GpuLaunch& launch : launches_) QUERN_RETURN_IF_ERROR(device_.Launch(launch));
    return {};
  }

 private:
  PtxEmulatorDevice& device_;
  std::vector<GpuLaunch> launches_;
};

Result<GpuModule> PtxEmulatorDevice::LoadModule(std::string_view ptx) {
  QUERN_RETURN_IF_ERROR(failed_);
  QUERN_ASSIGN_OR_RETURN(ptx::Module module, ptx::ParseModule(ptx));
  const uint32_t sm = ParseSm(module.target()).value_or(0);
  const bool exact = module.target().ends_with('a');
  if (exact ? sm != limits_.sm : sm > limits_.sm) {
    return Incompatible("the PTX is for " + module.target() + " and the emulated device is " +
                        target_ + "; open ptx-emulator:" + module.target());
  }
  const GpuModule handle{++last_handle_};
  modules_.emplace(handle, std::move(module));
  return handle;
}

Status PtxEmulatorDevice::UnloadModule(GpuModule module) {
  if (modules_.erase(module) == 0) return UsageError("a module that was not loaded");
  std::erase_if(kernels_, [&](const auto& each) { return each.second.module == module; });
  return {};
}

Result<GpuKernel> PtxEmulatorDevice::FindKernel(GpuModule module, const std::string& name,
                                                uint32_t block_threads, uint32_t shared_bytes) {
  const auto found = modules_.find(module);
  if (found == modules_.end()) return UsageError("a module that was not loaded");
  const ptx::KernelInfo* info = found->second.FindKernel(name);
  if (!info) return Malformed("the PTX has no entry '" + name + "'; compile the model again");
  uint32_t most = limits_.block_threads;
  if (info->max_threads[0] != 0) {
    most = std::min(most, info->max_threads[0] * std::max(1u, info->max_threads[1]) *
                              std::max(1u, info->max_threads[2]));
  }
  if (block_threads > most) {
    return Incompatible("kernel " + name + " runs in blocks of " + std::to_string(block_threads) +
                        " threads and " + description() + " can run it in blocks of " +
                        std::to_string(most) + " at most; compile the model again");
  }
  const uint64_t shared = uint64_t{shared_bytes} + info->static_shared_bytes;
  if (shared > limits_.block_shared_bytes) {
    return Incompatible("kernel " + name + " needs " + std::to_string(shared) +
                        " bytes of shared memory a block and " + description() + " has " +
                        std::to_string(limits_.block_shared_bytes) +
                        "; compile the model with --target=" + target_);
  }
  const GpuKernel handle{++last_handle_};
  kernels_[handle] = {module, name};
  return handle;
}

Status PtxEmulatorDevice::Launch(const GpuLaunch& launch) {
  QUERN_RETURN_IF_ERROR(failed_);
  const auto kernel = kernels_.find(launch.kernel);
  if (kernel == kernels_.end()) return UsageError("a kernel of no loaded module");
  ptx::LaunchOptions options;
  options.grid = launch.grid;
  options.block = {launch.block_threads, 1, 1};
  options.shared_bytes = launch.shared_bytes;
  options.threads = threads_;
  const Result<ptx::LaunchReport> report =
      ptx::Launch(modules_.at(kernel->second.module), kernel->second.name,
                  {reinterpret_cast<const uint8_t*>(launch.parameters.data()),
                   launch.parameters.size() * sizeof(uint64_t)},
                  memory_, options);
  if (report.ok()) return {};
  if (report.status().code() == StatusCode::kFailure) failed_ = report.status();
  return report.status();
}

Result<std::unique_ptr<GpuGraph>> PtxEmulatorDevice::Record(std::span<const GpuLaunch> launches) {
  return std::unique_ptr<GpuGraph>(std::make_unique<Repeat>(*this, launches));
}

Status PtxEmulatorDevice::LaunchTimed(std::span<const GpuLaunch> launches,
                                      std::span<uint64_t> nanoseconds) {
  for (size_t i = 0; i < launches.size(); ++i) {
    const auto start = std::chrono::steady_clock::now();
    QUERN_RETURN_IF_ERROR(Launch(launches[i]));
    const auto time = std::chrono::steady_clock::now() - start;
    nanoseconds[i] +=
        static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<GpuDevice>> OpenPtxEmulator(const PtxEmulatorOptions& options) {
  const std::optional<uint32_t> sm = ParseSm(options.target);
  if (!sm) {
    return UsageError("the PTX emulator stands for no '" + std::string(options.target) +
                      "'; wanted a target like sm_80 or sm_90a");
  }
  GpuLimits limits;
  limits.sm = *sm;
  limits.ptx_version = 90;
  limits.block_threads = kMaxBlockThreads;
  limits.block_shared_bytes = BlockSharedBytes(*sm);
  limits.grid_blocks = {kMaxGridBlocks[0], kMaxGridBlocks[1], kMaxGridBlocks[2]};
  limits.multiprocessors = static_cast<uint32_t>(UsableCpus());
  limits.memory_bytes = options.memory_bytes ? options.memory_bytes : MemoryLimit();
  const uint32_t threads = options.threads ? options.threads : static_cast<uint32_t>(UsableCpus());
  return std::unique_ptr<GpuDevice>(
      std::make_unique<PtxEmulatorDevice>(options.target, limits, threads));
}

}  // namespace quern

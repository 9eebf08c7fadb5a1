// Runs a program on a GPU: the same dispatches, buffers, shares and pages as on the CPU.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/gpu_device.h"
#include "runtime/executor/executor.h"
#include "runtime/executor/gpu_memory_plan.h"
#include "runtime/loader/artifact.h"

namespace quern {

/// Weights, activations, pages and step inputs live on the device, in one allocation that is
/// planned before anything is done (gpu_memory_plan.h); logits are copied back. A dispatch that is
/// split over shares is launched once a share, one split over rows once; joins are the order of the
/// launches. Steps of decoded tokens are recorded once per shape and then repeated.
class GpuExecutor final : public Executor {
 public:
  /// Takes the artifact's target `isa`, or with an empty `isa` the best that `device` runs; copies
  /// the weights to the device. The artifact may go afterwards.
  /// Errors: kIncompatible (no target runs on the device, or a kernel needs more than it has);
  /// kOutOfMemory, before anything is allocated, with what is needed and free; kMalformed (PTX that
  /// the device refuses); kUsage.
  static Result<std::unique_ptr<GpuExecutor>> Create(const Artifact& artifact, std::string_view isa,
                                                     std::unique_ptr<GpuDevice> device,
                                                     const ExecutorOptions& options);

  int threads() const override { return 1; }
  uint64_t bytes() const override { return plan_.bytes; }
  const GpuDevice& device() const { return *device_; }
  /// Name of the chosen target.
  const std::string& target() const { return target_; }
  /// Recorded shapes at hand.
  size_t graphs() const;

 private:
  class Walk;
  class KvPools;

  /// One compiled kernel, by role.
  struct Kernel {
    GpuKernel handle = {};
    uint32_t block_threads = 0;
    uint32_t shared_bytes = 0;
    std::vector<schema::GridFactor> grid;
  };
  /// What the launches of a step depend on, beside addresses that stay.
  using Shape = std::array<int64_t, 5>;
  struct Recorded {
    uint64_t steps = 0;
    std::unique_ptr<GpuGraph> graph;
  };

  GpuExecutor(Program program, const ExecutorOptions& options, std::unique_ptr<GpuDevice> device)
      : Executor(std::move(program), options), device_(std::move(device)) {}

  Status LoadKernels(const Artifact& artifact, const GpuTargetRequirement& target);
  Status CheckGrids() const;
  Status Allocate();
  Status UploadWeights(std::span<const uint8_t> weights);
  Status Run(const StepInput& input) override;
  Status UploadInputs();
  /// The step, with the first `logit_rows` rows of its logits.
  Status LaunchStep(schema::Role role, int64_t logit_rows);
  Status Launch(const Walk& walk, schema::Role role);
  DeviceAddress At(uint64_t offset) const { return memory_ + offset; }

  std::unique_ptr<GpuDevice> device_;  // before what lives on it
  std::string target_;
  std::vector<std::array<Kernel, kRoleCount>> kernels_;
  GpuMemoryPlan plan_;
  DeviceAddress memory_ = 0;
  KvPools* pools_ = nullptr;  // owned by kv_
  std::array<DeviceAddress, static_cast<size_t>(schema::StepInput::MAX) + 1> input_addresses_{};
  std::vector<int32_t> staging_;
  std::map<Shape, Recorded> recorded_;
};

}  // namespace quern

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

  int64_t kept_rows() const override { return samplers_.empty() ? 0 : plan_.capacity[1]; }
  Status ReadLogits(int64_t row, float* logits) override;
  std::span<const Candidate> candidates(int64_t row) const override;

 private:
  class Walk;
  class KvPools;

  /// One compiled kernel, by role.
  struct Kernel {
    GpuKernel handle = {};
    uint32_t block_threads = 0;
    uint32_t shared_bytes = 0;
    std::vector<schema::GridFactor> grid;
    bool has_workspace = false;
  };
  /// Picks the best `candidates` logits of each row.
  struct Sampler {
    int32_t candidates = 0;
    Kernel kernel;
  };
  /// What the launches of a step depend on, beside addresses that stay.
  using Shape = std::array<int64_t, 6>;
  struct Recorded {
    uint64_t steps = 0;
    std::unique_ptr<GpuGraph> graph;
  };

  GpuExecutor(Program program, const ExecutorOptions& options, std::unique_ptr<GpuDevice> device)
      : Executor(std::move(program), options), device_(std::move(device)) {}

  Status LoadKernels(const Artifact& artifact, const GpuTargetRequirement& target);
  Result<Kernel> LoadKernel(GpuModule module, const schema::GpuKernelCode& code);
  Status CheckGrids() const;
  Status Allocate();
  Status UploadWeights(std::span<const uint8_t> weights);
  Status Run(const StepInput& input) override;
  Status UploadInputs();
  /// The step, with the first `logit_rows` rows of its logits.
  Status LaunchStep(schema::Role role, int64_t logit_rows, const Sampler* sampler);
  /// The sampler for a step that wants so many candidates, and null for none.
  const Sampler* SamplerFor(int32_t candidates) const;
  /// A step whose logits stay here.
  Status RunKeeping(schema::Role role, const Sampler* sampler);
  Status Launch(const Walk& walk, schema::Role role);
  DeviceAddress At(uint64_t offset) const { return memory_ + offset; }

  std::unique_ptr<GpuDevice> device_;  // before what lives on it
  std::string target_;
  std::vector<std::array<Kernel, kRoleCount>> kernels_;
  std::vector<Sampler> samplers_;  // by ascending candidates
  GpuMemoryPlan plan_;
  DeviceAddress memory_ = 0;
  KvPools* pools_ = nullptr;  // owned by kv_
  std::array<DeviceAddress, static_cast<size_t>(schema::StepInput::MAX) + 1> input_addresses_{};
  std::vector<int32_t> staging_;
  // Of the last step with logit rows.
  int64_t kept_ = 0;
  size_t candidate_count_ = 0;
  std::vector<Candidate> candidates_;  // (kept_, candidate_count_)
  std::map<Shape, Recorded> recorded_;
};

}  // namespace quern

// Inside of GpuExecutor: its pages, and how a step becomes launches.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "runtime/executor/gpu_executor.h"
#include "runtime/schema/gpu_grid.h"

namespace quern {

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
  uint64_t page_bytes(size_t layer) const override { return page_bytes_[layer]; }
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

  /// The best of `rows` rows of logits.
  void RunSampler(const Sampler& sampler, int64_t rows) {
    dims_[kDimRows] = rows;
    const DeviceAddress values = e_.At(e_.plan_.candidates);
    const DeviceAddress tokens = values + static_cast<uint64_t>(rows * sampler.candidates) * 4;
    const auto index = static_cast<size_t>(&sampler - e_.samplers_.data());
    Launch(sampler.kernel, static_cast<uint32_t>(e_.kernels_.size() + index),
           {e_.At(e_.plan_.logits), values, tokens}, RowRange());
  }

  /// The logits of `count` of the step's logit rows, `first` and those behind it.
  void RunEpilogue(int64_t first, int64_t count) {
    first_logit_row_ = first;
    rows_[1] = count;
    RunCall(e_.program_.epilogue);
  }

  std::span<const GpuLaunch> launches() const { return launches_; }
  /// The number of each launch's kernel: the manifest's, or behind these a sampler's.
  std::span<const uint32_t> kernels() const { return kernels_; }

 private:
  void RunCall(const BodyCall& call) {
    for (const Instruction& d : e_.program_.bodies[call.body]) {
      // Launches are in order anyway, and a launch of attention leaves nothing to merge.
      if (d.op != schema::Op::Dispatch || d.merge) continue;
      dims_[kDimRows] = rows_[static_cast<size_t>(d.row_class)];
      if (d.split == schema::Split::Rows) {
        Dispatch(d, call, 0, RowRange());
        continue;
      }
      const size_t width = d.segments * 2;
      for (size_t share = 0; share < e_.program_.shares; ++share) {
        Dispatch(d, call, share, std::span(d.ranges).subspan(share * width, width));
      }
    }
  }

  std::array<int64_t, 2> RowRange() const { return {0, dims_[kDimRows]}; }

  void Dispatch(const Instruction& d, const BodyCall& call, size_t share,
                std::span<const int64_t> ranges) {
    std::vector<uint64_t> arguments;
    for (const schema::Arg& arg : d.args) arguments.push_back(Address(arg, call, share));
    Launch(e_.kernels_[d.kernel][role_], d.kernel, std::move(arguments), ranges);
  }

  /// `number` stands for the kernel in a profile.
  void Launch(const Kernel& kernel, uint32_t number, std::vector<uint64_t> parameters,
              std::span<const int64_t> ranges) {
    GpuLaunch launch;
    const GridCounts counts{static_cast<uint64_t>(dims_[kDimRows]),
                            static_cast<uint64_t>(dims_[kDimAttentionTiles]),
                            static_cast<uint64_t>(dims_[kDimPageTableStride]), ranges};
    for (size_t i = 0; i < kernel.grid.size(); ++i) {
      launch.grid[i] = static_cast<uint32_t>(GridBlocks(kernel.grid[i], counts));
      if (launch.grid[i] == 0) return;
    }
    launch.kernel = kernel.handle;
    launch.block_threads = kernel.block_threads;
    launch.shared_bytes = kernel.shared_bytes;
    launch.parameters = std::move(parameters);
    if (kernel.has_workspace) {
      launch.parameters.push_back(e_.At(e_.plan_.workspace));
      launch.parameters.push_back(e_.At(e_.plan_.counters));
    }
    for (int64_t dim : dims_) launch.parameters.push_back(static_cast<uint64_t>(dim));
    for (int64_t bound : ranges) launch.parameters.push_back(static_cast<uint64_t>(bound));
    launches_.push_back(std::move(launch));
    kernels_.push_back(number);
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

}  // namespace quern

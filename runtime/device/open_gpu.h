// GPUs by name, and which ones this machine has.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/gpu_device.h"

namespace quern {

/// Opens "cuda" (the first one), "cuda:N", "ptx-emulator" or "ptx-emulator:sm_80". Errors: kUsage
/// for another name or a number that this machine does not have; kIncompatible where there is no
/// driver or it is too old, with the remedy.
Result<std::unique_ptr<GpuDevice>> OpenGpu(std::string_view name);

/// A device of this machine.
struct GpuInfo {
  std::string name;         ///< "cuda:0"
  std::string description;  ///< "NVIDIA H100"
  GpuLimits limits;
};

/// The devices of the CUDA driver. Error: kIncompatible, saying why there are none.
Result<std::vector<GpuInfo>> ListGpus();

}  // namespace quern

// The PTX emulator as a device: every kernel and the whole path to it, on a machine without a GPU.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/device/gpu_device.h"

namespace quern {

struct PtxEmulatorOptions {
  /// The GPU it stands for, "sm_80" or "sm_90a": limits and which PTX it takes.
  std::string_view target = "sm_90a";
  /// Bytes of device memory; 0: what this process may use.
  uint64_t memory_bytes = 0;
  /// Threads of the CPU; 0: as many as the process may use.
  uint32_t threads = 0;
};

/// Error: kUsage for a target that is none.
Result<std::unique_ptr<GpuDevice>> OpenPtxEmulator(const PtxEmulatorOptions& options);

}  // namespace quern

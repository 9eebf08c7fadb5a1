// Which of an artifact's GPU targets a device runs, and what compute capabilities and drivers
// offer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "runtime/base/status.h"
#include "runtime/device/gpu_device.h"

namespace quern {

/// What a GPU target of an artifact needs.
struct GpuTargetRequirement {
  /// "sm_80", "sm_90a".
  std::string name;
  /// 10 * major + minor.
  uint32_t sm = 0;
  /// Runs on this compute capability only.
  bool exact = false;
  /// 10 * major + minor.
  uint32_t ptx_version = 0;
  /// Index in the manifest's list of targets.
  size_t index = 0;
  /// Rows of an attention tile at most.
  uint32_t attention_tile_rows = 16;
};

/// Index in `targets` of the one for a device: the one named `forced`, or with an empty `forced`
/// the last one that the device runs. Errors: kIncompatible, with what each target lacks and the
/// remedy; kUsage when no target has the name `forced`.
Result<size_t> SelectGpuTarget(std::span<const GpuTargetRequirement> targets,
                               std::string_view forced, const GpuLimits& limits);

/// The newest PTX ISA (10 * major + minor) that a driver of this CUDA version (1000 * major + 10 *
/// minor) reads; 0 for one older than 11.0. Newer ones than this table knows count as its last.
uint32_t PtxVersionOfDriver(uint32_t driver_version);
/// The first CUDA version whose driver reads this PTX ISA; 0 if the table knows none.
uint32_t DriverOfPtxVersion(uint32_t ptx_version);

/// Most shared memory of a block on a compute capability.
uint32_t BlockSharedBytes(uint32_t sm);

/// 90 for "sm_90" and "sm_90a"; none for anything else.
std::optional<uint32_t> ParseSm(std::string_view name);

/// "12.4" of 12040, "9.0" of 90.
std::string DriverVersionText(uint32_t driver_version);
std::string DottedVersion(uint32_t version);

}  // namespace quern

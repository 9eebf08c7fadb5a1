// A GPU behind NVIDIA's driver.
#pragma once

#include <memory>

#include "runtime/device/cuda/cuda_driver.h"
#include "runtime/device/gpu_device.h"

namespace quern::cuda {

/// Opens device `ordinal` of `driver`: its primary context, shared with whatever else in the
/// process uses the device, and one stream of our own. Errors: kUsage for a number that the driver
/// does not have; kFailure.
Result<std::unique_ptr<GpuDevice>> OpenDevice(std::shared_ptr<const Driver> driver, int ordinal);

}  // namespace quern::cuda

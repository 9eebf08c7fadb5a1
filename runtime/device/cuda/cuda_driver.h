// libcuda.so.1, opened at run time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/cuda/driver_api.h"
#include "runtime/device/open_gpu.h"

namespace quern::cuda {

/// The name by which every NVIDIA driver of Linux installs the library.
inline constexpr char kDriverLibrary[] = "libcuda.so.1";

/// The driver's functions, as members named without `cu`: `driver.MemAlloc(...)`.
class Driver {
 public:
  /// Opens and initialises the driver. `library` is another one in tests only. Errors:
  /// kIncompatible: there is no driver or no device, or the driver is too old to have what Quern
  /// calls; with the remedy.
  static Result<std::shared_ptr<const Driver>> Open(const std::string& library);

#define QUERN_CUDA_MEMBER(name, symbol, parameters)  \
  using name##Function = DriverResult(*) parameters; \
  name##Function name = nullptr;
  QUERN_CUDA_FUNCTIONS(QUERN_CUDA_MEMBER)
#undef QUERN_CUDA_MEMBER

  /// CUDA version of the driver, 1000 * major + 10 * minor.
  uint32_t version() const { return version_; }
  int devices() const { return devices_; }
  /// Device `ordinal` and its limits. Error: kFailure.
  Result<GpuInfo> Describe(int ordinal) const;

  /// `CALL failed: CUDA_ERROR_NAME (number): description`; ok for kSuccess.
  Status Check(DriverResult result, const char* call) const;

 private:
  Driver() = default;
  Status Start();

  uint32_t version_ = 0;
  int devices_ = 0;
};

}  // namespace quern::cuda

#include "runtime/device/open_gpu.h"

#include <algorithm>
#include <charconv>

#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/cuda/cuda_driver.h"
#include "runtime/device/ptx_emulator_device.h"

namespace quern {
namespace {

Status UnknownDevice(std::string_view name) {
  return UsageError("there is no device '" + std::string(name) +
                    "'; wanted cpu, cuda:N or ptx-emulator[:sm_90a]");
}

/// `rest` is what follows "cuda".
Result<std::unique_ptr<GpuDevice>> OpenCuda(std::string_view name, std::string_view rest) {
  int ordinal = 0;
  if (!rest.empty()) {
    rest.remove_prefix(1);
    const char* end = rest.data() + rest.size();
    const auto parsed = std::from_chars(rest.data(), end, ordinal);
    if (parsed.ec != std::errc() || parsed.ptr != end || ordinal < 0) return UnknownDevice(name);
  }
  QUERN_ASSIGN_OR_RETURN(auto driver, cuda::Driver::Open(cuda::kDriverLibrary));
  return cuda::OpenDevice(std::move(driver), ordinal);
}

}  // namespace

Result<std::unique_ptr<GpuDevice>> OpenGpu(std::string_view name) {
  const size_t colon = std::min(name.find(':'), name.size());
  const std::string_view kind = name.substr(0, colon), rest = name.substr(colon);
  if (kind == "cuda") return OpenCuda(name, rest);
  if (kind != "ptx-emulator") return UnknownDevice(name);
  PtxEmulatorOptions options;
  if (!rest.empty()) options.target = rest.substr(1);
  return OpenPtxEmulator(options);
}

Result<std::vector<GpuInfo>> ListGpus() {
  QUERN_ASSIGN_OR_RETURN(const auto driver, cuda::Driver::Open(cuda::kDriverLibrary));
  std::vector<GpuInfo> gpus;
  for (int i = 0; i < driver->devices(); ++i) {
    QUERN_ASSIGN_OR_RETURN(GpuInfo info, driver->Describe(i));
    gpus.push_back(std::move(info));
  }
  return gpus;
}

}  // namespace quern

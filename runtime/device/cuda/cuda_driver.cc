#include "runtime/device/cuda/cuda_driver.h"

#include <dlfcn.h>

#include "runtime/device/gpu_target.h"

namespace quern::cuda {

Result<std::shared_ptr<const Driver>> Driver::Open(const std::string& library) {
  // Never closed: drivers keep threads of their own.
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* reason = dlerror();
    return Incompatible("no NVIDIA driver (" + std::string(reason ? reason : library) +
                        "); install one, or use the CPU with --device=cpu");
  }
  std::shared_ptr<Driver> driver(new Driver());
  const struct {
    const char* symbol;
    void** slot;
  } slots[] = {
#define QUERN_CUDA_SLOT(name, symbol, parameters) \
  {#symbol, reinterpret_cast<void**>(&driver->name)},
      QUERN_CUDA_FUNCTIONS(QUERN_CUDA_SLOT)
#undef QUERN_CUDA_SLOT
  };
  for (const auto& [symbol, slot] : slots) {
    *slot = dlsym(handle, symbol);
    if (!*slot) {
      return Incompatible(library + " has no " + symbol +
                          ": it is older than CUDA 12.0; update the NVIDIA driver");
    }
  }
  QUERN_RETURN_IF_ERROR(driver->Start());
  return std::shared_ptr<const Driver>(std::move(driver));
}

Status Driver::Start() {
  int version = 0;
  QUERN_RETURN_IF_ERROR(Check(DriverGetVersion(&version), "cuDriverGetVersion"));
  version_ = static_cast<uint32_t>(version);
  const DriverResult started = Init(0);
  if (started == kNoDevice) {
    return Incompatible("the NVIDIA driver (CUDA " + DriverVersionText(version_) +
                        ") finds no device; use the CPU with --device=cpu");
  }
  if (started == kSystemDriverMismatch) {
    return Incompatible(
        "the NVIDIA driver's kernel module and libcuda.so.1 are of different "
        "versions; restart the machine after updating the driver");
  }
  QUERN_RETURN_IF_ERROR(Check(started, "cuInit"));
  return Check(DeviceGetCount(&devices_), "cuDeviceGetCount");
}

Result<GpuInfo> Driver::Describe(int ordinal) const {
  GpuInfo info;
  info.name = "cuda:" + std::to_string(ordinal);
  Device device = 0;
  QUERN_RETURN_IF_ERROR(Check(DeviceGet(&device, ordinal), "cuDeviceGet"));
  char text[256] = {};
  QUERN_RETURN_IF_ERROR(Check(DeviceGetName(text, sizeof(text) - 1, device), "cuDeviceGetName"));
  info.description = text;
  size_t bytes = 0;
  QUERN_RETURN_IF_ERROR(Check(DeviceTotalMem(&bytes, device), "cuDeviceTotalMem"));
  constexpr DeviceAttribute kAttributes[] = {kComputeCapabilityMajor,
                                             kComputeCapabilityMinor,
                                             kMaxThreadsPerBlock,
                                             kMaxSharedMemoryPerBlockOptin,
                                             kMultiprocessorCount,
                                             kMaxGridDimX,
                                             kMaxGridDimY,
                                             kMaxGridDimZ};
  uint32_t values[std::size(kAttributes)] = {};
  for (size_t i = 0; i < std::size(kAttributes); ++i) {
    int value = 0;
    QUERN_RETURN_IF_ERROR(
        Check(DeviceGetAttribute(&value, kAttributes[i], device), "cuDeviceGetAttribute"));
    values[i] = static_cast<uint32_t>(value);
  }
  GpuLimits& limits = info.limits;
  limits.sm = 10 * values[0] + values[1];
  limits.driver_version = version_;
  limits.ptx_version = PtxVersionOfDriver(version_);
  limits.block_threads = values[2];
  limits.block_shared_bytes = values[3];
  limits.multiprocessors = values[4];
  limits.grid_blocks = {values[5], values[6], values[7]};
  limits.memory_bytes = bytes;
  return info;
}

Status Driver::Check(DriverResult result, const char* call) const {
  if (result == kSuccess) return {};
  const char *name = nullptr, *text = nullptr;
  if (GetErrorName(result, &name) != kSuccess || !name) name = "unknown error";
  if (GetErrorString(result, &text) != kSuccess || !text) text = "no description";
  return Failure(std::string(call) + " failed: " + name + " (" + std::to_string(result) +
                 "): " + text);
}

}  // namespace quern::cuda

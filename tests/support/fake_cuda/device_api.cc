// Start, errors, devices, contexts.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "runtime/device/gpu_target.h"
#include "runtime/schema/kernel_abi.h"
#include "tests/support/fake_cuda/driver_state.h"

using namespace quern::fake_cuda;
using quern::cuda::Context;
using quern::cuda::Device;
using quern::cuda::DeviceAttribute;
using quern::cuda::DriverResult;
namespace cuda = quern::cuda;

namespace {

constexpr struct {
  DriverResult code;
  const char* name;
  const char* text;
} kErrors[] = {
    {cuda::kSuccess, "CUDA_SUCCESS", "no error"},
    {cuda::kInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {cuda::kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {cuda::kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {cuda::kNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {cuda::kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {cuda::kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {cuda::kNoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image for this device"},
    {cuda::kInvalidPtx, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {cuda::kUnsupportedPtxVersion, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain"},
    {cuda::kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {cuda::kNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {cuda::kNotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {cuda::kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access"},
    {cuda::kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {cuda::kStreamCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {cuda::kStreamCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
};

DriverResult ErrorText(DriverResult error, const char** text, bool name) {
  for (const auto& each : kErrors) {
    if (each.code != error) continue;
    *text = name ? each.name : each.text;
    return cuda::kSuccess;
  }
  *text = nullptr;
  return cuda::kInvalidValue;
}

FakeDevice* Find(FakeDriver& driver, Device device) {
  const bool known = device >= 0 && static_cast<size_t>(device) < driver.devices.size();
  return known ? driver.devices[static_cast<size_t>(device)].get() : nullptr;
}

}  // namespace

FAKE_CUDA_EXPORT DriverResult cuInit(unsigned flags) {
  if (flags != 0) return cuda::kInvalidValue;
  FakeDriver& driver = FakeDriver::Get();
  const std::lock_guard<std::mutex> lock(driver.mutex);
  const bool in_use = std::any_of(driver.devices.begin(), driver.devices.end(),
                                  [](const auto& device) { return device->retained > 0; });
  if (in_use) return cuda::kSuccess;
  driver.config = Config::FromEnvironment();
  driver.devices.clear();
  driver.initialized = driver.config.devices > 0;
  for (int i = 0; i < driver.config.devices; ++i) {
    driver.devices.push_back(std::make_unique<FakeDevice>(driver.config.memory));
  }
  return driver.initialized ? cuda::kSuccess : cuda::kNoDevice;
}

FAKE_CUDA_EXPORT DriverResult cuDriverGetVersion(int* version) {
  if (!version) return cuda::kInvalidValue;
  *version = Config::FromEnvironment().driver;
  return cuda::kSuccess;
}

FAKE_CUDA_EXPORT DriverResult cuGetErrorName(DriverResult error, const char** text) {
  return ErrorText(error, text, true);
}

FAKE_CUDA_EXPORT DriverResult cuGetErrorString(DriverResult error, const char** text) {
  return ErrorText(error, text, false);
}

FAKE_CUDA_EXPORT DriverResult cuDeviceGetCount(int* count) {
  return Initialized([&](FakeDriver& driver) {
    *count = static_cast<int>(driver.devices.size());
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuDeviceGet(Device* device, int ordinal) {
  return Initialized([&](FakeDriver& driver) {
    if (!Find(driver, ordinal)) return cuda::kInvalidDevice;
    *device = ordinal;
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuDeviceGetName(char* name, int length, Device device) {
  return Initialized([&](FakeDriver& driver) {
    if (!Find(driver, device)) return cuda::kInvalidDevice;
    std::snprintf(name, static_cast<size_t>(length), "Fake GPU %u", driver.config.sm);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuDeviceTotalMem_v2(size_t* bytes, Device device) {
  return Initialized([&](FakeDriver& driver) {
    const FakeDevice* found = Find(driver, device);
    if (!found) return cuda::kInvalidDevice;
    *bytes = found->memory.capacity();
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuDeviceGetAttribute(int* value, DeviceAttribute attribute,
                                                   Device device) {
  return Initialized([&](FakeDriver& driver) {
    if (!Find(driver, device)) return cuda::kInvalidDevice;
    const uint32_t sm = driver.config.sm;
    switch (attribute) {
      case cuda::kMaxThreadsPerBlock:
        *value = quern::kMaxBlockThreads;
        break;
      case cuda::kMaxGridDimX:
        *value = static_cast<int>(quern::kMaxGridBlocks[0]);
        break;
      case cuda::kMaxGridDimY:
        *value = static_cast<int>(quern::kMaxGridBlocks[1]);
        break;
      case cuda::kMaxGridDimZ:
        *value = static_cast<int>(quern::kMaxGridBlocks[2]);
        break;
      case cuda::kMultiprocessorCount:
        *value = 1;
        break;
      case cuda::kComputeCapabilityMajor:
        *value = static_cast<int>(sm / 10);
        break;
      case cuda::kComputeCapabilityMinor:
        *value = static_cast<int>(sm % 10);
        break;
      case cuda::kMaxSharedMemoryPerBlockOptin:
        *value = static_cast<int>(quern::BlockSharedBytes(sm));
        break;
      default:
        return cuda::kInvalidValue;
    }
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuDevicePrimaryCtxRetain(Context* context, Device device) {
  return Initialized([&](FakeDriver& driver) {
    FakeDevice* found = Find(driver, device);
    if (!found) return cuda::kInvalidDevice;
    if (found->retained++ == 0) found->context = driver.NewHandle();
    *context = HandleOf<Context>(found->context);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuDevicePrimaryCtxRelease_v2(Device device) {
  return Initialized([&](FakeDriver& driver) {
    FakeDevice* found = Find(driver, device);
    if (!found) return cuda::kInvalidDevice;
    if (found->retained == 0) return cuda::kInvalidContext;
    if (--found->retained == 0) {  // everything in the context goes with it
      driver.devices[static_cast<size_t>(device)] =
          std::make_unique<FakeDevice>(driver.config.memory);
    }
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuCtxPushCurrent_v2(Context context) {
  return Initialized([&](FakeDriver& driver) {
    FakeDriver::ContextStack().push_back(NumberOf(context));
    if (driver.Current()) return cuda::kSuccess;
    FakeDriver::ContextStack().pop_back();
    return cuda::kInvalidContext;
  });
}

FAKE_CUDA_EXPORT DriverResult cuCtxPopCurrent_v2(Context* context) {
  return Initialized([&](FakeDriver&) {
    if (FakeDriver::ContextStack().empty()) return cuda::kInvalidContext;
    if (context) *context = HandleOf<Context>(FakeDriver::ContextStack().back());
    FakeDriver::ContextStack().pop_back();
    return cuda::kSuccess;
  });
}

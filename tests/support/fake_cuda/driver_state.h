// A stand-in for NVIDIA's libcuda.so.1 that executes PTX with the emulator. It exports the driver
// functions that Quern calls, and is strict: wrong handles, calls out of order and what a graph
// capture forbids are refused with the driver's error codes. Work on a stream happens as late as
// the driver may do it, so that a missing wait shows.
//
// Environment, read by cuInit while no context is in use:
//   QUERN_FAKE_CUDA_DRIVER   CUDA version, 1000 * major + 10 * minor (default 12080)
//   QUERN_FAKE_CUDA_SM       compute capability, 10 * major + minor (default 90)
//   QUERN_FAKE_CUDA_MEMORY   bytes of each device (default 4 GiB)
//   QUERN_FAKE_CUDA_DEVICES  how many (default 1)
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/device/cuda/driver_api.h"
#include "runtime/device/ptx_emulator/emulator.h"

namespace quern::fake_cuda {

using cuda::DriverResult;

struct Config {
  int driver = 12080;
  uint32_t sm = 90;
  uint64_t memory = uint64_t{4} << 30;
  int devices = 1;
  static Config FromEnvironment();
};

/// Work on a stream.
using Operation = std::function<DriverResult()>;

struct FakeModule {
  ptx::Module module;
};

struct FakeFunction {
  uintptr_t module = 0;
  std::string name;
  /// Dynamic shared memory it was allowed; kDefaultSharedBytes less the static part at first.
  uint32_t dynamic_shared_bytes = 0;
};

struct FakeStream {
  std::vector<Operation> pending;
  bool capturing = false;
  bool capture_broken = false;
  std::vector<Operation> captured;
};

struct FakeEvent {
  bool recorded = false;
  bool done = false;
  uint64_t nanoseconds = 0;
};

/// One device and what lives in its primary context. Handles are numbers that are never used twice.
struct FakeDevice {
  explicit FakeDevice(uint64_t bytes) : memory(bytes) {}

  ptx::Memory memory;
  int retained = 0;
  uintptr_t context = 0;
  /// Of the first kernel that failed: nothing works afterwards.
  DriverResult failed = cuda::kSuccess;
  std::map<uintptr_t, FakeModule> modules;
  std::map<uintptr_t, FakeFunction> functions;
  std::map<uintptr_t, FakeStream> streams;
  std::map<uintptr_t, std::shared_ptr<FakeEvent>> events;
  std::map<uintptr_t, std::vector<Operation>> graphs, executables;

  /// Does all work that waits on `stream`.
  DriverResult Flush(FakeStream& stream);
  DriverResult FlushAll();
  bool capturing() const;
};

/// The whole driver; functions hold its mutex.
struct FakeDriver {
  static FakeDriver& Get();

  std::mutex mutex;
  bool initialized = false;
  Config config;
  std::vector<std::unique_ptr<FakeDevice>> devices;

  uintptr_t NewHandle() { return last_handle_ += 0x10; }
  /// The device of the calling thread's current context; null when there is none.
  FakeDevice* Current();
  /// The calling thread's stack of contexts.
  static std::vector<uintptr_t>& ContextStack();

 private:
  uintptr_t last_handle_ = 0xfa4e0000;
};

template <typename Handle>
uintptr_t NumberOf(Handle handle) {
  return reinterpret_cast<uintptr_t>(handle);
}
template <typename Handle>
Handle HandleOf(uintptr_t number) {
  return reinterpret_cast<Handle>(number);
}

/// The body of a function that needs an initialised driver.
template <typename Body>
DriverResult Initialized(Body body) {
  FakeDriver& driver = FakeDriver::Get();
  const std::lock_guard<std::mutex> lock(driver.mutex);
  return driver.initialized ? body(driver) : cuda::kNotInitialized;
}

/// The body of a function that needs a current context that still works.
template <typename Body>
DriverResult WithContext(Body body) {
  return Initialized([&](FakeDriver& driver) -> DriverResult {
    FakeDevice* device = driver.Current();
    if (!device) return cuda::kInvalidContext;
    if (device->failed != cuda::kSuccess) return device->failed;
    return body(driver, *device);
  });
}

/// The same for one that takes a stream.
template <typename Body>
DriverResult OnStream(cuda::Stream handle, Body body) {
  return WithContext([&](FakeDriver& driver, FakeDevice& device) -> DriverResult {
    const auto stream = device.streams.find(NumberOf(handle));
    if (stream == device.streams.end()) return cuda::kInvalidHandle;
    return body(driver, device, stream->second);
  });
}

}  // namespace quern::fake_cuda

/// Marks what the library exports.
#define FAKE_CUDA_EXPORT extern "C" __attribute__((visibility("default")))

#include "runtime/device/cuda/cuda_device.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/device/gpu_target.h"

namespace quern::cuda {
namespace {

constexpr size_t kLogBytes = 8192;
/// Of a compiler's log in an error message.
constexpr size_t kMostLogText = 600;

template <typename Handle, typename Id>
Handle HandleOf(Id id) {
  return reinterpret_cast<Handle>(static_cast<uintptr_t>(id));
}
template <typename Id, typename Handle>
Id IdOf(Handle handle) {
  return static_cast<Id>(reinterpret_cast<uintptr_t>(handle));
}

/// A log as one line.
std::string LogLine(std::string text) {
  text.resize(std::min(text.find('\0'), text.size()));
  std::string line;
  for (char c : text) {
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
    if (c != ' ' || (!line.empty() && line.back() != ' ')) line += c;
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  if (line.size() > kMostLogText) line = line.substr(0, kMostLogText) + "...";
  return line.empty() ? "no log" : line;
}

/// Makes a context current while it lives, and leaves the caller's as it was.
class ContextScope {
 public:
  ContextScope(const Driver& driver, Context context)
      : driver_(driver),
        status_(driver.Check(driver.CtxPushCurrent(context), "cuCtxPushCurrent")) {}
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
  ~ContextScope() {
    Context old = nullptr;
    if (status_.ok()) driver_.CtxPopCurrent(&old);
  }
  const Status& status() const { return status_; }

 private:
  const Driver& driver_;
  Status status_;
};

class CudaDevice final : public GpuDevice {
 public:
  CudaDevice(std::shared_ptr<const Driver> driver, GpuInfo info)
      : driver_(std::move(driver)), info_(std::move(info)) {}
  ~CudaDevice() override;

  Status Open(int ordinal);

  std::string name() const override { return info_.name; }
  std::string description() const override { return info_.description; }
  const GpuLimits& limits() const override { return info_.limits; }
  Result<uint64_t> FreeMemory() override;

  Result<DeviceAddress> Allocate(uint64_t bytes) override;
  Status Free(DeviceAddress address) override;
  Status Upload(DeviceAddress destination, const void* source, uint64_t bytes) override;
  Status Download(void* destination, DeviceAddress source, uint64_t bytes) override;
  Status Copy(DeviceAddress destination, DeviceAddress source, uint64_t bytes) override;
  Status Fill(DeviceAddress destination, uint8_t value, uint64_t bytes) override;

  Result<GpuModule> LoadModule(std::string_view ptx) override;
  Status UnloadModule(GpuModule module) override;
  Result<GpuKernel> FindKernel(GpuModule module, const std::string& name, uint32_t block_threads,
                               uint32_t shared_bytes) override;

  Status Launch(const GpuLaunch& launch) override;
  Result<std::unique_ptr<GpuGraph>> Record(std::span<const GpuLaunch> launches) override;
  Status LaunchTimed(std::span<const GpuLaunch> launches, std::span<uint64_t> nanoseconds) override;
  Status Synchronize() override;

 private:
  class RecordedGraph;

  /// Calls `call` with the context current.
  template <typename Call>
  auto InContext(Call call) -> decltype(call()) {
    const ContextScope scope(*driver_, context_);
    if (!scope.status().ok()) return scope.status();
    return call();
  }
  /// The same for one function of the driver.
  template <typename Function, typename... Arguments>
  Status Do(const char* name, Function function, Arguments... arguments) {
    return InContext([&]() -> Status { return driver_->Check(function(arguments...), name); });
  }
  Status LaunchHere(const GpuLaunch& launch);
  Status TimeHere(std::span<const GpuLaunch> launches, std::span<const Event> events,
                  std::span<uint64_t> nanoseconds);
  Status LoadFailure(DriverResult result, const std::string& log) const;
  Result<GpuKernel> Prepare(Function function, const std::string& name, uint32_t block_threads,
                            uint32_t shared_bytes);

  std::shared_ptr<const Driver> driver_;
  GpuInfo info_;
  Device device_ = 0;
  Context context_ = nullptr;
  Stream stream_ = nullptr;
  std::vector<DevicePointer> allocations_;
  std::vector<Module> modules_;
};

class CudaDevice::RecordedGraph final : public GpuGraph {
 public:
  RecordedGraph(CudaDevice& device, GraphExec graph) : device_(device), graph_(graph) {}
  ~RecordedGraph() override {
    (void)device_.Do("cuGraphExecDestroy", device_.driver_->GraphExecDestroy, graph_);
  }
  Status Launch() override {
    return device_.Do("cuGraphLaunch", device_.driver_->GraphLaunch, graph_, device_.stream_);
  }

 private:
  CudaDevice& device_;
  GraphExec graph_;
};

Status CudaDevice::Open(int ordinal) {
  QUERN_RETURN_IF_ERROR(driver_->Check(driver_->DeviceGet(&device_, ordinal), "cuDeviceGet"));
  QUERN_RETURN_IF_ERROR(driver_->Check(driver_->DevicePrimaryCtxRetain(&context_, device_),
                                       "cuDevicePrimaryCtxRetain"));
  return Do("cuStreamCreate", driver_->StreamCreate, &stream_, kStreamNonBlocking);
}

CudaDevice::~CudaDevice() {
  if (!context_) return;
  {
    const ContextScope scope(*driver_, context_);
    if (stream_) driver_->StreamSynchronize(stream_);
    for (const Module module : modules_) driver_->ModuleUnload(module);
    for (const DevicePointer address : allocations_) driver_->MemFree(address);
    if (stream_) driver_->StreamDestroy(stream_);
  }
  driver_->DevicePrimaryCtxRelease(device_);
}

Result<uint64_t> CudaDevice::FreeMemory() {
  size_t free = 0, total = 0;
  QUERN_RETURN_IF_ERROR(Do("cuMemGetInfo", driver_->MemGetInfo, &free, &total));
  return uint64_t{free};
}

Result<DeviceAddress> CudaDevice::Allocate(uint64_t bytes) {
  if (bytes == 0) return UsageError("an allocation of 0 bytes on " + name());
  QUERN_ASSIGN_OR_RETURN(const uint64_t free, FreeMemory());
  DevicePointer address = 0;
  const Status status = bytes > free ? Failure("more than is free")
                                     : Do("cuMemAlloc", driver_->MemAlloc, &address, bytes);
  if (!status.ok()) {
    return OutOfMemory(name() + " cannot allocate " + std::to_string(bytes) + " bytes, " +
                       std::to_string(free) + " are free (" + status.message() +
                       "); lower context, kv_tokens or max_rows, or free the device");
  }
  allocations_.push_back(address);
  return DeviceAddress{address};
}

Status CudaDevice::Free(DeviceAddress address) {
  const auto found = std::find(allocations_.begin(), allocations_.end(), address);
  if (found == allocations_.end()) return UsageError("an address that was not allocated");
  allocations_.erase(found);
  return Do("cuMemFree", driver_->MemFree, DevicePointer{address});
}

// From memory that is not page-locked the driver copies before it returns.
Status CudaDevice::Upload(DeviceAddress destination, const void* source, uint64_t bytes) {
  if (bytes == 0) return {};
  return Do("cuMemcpyHtoDAsync", driver_->MemcpyHtoDAsync, DevicePointer{destination}, source,
            size_t{bytes}, stream_);
}

Status CudaDevice::Download(void* destination, DeviceAddress source, uint64_t bytes) {
  if (bytes > 0) {
    QUERN_RETURN_IF_ERROR(Do("cuMemcpyDtoHAsync", driver_->MemcpyDtoHAsync, destination,
                             DevicePointer{source}, size_t{bytes}, stream_));
  }
  return Synchronize();
}

Status CudaDevice::Copy(DeviceAddress destination, DeviceAddress source, uint64_t bytes) {
  if (bytes == 0) return {};
  return Do("cuMemcpyDtoDAsync", driver_->MemcpyDtoDAsync, DevicePointer{destination},
            DevicePointer{source}, size_t{bytes}, stream_);
}

Status CudaDevice::Fill(DeviceAddress destination, uint8_t value, uint64_t bytes) {
  if (bytes == 0) return {};
  return Do("cuMemsetD8Async", driver_->MemsetD8Async, DevicePointer{destination}, value,
            size_t{bytes}, stream_);
}

Result<GpuModule> CudaDevice::LoadModule(std::string_view ptx) {
  const std::string text(ptx);  // the driver wants a zero behind it
  std::string log(kLogBytes, '\0');
  JitOption options[] = {kJitErrorLogBuffer, kJitErrorLogBufferSizeBytes};
  void* values[] = {log.data(), reinterpret_cast<void*>(uintptr_t{kLogBytes - 1})};
  Module module = nullptr;
  return InContext([&]() -> Result<GpuModule> {
    const DriverResult loaded =
        driver_->ModuleLoadDataEx(&module, text.c_str(), std::size(options), options, values);
    if (loaded != kSuccess) return LoadFailure(loaded, LogLine(log));
    modules_.push_back(module);
    return IdOf<GpuModule>(module);
  });
}

Status CudaDevice::LoadFailure(DriverResult result, const std::string& log) const {
  const std::string text =
      driver_->Check(result, "cuModuleLoadDataEx").message() + "; the driver's log: " + log;
  switch (result) {
    case kUnsupportedPtxVersion:
      return Incompatible("the driver (CUDA " + DriverVersionText(driver_->version()) +
                          ") does not read the artifact's PTX: update the NVIDIA driver; " + text);
    case kNoBinaryForGpu:
      return Incompatible("the artifact's PTX is for another GPU than " + info_.description +
                          "; compile the model with --target=sm_" +
                          std::to_string(info_.limits.sm) + "; " + text);
    case kJitCompilerNotFound:
      return Incompatible(
          "the driver's PTX compiler (libnvidia-ptxjitcompiler.so.1) is missing; "
          "install the whole driver; " +
          text);
    case kOutOfMemory:
      return OutOfMemory(name() + " has no memory for the kernels; " + text);
    case kInvalidPtx:
    case kInvalidImage:
      return Malformed("the driver refuses the artifact's PTX; compile the model again; " + text);
    default:
      return Failure(text);
  }
}

Status CudaDevice::UnloadModule(GpuModule module) {
  const auto handle = HandleOf<Module>(module);
  const auto found = std::find(modules_.begin(), modules_.end(), handle);
  if (found == modules_.end()) return UsageError("a module that was not loaded");
  modules_.erase(found);
  QUERN_RETURN_IF_ERROR(Synchronize());
  return Do("cuModuleUnload", driver_->ModuleUnload, handle);
}

Result<GpuKernel> CudaDevice::FindKernel(GpuModule module, const std::string& name,
                                         uint32_t block_threads, uint32_t shared_bytes) {
  return InContext([&]() -> Result<GpuKernel> {
    Function function = nullptr;
    const DriverResult found =
        driver_->ModuleGetFunction(&function, HandleOf<Module>(module), name.c_str());
    if (found == kNotFound) {
      return Malformed("the PTX has no entry '" + name + "'; compile the model again");
    }
    QUERN_RETURN_IF_ERROR(driver_->Check(found, "cuModuleGetFunction"));
    return Prepare(function, name, block_threads, shared_bytes);
  });
}

Result<GpuKernel> CudaDevice::Prepare(Function function, const std::string& name,
                                      uint32_t block_threads, uint32_t shared_bytes) {
  int fixed = 0, threads = 0;
  QUERN_RETURN_IF_ERROR(driver_->Check(
      driver_->FuncGetAttribute(&fixed, kFunctionSharedSizeBytes, function), "cuFuncGetAttribute"));
  QUERN_RETURN_IF_ERROR(
      driver_->Check(driver_->FuncGetAttribute(&threads, kFunctionMaxThreadsPerBlock, function),
                     "cuFuncGetAttribute"));
  if (block_threads > static_cast<uint32_t>(threads)) {
    return Incompatible("kernel " + name + " runs in blocks of " + std::to_string(block_threads) +
                        " threads and " + info_.description + " can run it in blocks of " +
                        std::to_string(threads) + " at most; compile the model with --target=sm_" +
                        std::to_string(info_.limits.sm));
  }
  const uint64_t shared = uint64_t{shared_bytes} + static_cast<uint32_t>(fixed);
  if (shared > info_.limits.block_shared_bytes) {
    return Incompatible("kernel " + name + " needs " + std::to_string(shared) +
                        " bytes of shared memory a block and " + info_.description + " has " +
                        std::to_string(info_.limits.block_shared_bytes) +
                        "; compile the model with --target=sm_" + std::to_string(info_.limits.sm));
  }
  if (shared > kDefaultSharedBytes) {
    QUERN_RETURN_IF_ERROR(
        driver_->Check(driver_->FuncSetAttribute(function, kFunctionMaxDynamicSharedSizeBytes,
                                                 static_cast<int>(shared_bytes)),
                       "cuFuncSetAttribute"));
  }
  return IdOf<GpuKernel>(function);
}

Status CudaDevice::LaunchHere(const GpuLaunch& launch) {
  size_t bytes = launch.parameters.size() * sizeof(uint64_t);
  void* extra[] = {reinterpret_cast<void*>(kLaunchParamBufferPointer),
                   const_cast<uint64_t*>(launch.parameters.data()),
                   reinterpret_cast<void*>(kLaunchParamBufferSize), &bytes,
                   reinterpret_cast<void*>(kLaunchParamEnd)};
  return driver_->Check(driver_->LaunchKernel(HandleOf<Function>(launch.kernel), launch.grid[0],
                                              launch.grid[1], launch.grid[2], launch.block_threads,
                                              1, 1, launch.shared_bytes, stream_, nullptr, extra),
                        "cuLaunchKernel");
}

Status CudaDevice::Launch(const GpuLaunch& launch) {
  return InContext([&]() -> Status { return LaunchHere(launch); });
}

Result<std::unique_ptr<GpuGraph>> CudaDevice::Record(std::span<const GpuLaunch> launches) {
  return InContext([&]() -> Result<std::unique_ptr<GpuGraph>> {
    QUERN_RETURN_IF_ERROR(driver_->Check(
        driver_->StreamBeginCapture(stream_, kCaptureModeThreadLocal), "cuStreamBeginCapture"));
    Status launched;
    for (const GpuLaunch& launch : launches) {
      launched = LaunchHere(launch);
      if (!launched.ok()) break;
    }
    Graph graph = nullptr;
    const DriverResult ended = driver_->StreamEndCapture(stream_, &graph);
    GraphExec executable = nullptr;
    Status made = launched.ok() ? driver_->Check(ended, "cuStreamEndCapture") : launched;
    if (made.ok()) {
      made = driver_->Check(driver_->GraphInstantiate(&executable, graph, 0),
                            "cuGraphInstantiateWithFlags");
    }
    if (graph) driver_->GraphDestroy(graph);
    QUERN_RETURN_IF_ERROR(made);
    return std::unique_ptr<GpuGraph>(std::make_unique<RecordedGraph>(*this, executable));
  });
}

Status CudaDevice::LaunchTimed(std::span<const GpuLaunch> launches,
                               std::span<uint64_t> nanoseconds) {
  return InContext([&]() -> Status {
    std::vector<Event> events(launches.size() + 1, nullptr);
    Status status;
    for (Event& event : events) {
      status = driver_->Check(driver_->EventCreate(&event, 0), "cuEventCreate");
      if (!status.ok()) break;
    }
    if (status.ok()) status = TimeHere(launches, events, nanoseconds);
    for (const Event event : events) {
      if (event) driver_->EventDestroy(event);
    }
    return status;
  });
}

/// Event i lies before launch i, the last one behind all.
Status CudaDevice::TimeHere(std::span<const GpuLaunch> launches, std::span<const Event> events,
                            std::span<uint64_t> nanoseconds) {
  for (size_t i = 0; i <= launches.size(); ++i) {
    QUERN_RETURN_IF_ERROR(
        driver_->Check(driver_->EventRecord(events[i], stream_), "cuEventRecord"));
    if (i < launches.size()) QUERN_RETURN_IF_ERROR(LaunchHere(launches[i]));
  }
  QUERN_RETURN_IF_ERROR(driver_->Check(driver_->StreamSynchronize(stream_), "cuStreamSynchronize"));
  for (size_t i = 0; i < launches.size(); ++i) {
    float milliseconds = 0;
    QUERN_RETURN_IF_ERROR(driver_->Check(
        driver_->EventElapsedTime(&milliseconds, events[i], events[i + 1]), "cuEventElapsedTime"));
    nanoseconds[i] += static_cast<uint64_t>(static_cast<double>(milliseconds) * 1e6);
  }
  return {};
}

Status CudaDevice::Synchronize() {
  return Do("cuStreamSynchronize", driver_->StreamSynchronize, stream_);
}

}  // namespace

Result<std::unique_ptr<GpuDevice>> OpenDevice(std::shared_ptr<const Driver> driver, int ordinal) {
  if (ordinal < 0 || ordinal >= driver->devices()) {
    return UsageError("there is no device cuda:" + std::to_string(ordinal) +
                      ", only cuda:0 to cuda:" + std::to_string(driver->devices() - 1));
  }
  QUERN_ASSIGN_OR_RETURN(GpuInfo info, driver->Describe(ordinal));
  auto device = std::make_unique<CudaDevice>(std::move(driver), std::move(info));
  QUERN_RETURN_IF_ERROR(device->Open(ordinal));
  return std::unique_ptr<GpuDevice>(std::move(device));
}

}  // namespace quern::cuda

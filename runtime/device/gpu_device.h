// A GPU as the executor sees it: memory, modules of PTX, launches in order.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace quern {

/// An address in the device's memory; no pointer of this process. 0 is none.
using DeviceAddress = uint64_t;
/// Handles of one device; 0 is none.
enum class GpuModule : uint64_t {};
enum class GpuKernel : uint64_t {};

/// What a device can do.
struct GpuLimits {
  /// Compute capability, 10 * major + minor.
  uint32_t sm = 0;
  /// The newest PTX ISA it reads, 10 * major + minor.
  uint32_t ptx_version = 0;
  /// CUDA version of the driver, 1000 * major + 10 * minor; 0 where there is no driver.
  uint32_t driver_version = 0;
  uint32_t block_threads = 0;
  /// Dynamic and static shared memory of a block, the opt-in part included.
  uint32_t block_shared_bytes = 0;
  std::array<uint64_t, 3> grid_blocks = {};
  uint32_t multiprocessors = 0;
  uint64_t memory_bytes = 0;
};

/// One launch of a kernel.
struct GpuLaunch {
  GpuKernel kernel = {};
  /// Blocks in x, y, z; none may be 0.
  std::array<uint32_t, 3> grid = {1, 1, 1};
  uint32_t block_threads = 0;
  uint32_t shared_bytes = 0;
  /// The kernel's parameters in order, each of 8 bytes.
  std::vector<uint64_t> parameters;
};

/// Launches made ready to be started together, again and again. Must not outlive its device.
class GpuGraph {
 public:
  virtual ~GpuGraph() = default;
  /// Starts all of them, in order. Errors: as GpuDevice::Launch.
  virtual Status Launch() = 0;
};

/// One device. Work (copies, fills, launches) happens in the order of the calls; Launch and Fill
/// may return before it is done, and report what went wrong only at a later call. After a kernel
/// failed every call fails. Calls must not overlap; any thread may make them. Destroying the device
/// frees what is left.
///
/// Errors of every call: kFailure, with the device's own words.
class GpuDevice {
 public:
  virtual ~GpuDevice() = default;

  /// As `--device=` names it ("cuda:0") and as people do ("NVIDIA H100").
  virtual std::string name() const = 0;
  virtual std::string description() const = 0;
  virtual const GpuLimits& limits() const = 0;
  /// Bytes that may be allocated now.
  virtual Result<uint64_t> FreeMemory() = 0;

  /// An address that is a multiple of 256, of bytes without defined contents. Errors: kOutOfMemory
  /// with what was wanted and free; kUsage for 0 bytes.
  virtual Result<DeviceAddress> Allocate(uint64_t bytes) = 0;
  virtual Status Free(DeviceAddress address) = 0;

  /// `source` may be changed as soon as the call returns.
  virtual Status Upload(DeviceAddress destination, const void* source, uint64_t bytes) = 0;
  /// Waits for all work before it, and for itself.
  virtual Status Download(void* destination, DeviceAddress source, uint64_t bytes) = 0;
  /// Copies inside the device; the ranges must not overlap.
  virtual Status Copy(DeviceAddress destination, DeviceAddress source, uint64_t bytes) = 0;
  virtual Status Fill(DeviceAddress destination, uint8_t value, uint64_t bytes) = 0;

  /// Compiles PTX for this device. Errors: kMalformed (not PTX, with the compiler's log),
  /// kIncompatible (another target, a version this driver does not read), kOutOfMemory.
  virtual Result<GpuModule> LoadModule(std::string_view ptx) = 0;
  /// Its kernels must not be in use.
  virtual Status UnloadModule(GpuModule module) = 0;
  /// The entry `name`, made ready for blocks of `block_threads` with `shared_bytes` of dynamic
  /// shared memory. Errors: kMalformed (no such entry); kIncompatible (more threads, registers or
  /// shared memory than the device has).
  virtual Result<GpuKernel> FindKernel(GpuModule module, const std::string& name,
                                       uint32_t block_threads, uint32_t shared_bytes) = 0;

  virtual Status Launch(const GpuLaunch& launch) = 0;
  /// Makes `launches` ready to be repeated.
  virtual Result<std::unique_ptr<GpuGraph>> Record(std::span<const GpuLaunch> launches) = 0;
  /// Runs `launches` to their end and adds the time of launch i to nanoseconds[i].
  virtual Status LaunchTimed(std::span<const GpuLaunch> launches,
                             std::span<uint64_t> nanoseconds) = 0;
  /// Waits for all work.
  virtual Status Synchronize() = 0;
};

}  // namespace quern

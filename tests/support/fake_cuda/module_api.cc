// Modules, functions, launches.
#include <algorithm>
#include <cstring>
#include <span>

#include "runtime/device/gpu_target.h"
#include "runtime/schema/kernel_abi.h"
#include "tests/support/fake_cuda/driver_state.h"

using namespace quern::fake_cuda;
using quern::cuda::DriverResult;
using quern::cuda::Function;
using quern::cuda::FunctionAttribute;
using quern::cuda::JitOption;
using quern::cuda::Module;
using quern::cuda::Stream;
namespace cuda = quern::cuda;
namespace ptx = quern::ptx;

namespace {

/// The buffer that an option of cuModuleLoadDataEx names, empty where it is missing.
std::span<char> LogBuffer(unsigned count, const JitOption* options, void* const* values) {
  char* buffer = nullptr;
  size_t size = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (options[i] == cuda::kJitErrorLogBuffer) buffer = static_cast<char*>(values[i]);
    if (options[i] == cuda::kJitErrorLogBufferSizeBytes) {
      size = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(values[i]));
    }
  }
  return buffer ? std::span(buffer, size) : std::span<char>();
}

void WriteLog(std::span<char> log, const std::string& text) {
  if (log.empty()) return;
  const size_t length = std::min(text.size(), log.size() - 1);
  std::memcpy(log.data(), text.data(), length);
  log[length] = '\0';
}

/// Whether a device of this configuration takes the module.
DriverResult CheckModule(const ptx::Module& module, const Config& config, std::span<char> log) {
  const auto version = static_cast<uint32_t>(10 * module.version()[0] + module.version()[1]);
  if (version > quern::PtxVersionOfDriver(static_cast<uint32_t>(config.driver))) {
    WriteLog(log, "ptxas application ptx input, line 1; fatal   : Unsupported .version " +
                      quern::DottedVersion(version));
    return cuda::kUnsupportedPtxVersion;
  }
  const uint32_t sm = quern::ParseSm(module.target()).value_or(0);
  const bool exact = module.target().ends_with('a');
  if (exact ? sm != config.sm : sm > config.sm) {
    WriteLog(log, "ptxas fatal   : PTX for " + module.target() + " on another device");
    return cuda::kNoBinaryForGpu;
  }
  return cuda::kSuccess;
}

const ptx::KernelInfo& InfoOf(const FakeDevice& device, const FakeFunction& function) {
  return *device.modules.at(function.module).module.FindKernel(function.name);
}

uint32_t MostThreads(const ptx::KernelInfo& info) {
  uint32_t threads = 1;
  for (uint32_t most : info.max_threads) threads *= std::max(1u, most);
  return info.max_threads[0] ? std::min(threads, quern::kMaxBlockThreads) : quern::kMaxBlockThreads;
}

/// Parameters as the two ways of cuLaunchKernel give them. Empty with a kernel that has some:
/// wrong.
std::vector<uint8_t> ReadParameters(const ptx::KernelInfo& info, void** parameters, void** extra) {
  std::vector<uint8_t> bytes(info.parameter_bytes);
  if (parameters) {
    for (size_t i = 0; i < info.parameters.size(); ++i) {
      std::memcpy(bytes.data() + info.parameters[i].offset, parameters[i],
                  info.parameters[i].bytes);
    }
    return bytes;
  }
  const void* buffer = nullptr;
  size_t size = 0;
  for (; extra && NumberOf(*extra) != cuda::kLaunchParamEnd; extra += 2) {
    if (NumberOf(extra[0]) == cuda::kLaunchParamBufferPointer) buffer = extra[1];
    if (NumberOf(extra[0]) == cuda::kLaunchParamBufferSize) {
      size = *static_cast<const size_t*>(extra[1]);
    }
  }
  if (size != bytes.size() || (!buffer && size > 0)) return {};
  if (size > 0) std::memcpy(bytes.data(), buffer, size);
  return bytes;
}

DriverResult RunKernel(FakeDevice& device, const ptx::Module& module, const std::string& name,
                       const std::vector<uint8_t>& parameters, const ptx::LaunchOptions& options) {
  const auto report = ptx::Launch(module, name, parameters, device.memory, options);
  if (report.ok()) return cuda::kSuccess;
  const bool address = report.status().message().find("out of bounds") != std::string::npos ||
                       report.status().message().find("past the end") != std::string::npos;
  return address ? cuda::kIllegalAddress : cuda::kLaunchFailed;
}

}  // namespace

FAKE_CUDA_EXPORT DriverResult cuModuleLoadDataEx(Module* module, const void* image, unsigned count,
                                                 JitOption* options, void** values) {
  return WithContext([&](FakeDriver& driver, FakeDevice& device) {
    if (!module || !image) return cuda::kInvalidValue;
    const std::span<char> log = LogBuffer(count, options, values);
    quern::Result<ptx::Module> parsed = ptx::ParseModule(static_cast<const char*>(image));
    if (!parsed.ok()) {
      WriteLog(log, "ptxas application ptx input; fatal   : " + parsed.status().message() + "\n");
      return cuda::kInvalidPtx;
    }
    const DriverResult checked = CheckModule(*parsed, driver.config, log);
    if (checked != cuda::kSuccess) return checked;
    const uintptr_t handle = driver.NewHandle();
    device.modules.emplace(handle, FakeModule{std::move(parsed).value()});
    *module = HandleOf<Module>(handle);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuModuleUnload(Module module) {
  return WithContext([&](FakeDriver&, FakeDevice& device) {
    const DriverResult flushed = device.FlushAll();
    if (flushed != cuda::kSuccess) return flushed;
    if (device.modules.erase(NumberOf(module)) == 0) return cuda::kInvalidHandle;
    std::erase_if(device.functions,
                  [&](const auto& each) { return each.second.module == NumberOf(module); });
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuModuleGetFunction(Function* function, Module module,
                                                  const char* name) {
  return WithContext([&](FakeDriver& driver, FakeDevice& device) {
    const auto found = device.modules.find(NumberOf(module));
    if (found == device.modules.end()) return cuda::kInvalidHandle;
    const ptx::KernelInfo* info = found->second.module.FindKernel(name);
    if (!info) return cuda::kNotFound;
    const uint32_t allowed =
        cuda::kDefaultSharedBytes - std::min(cuda::kDefaultSharedBytes, info->static_shared_bytes);
    const uintptr_t handle = driver.NewHandle();
    device.functions[handle] = {found->first, name, allowed};
    *function = HandleOf<Function>(handle);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuFuncGetAttribute(int* value, FunctionAttribute attribute,
                                                 Function function) {
  return WithContext([&](FakeDriver&, FakeDevice& device) {
    const auto found = device.functions.find(NumberOf(function));
    if (found == device.functions.end()) return cuda::kInvalidHandle;
    const ptx::KernelInfo& info = InfoOf(device, found->second);
    switch (attribute) {
      case cuda::kFunctionMaxThreadsPerBlock:
        *value = static_cast<int>(MostThreads(info));
        break;
      case cuda::kFunctionSharedSizeBytes:
        *value = static_cast<int>(info.static_shared_bytes);
        break;
      case cuda::kFunctionMaxDynamicSharedSizeBytes:
        *value = static_cast<int>(found->second.dynamic_shared_bytes);
        break;
      default:
        return cuda::kInvalidValue;
    }
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuFuncSetAttribute(Function function, FunctionAttribute attribute,
                                                 int value) {
  return WithContext([&](FakeDriver& driver, FakeDevice& device) {
    const auto found = device.functions.find(NumberOf(function));
    if (found == device.functions.end()) return cuda::kInvalidHandle;
    if (attribute != cuda::kFunctionMaxDynamicSharedSizeBytes || value < 0) {
      return cuda::kInvalidValue;
    }
    const uint32_t fixed = InfoOf(device, found->second).static_shared_bytes;
    if (static_cast<uint32_t>(value) + fixed > quern::BlockSharedBytes(driver.config.sm)) {
      return cuda::kInvalidValue;
    }
    found->second.dynamic_shared_bytes = static_cast<uint32_t>(value);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuLaunchKernel(Function handle, unsigned grid_x, unsigned grid_y,
                                             unsigned grid_z, unsigned block_x, unsigned block_y,
                                             unsigned block_z, unsigned shared_bytes,
                                             Stream stream_handle, void** parameters,
                                             void** extra) {
  return OnStream(stream_handle, [&](FakeDriver&, FakeDevice& device, FakeStream& stream) {
    const auto found = device.functions.find(NumberOf(handle));
    if (found == device.functions.end()) return cuda::kInvalidHandle;
    const FakeFunction& function = found->second;
    const ptx::KernelInfo& info = InfoOf(device, function);
    const uint64_t threads = uint64_t{block_x} * block_y * block_z;
    if (threads == 0 || threads > MostThreads(info) || grid_x == 0 || grid_y == 0 || grid_z == 0 ||
        grid_x > quern::kMaxGridBlocks[0] || grid_y > quern::kMaxGridBlocks[1] ||
        grid_z > quern::kMaxGridBlocks[2] || shared_bytes > function.dynamic_shared_bytes ||
        (parameters && extra)) {
      return cuda::kInvalidValue;
    }
    std::vector<uint8_t> bytes = ReadParameters(info, parameters, extra);
    if (bytes.size() != info.parameter_bytes) return cuda::kInvalidValue;
    ptx::LaunchOptions options;
    options.grid = {grid_x, grid_y, grid_z};
    options.block = {block_x, block_y, block_z};
    options.shared_bytes = shared_bytes;
    for (size_t i = 0; i < 3; ++i) options.cluster[i] = std::max(1u, info.cluster[i]);
    auto run = [&device, module = device.modules.at(function.module).module, name = function.name,
                bytes = std::move(bytes),
                options] { return RunKernel(device, module, name, bytes, options); };
    (stream.capturing ? stream.captured : stream.pending).push_back(std::move(run));
    return cuda::kSuccess;
  });
}

#include "tests/support/fake_cuda/driver_state.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace quern::fake_cuda {
namespace {

uint64_t Number(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

Config Config::FromEnvironment() {
  Config config;
  config.driver = static_cast<int>(Number("QUERN_FAKE_CUDA_DRIVER", 12080));
  config.sm = static_cast<uint32_t>(Number("QUERN_FAKE_CUDA_SM", config.sm));
  config.memory = Number("QUERN_FAKE_CUDA_MEMORY", config.memory);
  config.devices = static_cast<int>(Number("QUERN_FAKE_CUDA_DEVICES", 1));
  return config;
}

DriverResult FakeDevice::Flush(FakeStream& stream) {
  const std::vector<Operation> work = std::exchange(stream.pending, {});
  for (const Operation& operation : work) {
    if (failed != cuda::kSuccess) break;
    failed = operation();
  }
  return failed;
}

DriverResult FakeDevice::FlushAll() {
  for (auto& [handle, stream] : streams) Flush(stream);
  return failed;
}

bool FakeDevice::capturing() const {
  return std::any_of(streams.begin(), streams.end(),
                     [](const auto& each) { return each.second.capturing; });
}

FakeDriver& FakeDriver::Get() {
  static FakeDriver driver;
  return driver;
}

std::vector<uintptr_t>& FakeDriver::ContextStack() {
  thread_local std::vector<uintptr_t> stack;
  return stack;
}

FakeDevice* FakeDriver::Current() {
  if (ContextStack().empty()) return nullptr;
  for (const auto& device : devices) {
    if (device->retained > 0 && device->context == ContextStack().back()) return device.get();
  }
  return nullptr;  // its context was released
}

}  // namespace quern::fake_cuda

// Streams, graphs, events.
#include <chrono>
#include <utility>

#include "tests/support/fake_cuda/driver_state.h"

using namespace quern::fake_cuda;
using quern::cuda::DriverResult;
using quern::cuda::Event;
using quern::cuda::Graph;
using quern::cuda::GraphExec;
using quern::cuda::Stream;
namespace cuda = quern::cuda;

namespace {

uint64_t Now() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

}  // namespace

FAKE_CUDA_EXPORT DriverResult cuStreamCreate(Stream* stream, unsigned flags) {
  return WithContext([&](FakeDriver& driver, FakeDevice& device) {
    if (!stream || flags > cuda::kStreamNonBlocking) return cuda::kInvalidValue;
    const uintptr_t handle = driver.NewHandle();
    device.streams[handle];
    *stream = HandleOf<Stream>(handle);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuStreamDestroy_v2(Stream handle) {
  return OnStream(handle, [&](FakeDriver&, FakeDevice& device, FakeStream& stream) {
    const DriverResult flushed = device.Flush(stream);
    device.streams.erase(NumberOf(handle));
    return flushed;
  });
}

FAKE_CUDA_EXPORT DriverResult cuStreamSynchronize(Stream handle) {
  return OnStream(handle, [&](FakeDriver&, FakeDevice& device, FakeStream& stream) {
    if (!stream.capturing) return device.Flush(stream);
    stream.capture_broken = true;
    return cuda::kStreamCaptureUnsupported;
  });
}

FAKE_CUDA_EXPORT DriverResult cuStreamBeginCapture_v2(Stream handle, int mode) {
  return OnStream(handle, [&](FakeDriver&, FakeDevice&, FakeStream& stream) {
    if (mode < 0 || mode > 2 || stream.capturing) return cuda::kInvalidValue;
    stream.capturing = true;
    stream.capture_broken = false;
    stream.captured.clear();
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuStreamEndCapture(Stream handle, Graph* graph) {
  return OnStream(handle, [&](FakeDriver& driver, FakeDevice& device, FakeStream& stream) {
    if (!stream.capturing) return cuda::kInvalidValue;
    stream.capturing = false;
    *graph = nullptr;
    if (stream.capture_broken) return cuda::kStreamCaptureInvalidated;
    const uintptr_t number = driver.NewHandle();
    device.graphs[number] = std::exchange(stream.captured, {});
    *graph = HandleOf<Graph>(number);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuGraphInstantiateWithFlags(GraphExec* executable, Graph graph,
                                                          unsigned long long flags) {
  return WithContext([&](FakeDriver& driver, FakeDevice& device) {
    const auto found = device.graphs.find(NumberOf(graph));
    if (found == device.graphs.end()) return cuda::kInvalidHandle;
    if (flags != 0) return cuda::kInvalidValue;
    const uintptr_t number = driver.NewHandle();
    device.executables[number] = found->second;
    *executable = HandleOf<GraphExec>(number);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuGraphLaunch(GraphExec executable, Stream handle) {
  return OnStream(handle, [&](FakeDriver&, FakeDevice& device, FakeStream& stream) {
    const auto found = device.executables.find(NumberOf(executable));
    if (found == device.executables.end()) return cuda::kInvalidHandle;
    if (stream.capturing) return cuda::kStreamCaptureUnsupported;
    stream.pending.insert(stream.pending.end(), found->second.begin(), found->second.end());
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuGraphExecDestroy(GraphExec executable) {
  return WithContext([&](FakeDriver&, FakeDevice& device) {
    return device.executables.erase(NumberOf(executable)) ? cuda::kSuccess : cuda::kInvalidHandle;
  });
}

FAKE_CUDA_EXPORT DriverResult cuGraphDestroy(Graph graph) {
  return WithContext([&](FakeDriver&, FakeDevice& device) {
    return device.graphs.erase(NumberOf(graph)) ? cuda::kSuccess : cuda::kInvalidHandle;
  });
}

FAKE_CUDA_EXPORT DriverResult cuEventCreate(Event* event, unsigned flags) {
  return WithContext([&](FakeDriver& driver, FakeDevice& device) {
    if (!event || flags > 3) return cuda::kInvalidValue;
    const uintptr_t number = driver.NewHandle();
    device.events[number] = std::make_shared<FakeEvent>();
    *event = HandleOf<Event>(number);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuEventRecord(Event event, Stream handle) {
  return OnStream(handle, [&](FakeDriver&, FakeDevice& device, FakeStream& stream) {
    const auto found = device.events.find(NumberOf(event));
    if (found == device.events.end()) return cuda::kInvalidHandle;
    if (stream.capturing) return cuda::kStreamCaptureUnsupported;
    found->second->recorded = true;
    found->second->done = false;
    stream.pending.push_back([state = found->second] {
      state->done = true;
      state->nanoseconds = Now();
      return cuda::kSuccess;
    });
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuEventElapsedTime(float* milliseconds, Event start, Event end) {
  return WithContext([&](FakeDriver&, FakeDevice& device) {
    const auto a = device.events.find(NumberOf(start)), b = device.events.find(NumberOf(end));
    if (a == device.events.end() || b == device.events.end() || !a->second->recorded ||
        !b->second->recorded) {
      return cuda::kInvalidHandle;
    }
    if (!a->second->done || !b->second->done) return cuda::kNotReady;
    const double nanoseconds =
        static_cast<double>(b->second->nanoseconds) - static_cast<double>(a->second->nanoseconds);
    *milliseconds = static_cast<float>(nanoseconds * 1e-6);
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuEventDestroy_v2(Event event) {
  return WithContext([&](FakeDriver&, FakeDevice& device) {
    return device.events.erase(NumberOf(event)) ? cuda::kSuccess : cuda::kInvalidHandle;
  });
}

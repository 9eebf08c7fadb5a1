// Memory, and the tensor maps that describe it.
#include <cstring>

#include "runtime/device/ptx_emulator/tensor_map.h"
#include "tests/support/fake_cuda/driver_state.h"

using namespace quern::fake_cuda;
using quern::cuda::DevicePointer;
using quern::cuda::DriverResult;
using quern::cuda::Stream;
namespace cuda = quern::cuda;
namespace ptx = quern::ptx;

namespace {

/// Puts work on a stream, or into the graph that it captures.
DriverResult Enqueue(FakeStream& stream, Operation operation) {
  (stream.capturing ? stream.captured : stream.pending).push_back(std::move(operation));
  return cuda::kSuccess;
}

/// A copy from or to memory that is not page-locked: it waits for the stream and is done at once.
/// Such a copy cannot be captured.
DriverResult CopyNow(FakeDevice& device, FakeStream& stream, const Operation& copy) {
  if (stream.capturing) {
    stream.capture_broken = true;
    return cuda::kStreamCaptureUnsupported;
  }
  const DriverResult flushed = device.Flush(stream);
  return flushed == cuda::kSuccess ? copy() : flushed;
}

DriverResult ValueError(const quern::Status& status) {
  return status.ok() ? cuda::kSuccess : cuda::kInvalidValue;
}

}  // namespace

FAKE_CUDA_EXPORT DriverResult cuMemGetInfo_v2(size_t* free, size_t* total) {
  return WithContext([&](FakeDriver&, FakeDevice& device) {
    *total = device.memory.capacity();
    *free = *total - device.memory.used();
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuMemAlloc_v2(DevicePointer* address, size_t bytes) {
  return WithContext([&](FakeDriver&, FakeDevice& device) {
    if (bytes == 0) return cuda::kInvalidValue;
    if (device.capturing()) return cuda::kStreamCaptureUnsupported;
    const quern::Result<uint64_t> made = device.memory.Allocate(bytes);
    if (!made.ok()) return cuda::kOutOfMemory;
    *address = *made;
    return cuda::kSuccess;
  });
}

FAKE_CUDA_EXPORT DriverResult cuMemFree_v2(DevicePointer address) {
  return WithContext([&](FakeDriver&, FakeDevice& device) {
    if (device.capturing()) return cuda::kStreamCaptureUnsupported;
    const DriverResult flushed = device.FlushAll();
    return flushed == cuda::kSuccess ? ValueError(device.memory.Free(address)) : flushed;
  });
}

FAKE_CUDA_EXPORT DriverResult cuMemcpyHtoDAsync_v2(DevicePointer destination, const void* source,
                                                   size_t bytes, Stream handle) {
  return OnStream(handle, [&](FakeDriver&, FakeDevice& device, FakeStream& stream) {
    return CopyNow(device, stream, [&] {
      return ValueError(device.memory.CopyToDevice(destination, source, bytes));
    });
  });
}

FAKE_CUDA_EXPORT DriverResult cuMemcpyDtoHAsync_v2(void* destination, DevicePointer source,
                                                   size_t bytes, Stream handle) {
  return OnStream(handle, [&](FakeDriver&, FakeDevice& device, FakeStream& stream) {
    return CopyNow(device, stream, [&] {
      return ValueError(device.memory.CopyToHost(destination, source, bytes));
    });
  });
}

FAKE_CUDA_EXPORT DriverResult cuMemcpyDtoDAsync_v2(DevicePointer destination, DevicePointer source,
                                                   size_t bytes, Stream handle) {
  return OnStream(handle, [&](FakeDriver&, FakeDevice& device, FakeStream& stream) {
    if (!device.memory.Translate(source, bytes) || !device.memory.Translate(destination, bytes)) {
      return cuda::kInvalidValue;
    }
    return Enqueue(stream, [&device, destination, source, bytes] {
      return ValueError(device.memory.Copy(destination, source, bytes));
    });
  });
}

FAKE_CUDA_EXPORT DriverResult cuMemsetD8Async(DevicePointer destination, unsigned char value,
                                              size_t count, Stream handle) {
  return OnStream(handle, [&](FakeDriver&, FakeDevice& device, FakeStream& stream) {
    if (!device.memory.Translate(destination, count)) return cuda::kInvalidValue;
    return Enqueue(stream, [&device, destination, value, count] {
      return ValueError(device.memory.Fill(destination, value, 1, count));
    });
  });
}

/// The arguments are those of the driver's function; `map` is a CUtensorMap of 128 bytes.
FAKE_CUDA_EXPORT DriverResult cuTensorMapEncodeTiled(void* map, int element, unsigned rank,
                                                     void* address, const uint64_t* dims,
                                                     const uint64_t* strides, const uint32_t* box,
                                                     const uint32_t* element_strides,
                                                     int interleave, int swizzle, int l2_promotion,
                                                     int fill) {
  return Initialized([&](FakeDriver&) {
    const bool sane = map && reinterpret_cast<uintptr_t>(map) % ptx::kTensorMapAlignment == 0 &&
                      element >= 0 && element <= static_cast<int>(ptx::TensorElement::kBf16) &&
                      rank >= 1 && rank <= ptx::kMaxTensorRank && interleave == 0 && swizzle >= 0 &&
                      swizzle <= 3 && l2_promotion >= 0 && l2_promotion <= 3 && fill >= 0 &&
                      fill <= 1;
    if (!sane) return cuda::kInvalidValue;
    ptx::TensorMap encoded;
    encoded.element = static_cast<ptx::TensorElement>(element);
    encoded.rank = rank;
    encoded.address = reinterpret_cast<uintptr_t>(address);
    encoded.swizzle = static_cast<ptx::TensorSwizzle>(swizzle);
    encoded.fill_nan = fill == 1;
    for (unsigned i = 0; i < rank; ++i) {
      if (element_strides[i] != 1) return cuda::kInvalidValue;  // the emulator copies dense boxes
      encoded.dims[i] = dims[i];
      encoded.box[i] = box[i];
      if (i > 0) encoded.strides[i] = strides[i - 1];
    }
    const auto bytes = ptx::EncodeTensorMap(encoded);
    if (!bytes.ok()) return cuda::kInvalidValue;
    std::memcpy(map, bytes.value().data(), bytes.value().size());
    return cuda::kSuccess;
  });
}

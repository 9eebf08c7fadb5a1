// The fake driver is as strict as it says.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/device/cuda/cuda_driver.h"
#include "runtime/device/ptx_emulator/tensor_map.h"

namespace quern::cuda {
namespace {

constexpr char kPtx[] = R"(
.version 8.0
.target sm_80
.address_size 64
.visible .entry add_one(.param .u64 data, .param .u32 count)
{
  .reg .b64 %d<4>;
  .reg .b32 %r<6>;
  .reg .pred %q;
  ld.param.u64 %d0, [data];
  ld.param.u32 %r0, [count];
  mov.u32 %r1, %ctaid.x;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %tid.x;
  mad.lo.u32 %r1, %r1, %r2, %r3;
  setp.ge.u32 %q, %r1, %r0;
  @%q bra DONE;
  mul.wide.u32 %d1, %r1, 4;
  add.u64 %d1, %d0, %d1;
  ld.global.u32 %r4, [%d1];
  add.u32 %r4, %r4, 1;
  st.global.u32 [%d1], %r4;
DONE:
  ret;
}
.extern .shared .align 16 .b8 dynamic[];
.visible .entry big()
{
  .reg .b32 %r<2>;
  mov.u32 %r0, dynamic;
  st.shared.u32 [%r0], %r0;
  ret;
}
)";

class FakeCuda : public ::testing::Test {
 protected:
  void Set(const char* variable, const std::string& value) {
    setenv(variable, value.c_str(), 1);
    set_.push_back(variable);
  }
  void Open() {
    auto driver = Driver::Open(QUERN_FAKE_CUDA);
    ASSERT_TRUE(driver.ok()) << driver.status().message();
    d_ = std::move(driver).value();
  }
  /// Device 0's context, current, and a stream.
  void Start() {
    Open();
    ASSERT_EQ(d_->DevicePrimaryCtxRetain(&context_, 0), kSuccess);
    ASSERT_EQ(d_->CtxPushCurrent(context_), kSuccess);
    ASSERT_EQ(d_->StreamCreate(&stream_, kStreamNonBlocking), kSuccess);
  }
  DriverResult Load(const char* text, Module* module) {
    JitOption options[] = {kJitErrorLogBuffer, kJitErrorLogBufferSizeBytes};
    log_.assign(256, '\0');
    void* values[] = {log_.data(), reinterpret_cast<void*>(log_.size())};
    return d_->ModuleLoadDataEx(module, text, 2, options, values);
  }
  Function Get(const char* name) {
    if (!module_) EXPECT_EQ(Load(kPtx, &module_), kSuccess) << log_.data();
    Function function = nullptr;
    EXPECT_EQ(d_->ModuleGetFunction(&function, module_, name), kSuccess);
    return function;
  }
  DriverResult AddOne(Function function, DevicePointer data, uint32_t count,
                      unsigned threads = 32) {
    void* parameters[] = {&data, &count};
    return d_->LaunchKernel(function, (count + threads - 1) / threads, 1, 1, threads, 1, 1, 0,
                            stream_, parameters, nullptr);
  }
  DevicePointer Zeros(uint32_t count) {
    DevicePointer data = 0;
    EXPECT_EQ(d_->MemAlloc(&data, count * 4), kSuccess);
    EXPECT_EQ(d_->MemsetD8Async(data, 0, count * 4, stream_), kSuccess);
    return data;
  }
  uint32_t First(DevicePointer data) {
    uint32_t value = 0;
    EXPECT_EQ(d_->MemcpyDtoHAsync(&value, data, 4, stream_), kSuccess);
    return value;
  }
  void TearDown() override {
    Context old = nullptr;
    while (d_ && d_->CtxPopCurrent(&old) == kSuccess) {
    }
    if (context_) d_->DevicePrimaryCtxRelease(0);
    for (const char* variable : set_) unsetenv(variable);
  }

  std::shared_ptr<const Driver> d_;
  Context context_ = nullptr;
  Stream stream_ = nullptr;
  Module module_ = nullptr;
  std::vector<char> log_;
  std::vector<const char*> set_;
};

TEST_F(FakeCuda, RunsAKernelGivenParametersEitherWay) {
  Start();
  const Function add_one = Get("add_one");
  DevicePointer data = Zeros(100);
  EXPECT_EQ(AddOne(add_one, data, 100), kSuccess);
  struct {
    DevicePointer data;
    uint32_t count;
  } packed = {data, 100};
  size_t size = 12;  // without the padding behind
  void* extra[] = {reinterpret_cast<void*>(kLaunchParamBufferPointer), &packed,
                   reinterpret_cast<void*>(kLaunchParamBufferSize), &size,
                   reinterpret_cast<void*>(kLaunchParamEnd)};
  EXPECT_EQ(d_->LaunchKernel(add_one, 4, 1, 1, 32, 1, 1, 0, stream_, nullptr, extra), kSuccess);
  std::vector<uint32_t> values(100);
  EXPECT_EQ(d_->MemcpyDtoHAsync(values.data(), data, 400, stream_), kSuccess);
  EXPECT_EQ(values, std::vector<uint32_t>(100, 2));

  size = 8;  // a parameter is missing
  EXPECT_EQ(d_->LaunchKernel(add_one, 4, 1, 1, 32, 1, 1, 0, stream_, nullptr, extra),
            kInvalidValue);
}

TEST_F(FakeCuda, ConfigurationComesFromTheEnvironment) {
  Set("QUERN_FAKE_CUDA_DRIVER", "12020");
  Set("QUERN_FAKE_CUDA_SM", "89");
  Set("QUERN_FAKE_CUDA_MEMORY", "1048576");
  Set("QUERN_FAKE_CUDA_DEVICES", "3");
  Open();
  EXPECT_EQ(d_->version(), 12020u);
  EXPECT_EQ(d_->devices(), 3);
  const auto info = d_->Describe(2);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info.value().limits.sm, 89u);
  EXPECT_EQ(info.value().limits.memory_bytes, 1048576u);
  EXPECT_EQ(info.value().limits.ptx_version, 82u);
  EXPECT_FALSE(d_->Describe(3).ok());
}

TEST_F(FakeCuda, NoDeviceIsAnErrorOfCuInit) {
  Set("QUERN_FAKE_CUDA_DEVICES", "0");
  const auto driver = Driver::Open(QUERN_FAKE_CUDA);
  ASSERT_FALSE(driver.ok());
  EXPECT_EQ(driver.status().code(), StatusCode::kIncompatible);
  EXPECT_NE(driver.status().message().find("no device"), std::string::npos);
}

TEST_F(FakeCuda, NothingWorksBeforeCuInit) {
  // A copy of the library under another name has state of its own.
  const std::string copy = ::testing::TempDir() + "quern_fake_cuda_fresh.so";
  ASSERT_EQ(std::system(("cp '" QUERN_FAKE_CUDA "' '" + copy + "'").c_str()), 0);
  void* library = dlopen(copy.c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr);
  const auto count =
      reinterpret_cast<Driver::DeviceGetCountFunction>(dlsym(library, "cuDeviceGetCount"));
  const auto alloc = reinterpret_cast<Driver::MemAllocFunction>(dlsym(library, "cuMemAlloc_v2"));
  int devices = 0;
  DevicePointer address = 0;
  EXPECT_EQ(count(&devices), kNotInitialized);
  EXPECT_EQ(alloc(&address, 64), kNotInitialized);
  std::remove(copy.c_str());
}

TEST_F(FakeCuda, NeedsACurrentContext) {
  Open();
  DevicePointer address = 0;
  EXPECT_EQ(d_->MemAlloc(&address, 64), kInvalidContext);
  EXPECT_EQ(d_->CtxPushCurrent(reinterpret_cast<Context>(uintptr_t{77})), kInvalidContext);
  EXPECT_EQ(d_->DevicePrimaryCtxRelease(0), kInvalidContext);
  Context context = nullptr;
  EXPECT_EQ(d_->CtxPopCurrent(&context), kInvalidContext);
  EXPECT_EQ(d_->DevicePrimaryCtxRetain(&context, 5), kInvalidDevice);
}

TEST_F(FakeCuda, AReleasedContextIsNoLongerCurrent) {
  Start();
  EXPECT_EQ(d_->DevicePrimaryCtxRelease(0), kSuccess);
  context_ = nullptr;
  DevicePointer address = 0;
  EXPECT_EQ(d_->MemAlloc(&address, 64), kInvalidContext);
  EXPECT_EQ(d_->StreamSynchronize(stream_), kInvalidContext);
}

TEST_F(FakeCuda, RefusesWrongHandles) {
  Start();
  const Function add_one = Get("add_one");
  const DevicePointer data = Zeros(4);
  const auto wrong = [](auto handle) {
    return reinterpret_cast<decltype(handle)>(reinterpret_cast<uintptr_t>(handle) + 1);
  };
  Function function = nullptr;
  GraphExec executable = nullptr;
  int value = 0;
  EXPECT_EQ(d_->ModuleGetFunction(&function, wrong(module_), "add_one"), kInvalidHandle);
  EXPECT_EQ(d_->ModuleGetFunction(&function, module_, "none"), kNotFound);
  EXPECT_EQ(d_->ModuleUnload(wrong(module_)), kInvalidHandle);
  EXPECT_EQ(d_->FuncGetAttribute(&value, kFunctionSharedSizeBytes, wrong(add_one)), kInvalidHandle);
  EXPECT_EQ(AddOne(wrong(add_one), data, 4), kInvalidHandle);
  // A handle of one kind is none of another.
  EXPECT_EQ(AddOne(reinterpret_cast<Function>(module_), data, 4), kInvalidHandle);
  EXPECT_EQ(d_->StreamSynchronize(wrong(stream_)), kInvalidHandle);
  EXPECT_EQ(d_->GraphInstantiate(&executable, nullptr, 0), kInvalidHandle);
  EXPECT_EQ(d_->GraphLaunch(nullptr, stream_), kInvalidHandle);
  EXPECT_EQ(d_->EventDestroy(nullptr), kInvalidHandle);
  EXPECT_EQ(d_->MemFree(data + 4), kInvalidValue);
  EXPECT_EQ(d_->MemFree(data), kSuccess);
  EXPECT_EQ(d_->MemFree(data), kInvalidValue);
}

TEST_F(FakeCuda, RefusesFunctionsOfUnloadedModules) {
  Start();
  const Function add_one = Get("add_one");
  const DevicePointer data = Zeros(4);
  EXPECT_EQ(d_->ModuleUnload(module_), kSuccess);
  EXPECT_EQ(AddOne(add_one, data, 4), kInvalidHandle);
  EXPECT_EQ(d_->ModuleUnload(module_), kInvalidHandle);
}

TEST_F(FakeCuda, RefusesLaunchesThatNoDeviceCouldRun) {
  Start();
  const Function add_one = Get("add_one"), big = Get("big");
  const DevicePointer data = Zeros(4);
  EXPECT_EQ(AddOne(add_one, data, 4, 1025), kInvalidValue);
  const auto launch = [&](unsigned x, unsigned y, unsigned shared) {
    return d_->LaunchKernel(big, x, y, 1, 1, 1, 1, shared, stream_, nullptr, nullptr);
  };
  EXPECT_EQ(launch(0, 1, 16), kInvalidValue);
  EXPECT_EQ(launch(1, 65536, 16), kInvalidValue);
  // More than 48 KiB must be asked for, and 227 KiB is the most of compute capability 9.0.
  EXPECT_EQ(launch(1, 1, 48 * 1024 + 4), kInvalidValue);
  EXPECT_EQ(d_->FuncSetAttribute(big, kFunctionMaxDynamicSharedSizeBytes, 228 * 1024),
            kInvalidValue);
  EXPECT_EQ(d_->FuncSetAttribute(big, kFunctionMaxDynamicSharedSizeBytes, 100 * 1024), kSuccess);
  EXPECT_EQ(launch(1, 1, 100 * 1024), kSuccess);
  EXPECT_EQ(d_->StreamSynchronize(stream_), kSuccess);
}

TEST_F(FakeCuda, ModulesAreCheckedAgainstDriverAndDevice) {
  Set("QUERN_FAKE_CUDA_DRIVER", "12000");
  Set("QUERN_FAKE_CUDA_SM", "80");
  Start();
  Module module = nullptr;
  EXPECT_EQ(Load(".version 8.0\n.target sm_80\n.address_size 64\n", &module), kSuccess);
  EXPECT_EQ(Load(".version 8.3\n.target sm_80\n.address_size 64\n", &module),
            kUnsupportedPtxVersion);
  EXPECT_EQ(Load(".version 8.0\n.target sm_89\n.address_size 64\n", &module), kNoBinaryForGpu);
  EXPECT_EQ(
      Load(".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() { mav; }", &module),
      kInvalidPtx);
  EXPECT_NE(std::string(log_.data()).find("line"), std::string::npos) << log_.data();
}

TEST_F(FakeCuda, RefusesMoreMemoryThanThereIs) {
  Set("QUERN_FAKE_CUDA_MEMORY", "1048576");
  Start();
  DevicePointer first = 0, second = 0;
  EXPECT_EQ(d_->MemAlloc(&first, 1000000), kSuccess);
  EXPECT_EQ(d_->MemAlloc(&second, 100000), kOutOfMemory);
  EXPECT_EQ(d_->MemAlloc(&second, 0), kInvalidValue);
  size_t free = 0, total = 0;
  EXPECT_EQ(d_->MemGetInfo(&free, &total), kSuccess);
  EXPECT_EQ(total, 1048576u);
  EXPECT_EQ(free, 48576u);
}

TEST_F(FakeCuda, WorkOfAStreamHappensLate) {
  Start();
  const DevicePointer data = Zeros(1);
  EXPECT_EQ(d_->StreamSynchronize(stream_), kSuccess);
  EXPECT_EQ(AddOne(Get("add_one"), data, 1), kSuccess);
  Stream other = nullptr;
  ASSERT_EQ(d_->StreamCreate(&other, kStreamNonBlocking), kSuccess);
  uint32_t value = 9;
  EXPECT_EQ(d_->MemcpyDtoHAsync(&value, data, 4, other), kSuccess);
  EXPECT_EQ(value, 0u) << "another stream does not wait for this one";
  EXPECT_EQ(First(data), 1u);
}

TEST_F(FakeCuda, AFailedKernelBreaksTheContext) {
  Start();
  const Function add_one = Get("add_one");
  const DevicePointer data = Zeros(4);
  EXPECT_EQ(AddOne(add_one, data, 1000), kSuccess) << "the launch itself";
  const DriverResult failed = d_->StreamSynchronize(stream_);
  EXPECT_TRUE(failed == kIllegalAddress || failed == kLaunchFailed) << failed;
  DevicePointer address = 0;
  EXPECT_EQ(d_->MemAlloc(&address, 64), failed);
  EXPECT_EQ(AddOne(add_one, data, 4), failed);
}

TEST_F(FakeCuda, GraphsRecordAndRepeat) {
  Start();
  const Function add_one = Get("add_one");
  const DevicePointer data = Zeros(4);
  Graph graph = nullptr;
  GraphExec executable = nullptr;
  EXPECT_EQ(d_->StreamEndCapture(stream_, &graph), kInvalidValue);
  ASSERT_EQ(d_->StreamBeginCapture(stream_, kCaptureModeThreadLocal), kSuccess);
  EXPECT_EQ(d_->StreamBeginCapture(stream_, kCaptureModeThreadLocal), kInvalidValue);
  EXPECT_EQ(AddOne(add_one, data, 4), kSuccess);
  EXPECT_EQ(AddOne(add_one, data, 4), kSuccess);
  ASSERT_EQ(d_->StreamEndCapture(stream_, &graph), kSuccess);
  EXPECT_EQ(First(data), 0u) << "what is captured does not run";
  ASSERT_EQ(d_->GraphInstantiate(&executable, graph, 0), kSuccess);
  EXPECT_EQ(d_->GraphDestroy(graph), kSuccess);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(d_->GraphLaunch(executable, stream_), kSuccess);
  EXPECT_EQ(First(data), 6u);
  EXPECT_EQ(d_->GraphExecDestroy(executable), kSuccess);
  EXPECT_EQ(d_->GraphLaunch(executable, stream_), kInvalidHandle);
}

TEST_F(FakeCuda, WhatACaptureForbidsBreaksIt) {
  Start();
  const DevicePointer data = Zeros(4);
  ASSERT_EQ(d_->StreamBeginCapture(stream_, kCaptureModeThreadLocal), kSuccess);
  uint32_t value = 0;
  DevicePointer address = 0;
  EXPECT_EQ(d_->MemAlloc(&address, 64), kStreamCaptureUnsupported);
  EXPECT_EQ(d_->MemcpyDtoHAsync(&value, data, 4, stream_), kStreamCaptureUnsupported);
  Graph graph = nullptr;
  EXPECT_EQ(d_->StreamEndCapture(stream_, &graph), kStreamCaptureInvalidated);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(d_->StreamSynchronize(stream_), kSuccess);
}

TEST_F(FakeCuda, EventsAreTimesOnTheStream) {
  Start();
  Event start = nullptr, end = nullptr;
  ASSERT_EQ(d_->EventCreate(&start, 0), kSuccess);
  ASSERT_EQ(d_->EventCreate(&end, 0), kSuccess);
  float milliseconds = -1;
  EXPECT_EQ(d_->EventElapsedTime(&milliseconds, start, end), kInvalidHandle);
  EXPECT_EQ(d_->EventRecord(start, stream_), kSuccess);
  EXPECT_EQ(AddOne(Get("add_one"), Zeros(4), 4), kSuccess);
  EXPECT_EQ(d_->EventRecord(end, stream_), kSuccess);
  EXPECT_EQ(d_->EventElapsedTime(&milliseconds, start, end), kNotReady);
  EXPECT_EQ(d_->StreamSynchronize(stream_), kSuccess);
  EXPECT_EQ(d_->EventElapsedTime(&milliseconds, start, end), kSuccess);
  EXPECT_GE(milliseconds, 0.0f);
}

TEST_F(FakeCuda, EncodesTensorMapsThatTheEmulatorReads) {
  Open();
  using Encode = DriverResult (*)(void*, int, unsigned, void*, const uint64_t*, const uint64_t*,
                                  const uint32_t*, const uint32_t*, int, int, int, int);
  const auto encode =
      reinterpret_cast<Encode>(dlsym(dlopen(QUERN_FAKE_CUDA, RTLD_NOW), "cuTensorMapEncodeTiled"));
  ASSERT_NE(encode, nullptr);
  alignas(64) uint8_t map[128] = {};
  void* address = reinterpret_cast<void*>(uintptr_t{0x10000});
  const uint64_t dims[] = {128, 64}, strides[] = {256};
  const uint32_t box[] = {64, 64}, steps[] = {1, 1}, huge[] = {512, 64};
  EXPECT_EQ(encode(map, 6, 2, address, dims, strides, box, steps, 0, 3, 2, 0), kSuccess);
  const auto decoded = ptx::DecodeTensorMap(map);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded.value().rank, 2u);
  EXPECT_EQ(decoded.value().dims[1], 64u);
  EXPECT_EQ(decoded.value().strides[1], 256u);
  EXPECT_EQ(decoded.value().swizzle, ptx::TensorSwizzle::k128);
  EXPECT_EQ(encode(map + 4, 6, 2, address, dims, strides, box, steps, 0, 3, 2, 0), kInvalidValue);
  EXPECT_EQ(encode(map, 6, 2, address, dims, strides, huge, steps, 0, 0, 2, 0), kInvalidValue);
  EXPECT_EQ(encode(map, 6, 6, address, dims, strides, box, steps, 0, 3, 2, 0), kInvalidValue);
}

}  // namespace
}  // namespace quern::cuda

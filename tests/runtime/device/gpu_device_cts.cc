// What every GpuDevice must do: the emulator, CUDA over the fake driver, and CUDA over a real one
// where there is one.
#include <gtest/gtest.h>

#include <numeric>

#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/gpu_target.h"
#include "runtime/device/open_gpu.h"
#include "runtime/device/ptx_emulator_device.h"
#include "tests/runtime/support/fake_ptx.h"

namespace quern {
namespace {

using testing::PtxEntry;
using testing::PtxHeader;

Result<std::unique_ptr<GpuDevice>> OpenEmulator() { return OpenPtxEmulator({}); }
Result<std::unique_ptr<GpuDevice>> OpenFake() {
  QUERN_ASSIGN_OR_RETURN(auto driver, cuda::Driver::Open(QUERN_FAKE_CUDA));
  return cuda::OpenDevice(std::move(driver), 0);
}
Result<std::unique_ptr<GpuDevice>> OpenReal() { return OpenGpu("cuda:0"); }

struct Kind {
  const char* name;
  Result<std::unique_ptr<GpuDevice>> (*open)();
};

/// data[i] = data[i] * factor + i for i < count; blocks of 32
constexpr char kScaleBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %tid.x;
  mad.lo.u32 %r0, %r0, 32, %r1;
  cvt.u64.u32 %d0, %r0;
  setp.ge.u64 %q0, %d0, %p2;
  @%q0 bra DONE;
  shl.b64 %d1, %d0, 2;
  add.u64 %d1, %p0, %d1;
  ld.global.u32 %r2, [%d1];
  cvt.u32.u64 %r3, %p1;
  mad.lo.u32 %r2, %r2, %r3, %r0;
  st.global.u32 [%d1], %r2;
DONE:
  ret;
)";

/// out[block] = sum of data[block * 64 ...], through shared memory; blocks of 64
constexpr char kSumBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %tid.x;
  mad.lo.u32 %r2, %r0, 64, %r1;
  mul.wide.u32 %d0, %r2, 4;
  add.u64 %d0, %p0, %d0;
  ld.global.u32 %r3, [%d0];
  mov.u32 %r4, shared;
  shl.b32 %r5, %r1, 2;
  add.u32 %r5, %r4, %r5;
  st.shared.u32 [%r5], %r3;
  bar.sync 0;
  setp.ne.u32 %q0, %r1, 0;
  @%q0 bra DONE;
  mov.u32 %r6, 0;
  mov.u32 %r7, 0;
LOOP:
  ld.shared.u32 %r8, [%r4];
  add.u32 %r6, %r6, %r8;
  add.u32 %r4, %r4, 4;
  add.u32 %r7, %r7, 1;
  setp.lt.u32 %q1, %r7, 64;
  @%q1 bra LOOP;
  mul.wide.u32 %d1, %r0, 4;
  add.u64 %d1, %p1, %d1;
  st.global.u32 [%d1], %r6;
DONE:
  ret;
)";

/// out[x + 3 * (y + 5 * z)] = number of the block
constexpr char kGridBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %ctaid.y;
  mov.u32 %r2, %ctaid.z;
  mad.lo.u32 %r1, %r2, 5, %r1;
  mad.lo.u32 %r0, %r1, 3, %r0;
  mul.wide.u32 %d0, %r0, 4;
  add.u64 %d0, %p0, %d0;
  st.global.u32 [%d0], %r0;
  ret;
)";

std::string Module() {
  return PtxHeader("sm_80", 80) + ".extern .shared .align 16 .b8 shared[];\n" +
         PtxEntry("scale", 3, kScaleBody) + PtxEntry("sum", 2, kSumBody) +
         PtxEntry("grid", 1, kGridBody);
}

class GpuDeviceCts : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    auto opened = GetParam().open();
    if (!opened.ok() && std::string_view(GetParam().name) == "Cuda") {
      GTEST_SKIP() << opened.status().message();
    }
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    device_ = std::move(opened).value();
  }
  DeviceAddress Allocate(uint64_t bytes) {
    auto address = device_->Allocate(bytes);
    EXPECT_TRUE(address.ok()) << address.status().message();
    return address.ok() ? *address : 0;
  }
  DeviceAddress Numbers(uint32_t count) {
    std::vector<uint32_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    const DeviceAddress address = Allocate(count * 4);
    Ok(device_->Upload(address, numbers.data(), count * 4));
    return address;
  }
  std::vector<uint32_t> Read(DeviceAddress address, uint32_t count) {
    std::vector<uint32_t> numbers(count);
    Ok(device_->Download(numbers.data(), address, count * 4));
    return numbers;
  }
  GpuKernel Find(const char* name, uint32_t threads, uint32_t shared = 0) {
    if (module_ == GpuModule{}) {
      auto loaded = device_->LoadModule(Module());
      EXPECT_TRUE(loaded.ok()) << loaded.status().message();
      if (loaded.ok()) module_ = *loaded;
    }
    auto kernel = device_->FindKernel(module_, name, threads, shared);
    EXPECT_TRUE(kernel.ok()) << kernel.status().message();
    return kernel.ok() ? *kernel : GpuKernel{};
  }
  GpuLaunch Scale(DeviceAddress data, uint64_t factor, uint32_t count) {
    return {Find("scale", 32), {(count + 31) / 32, 1, 1}, 32, 0, {data, factor, count}};
  }
  static void Ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.message(); }
  static void ExpectFailure(const Status& status, StatusCode code, const char* words) {
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_NE(status.message().find(words), std::string::npos) << status.message();
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }

  std::unique_ptr<GpuDevice> device_;
  GpuModule module_ = {};
};

TEST_P(GpuDeviceCts, SaysWhatItIs) {
  EXPECT_FALSE(device_->name().empty());
  EXPECT_FALSE(device_->description().empty());
  const GpuLimits& limits = device_->limits();
  EXPECT_GE(limits.sm, 80u);
  EXPECT_GE(limits.ptx_version, 80u);
  EXPECT_EQ(limits.block_threads, 1024u);
  EXPECT_GE(limits.block_shared_bytes, 48u * 1024);
  EXPECT_EQ(limits.grid_blocks[1], 65535u);
  EXPECT_GT(limits.memory_bytes, 0u);
  auto free = device_->FreeMemory();
  ASSERT_TRUE(free.ok());
  EXPECT_LE(*free, limits.memory_bytes);
}

TEST_P(GpuDeviceCts, CopiesFillsAndFrees) {
  const DeviceAddress a = Numbers(1001), b = Allocate(4004);
  EXPECT_EQ(a % 256, 0u);
  Ok(device_->Fill(b, 0xab, 4004));
  Ok(device_->Copy(b + 40, a + 4, 400));
  const std::vector<uint32_t> read = Read(b, 1001);
  EXPECT_EQ(read[9], 0xababababu);
  EXPECT_EQ(read[10], 1u);
  EXPECT_EQ(read[109], 100u);
  EXPECT_EQ(read[110], 0xababababu);
  Ok(device_->Free(a));
  EXPECT_FALSE(device_->Free(a).ok());
  EXPECT_FALSE(device_->Free(b + 256).ok());
  Ok(device_->Upload(b, read.data(), 0));
}

TEST_P(GpuDeviceCts, TheSourceOfAnUploadMayChange) {
  const DeviceAddress a = Allocate(400);
  std::vector<uint32_t> numbers(100, 7);
  Ok(device_->Upload(a, numbers.data(), 400));
  std::fill(numbers.begin(), numbers.end(), 8);
  EXPECT_EQ(Read(a, 100), std::vector<uint32_t>(100, 7));
}

TEST_P(GpuDeviceCts, LaunchesInOrder) {
  const DeviceAddress data = Numbers(1000);
  Ok(device_->Launch(Scale(data, 3, 1000)));  // 4 i
  Ok(device_->Launch(Scale(data, 10, 999)));  // 41 i but for the last
  Ok(device_->Fill(data, 0, 4 * 10));
  const std::vector<uint32_t> read = Read(data, 1000);
  EXPECT_EQ(read[9], 0u);
  EXPECT_EQ(read[10], 410u);
  EXPECT_EQ(read[998], 41u * 998);
  EXPECT_EQ(read[999], 4u * 999);
}

TEST_P(GpuDeviceCts, SharedMemoryOfEverySizeItAllows) {
  const DeviceAddress data = Numbers(128), out = Allocate(8);
  for (uint32_t shared : {256u, 48u * 1024, device_->limits().block_shared_bytes}) {
    Ok(device_->Fill(out, 0, 8));
    Ok(device_->Launch({Find("sum", 64, shared), {2, 1, 1}, 64, shared, {data, out}}));
    EXPECT_EQ(Read(out, 2), (std::vector<uint32_t>{63 * 32, 63 * 32 + 64 * 64})) << shared;
  }
}

TEST_P(GpuDeviceCts, GridsHaveThreeDimensions) {
  const DeviceAddress out = Allocate(4 * 30);
  Ok(device_->Fill(out, 0xff, 4 * 30));
  Ok(device_->Launch({Find("grid", 1), {3, 5, 2}, 1, 0, {out}}));
  std::vector<uint32_t> expected(30);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(Read(out, 30), expected);
}

TEST_P(GpuDeviceCts, GraphsRepeatTheirLaunches) {
  const DeviceAddress data = Numbers(64);
  const GpuLaunch launches[] = {Scale(data, 2, 64), Scale(data, 1, 64)};
  auto graph = device_->Record(launches);
  ASSERT_TRUE(graph.ok()) << graph.status().message();
  EXPECT_EQ(Read(data, 64)[5], 5u) << "recording runs nothing";
  Ok((*graph)->Launch());  // 2 i + i + i = 4 i
  EXPECT_EQ(Read(data, 64)[5], 20u);
  Ok((*graph)->Launch());
  Ok((*graph)->Launch());
  EXPECT_EQ(Read(data, 64)[5], 2 * (2 * 20u + 10) + 10);
  Ok(device_->Launch(Scale(data, 0, 64)));
  EXPECT_EQ(Read(data, 64)[5], 5u);
}

TEST_P(GpuDeviceCts, TimesLaunches) {
  const DeviceAddress data = Numbers(64);
  const GpuLaunch launches[] = {Scale(data, 2, 64), Scale(data, 1, 64)};
  std::vector<uint64_t> nanoseconds(2, 1);
  Ok(device_->LaunchTimed(launches, nanoseconds));
  EXPECT_GE(nanoseconds[0] + nanoseconds[1], 2u);
  EXPECT_EQ(Read(data, 64)[5], 20u);
}

TEST_P(GpuDeviceCts, RefusesWhatIsNoPtx) {
  for (const char* text : {"", "hello",
                           ".version 8.0\n.target sm_80\n.address_size 64\n"
                           ".visible .entry k() { mav.u32 %r0, 1; }\n"}) {
    const Status status = device_->LoadModule(text).status();
    // A driver cannot tell nonsense from an instruction that it does not know; the emulator does.
    EXPECT_TRUE(status.code() == StatusCode::kMalformed ||
                status.code() == StatusCode::kUnsupported);
    ExpectFailure(status, status.code(), "PTX");
  }
  EXPECT_TRUE(device_->LoadModule(Module()).ok()) << "and works on";
}

TEST_P(GpuDeviceCts, RefusesPtxThatIsCut) {
  const std::string text = Module();
  for (const char* at : {".address_size", ".visible", "st.shared", "DONE:", "ret;"}) {
    const Status status = device_->LoadModule(text.substr(0, text.find(at) + 3)).status();
    EXPECT_EQ(status.code(), StatusCode::kMalformed) << at << ": " << status.message();
  }
}

TEST_P(GpuDeviceCts, ALaunchWithTooLittleSharedMemoryFails) {
  if (std::string_view(GetParam().name) == "Cuda")
    GTEST_SKIP() << "a GPU gives more than it is asked for";
  const DeviceAddress data = Numbers(64), out = Allocate(4);
  (void)device_->Launch({Find("sum", 64, 252), {1, 1, 1}, 64, 252, {data, out}});
  EXPECT_EQ(device_->Synchronize().code(), StatusCode::kFailure);
}

TEST_P(GpuDeviceCts, RefusesPtxOfAnotherGpu) {
  const Status status = device_->LoadModule(PtxHeader("sm_999", 80)).status();
  EXPECT_TRUE(status.code() == StatusCode::kIncompatible || status.code() == StatusCode::kMalformed)
      << status.message();
}

TEST_P(GpuDeviceCts, RefusesKernelsItCannotRun) {
  Find("sum", 64);
  ExpectFailure(device_->FindKernel(module_, "none", 32, 0).status(), StatusCode::kMalformed,
                "'none'");
  ExpectFailure(device_->FindKernel(module_, "sum", 1025, 0).status(), StatusCode::kIncompatible,
                "1025 threads");
  const uint32_t most = device_->limits().block_shared_bytes;
  ExpectFailure(device_->FindKernel(module_, "sum", 64, most + 16).status(),
                StatusCode::kIncompatible, std::to_string(most + 16).c_str());
}

TEST_P(GpuDeviceCts, RefusesModulesThatAreGone) {
  Find("sum", 64);
  Ok(device_->UnloadModule(module_));
  EXPECT_FALSE(device_->UnloadModule(module_).ok());
}

TEST_P(GpuDeviceCts, RefusesMoreMemoryThanThereIs) {
  auto free = device_->FreeMemory();
  ASSERT_TRUE(free.ok());
  ExpectFailure(device_->Allocate(*free + (uint64_t{1} << 40)).status(), StatusCode::kOutOfMemory,
                std::to_string(*free + (uint64_t{1} << 40)).c_str());
  ExpectFailure(device_->Allocate(0).status(), StatusCode::kUsage, "0 bytes");
}

TEST_P(GpuDeviceCts, NothingWorksAfterAKernelFailed) {
  const DeviceAddress data = Numbers(64);
  const GpuLaunch launch = Scale(data, 2, 64);
  // Four bytes at address 16 belong to nobody.
  (void)device_->Launch(Scale(16, 2, 1));
  const Status failed = device_->Synchronize();
  EXPECT_EQ(failed.code(), StatusCode::kFailure) << failed.message();
  uint32_t value = 0;
  EXPECT_FALSE(device_->Download(&value, data, 4).ok());
  EXPECT_FALSE(device_->Launch(launch).ok());
}

INSTANTIATE_TEST_SUITE_P(Devices, GpuDeviceCts,
                         ::testing::Values(Kind{"Emulator", OpenEmulator},
                                           Kind{"CudaOverFake", OpenFake}, Kind{"Cuda", OpenReal}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace quern

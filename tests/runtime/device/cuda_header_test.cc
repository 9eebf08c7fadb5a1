// runtime/device/cuda/driver_api.h against NVIDIA's own header, where that is installed.
#include <cuda.h>
#include <gtest/gtest.h>

#include <type_traits>

#include "runtime/device/cuda/driver_api.h"

namespace quern::cuda {
namespace {

/// The parameters of two functions are equally many, and each pair is equally large and either a
/// pointer or none.
template <typename Ours, typename Theirs>
struct SameShape : std::false_type {};
template <typename... Ours, typename... Theirs>
  requires(sizeof...(Ours) == sizeof...(Theirs))
struct SameShape<DriverResult (*)(Ours...), CUresult (*)(Theirs...)>
    : std::bool_constant<((sizeof(Ours) == sizeof(Theirs) &&
                           std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>) &&
                          ...)> {};

#define QUERN_CHECK_FUNCTION(name, symbol, parameters)                             \
  static_assert(SameShape<DriverResult(*) parameters, decltype(&::symbol)>::value, \
                "the parameters of " #symbol);
QUERN_CUDA_FUNCTIONS(QUERN_CHECK_FUNCTION)

TEST(DriverApi, NumbersAreNvidias) {
  EXPECT_EQ(int{kSuccess}, CUDA_SUCCESS);
  EXPECT_EQ(int{kInvalidValue}, CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(int{kOutOfMemory}, CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(int{kNotInitialized}, CUDA_ERROR_NOT_INITIALIZED);
  EXPECT_EQ(int{kNoDevice}, CUDA_ERROR_NO_DEVICE);
  EXPECT_EQ(int{kInvalidDevice}, CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(int{kInvalidImage}, CUDA_ERROR_INVALID_IMAGE);
  EXPECT_EQ(int{kInvalidContext}, CUDA_ERROR_INVALID_CONTEXT);
  EXPECT_EQ(int{kNoBinaryForGpu}, CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_EQ(int{kInvalidPtx}, CUDA_ERROR_INVALID_PTX);
  EXPECT_EQ(int{kJitCompilerNotFound}, CUDA_ERROR_JIT_COMPILER_NOT_FOUND);
  EXPECT_EQ(int{kUnsupportedPtxVersion}, CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
  EXPECT_EQ(int{kInvalidHandle}, CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(int{kNotFound}, CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(int{kNotReady}, CUDA_ERROR_NOT_READY);
  EXPECT_EQ(int{kIllegalAddress}, CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(int{kLaunchOutOfResources}, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
  EXPECT_EQ(int{kLaunchFailed}, CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(int{kSystemDriverMismatch}, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
  EXPECT_EQ(int{kStreamCaptureUnsupported}, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(int{kStreamCaptureInvalidated}, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

  EXPECT_EQ(int{kMaxThreadsPerBlock}, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
  EXPECT_EQ(int{kMaxGridDimX}, CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X);
  EXPECT_EQ(int{kMaxGridDimY}, CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y);
  EXPECT_EQ(int{kMaxGridDimZ}, CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z);
  EXPECT_EQ(int{kMultiprocessorCount}, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  EXPECT_EQ(int{kComputeCapabilityMajor}, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  EXPECT_EQ(int{kComputeCapabilityMinor}, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  EXPECT_EQ(int{kMaxSharedMemoryPerBlockOptin},
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);

  EXPECT_EQ(int{kFunctionMaxThreadsPerBlock}, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
  EXPECT_EQ(int{kFunctionSharedSizeBytes}, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
  EXPECT_EQ(int{kFunctionMaxDynamicSharedSizeBytes},
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);

  EXPECT_EQ(int{kJitInfoLogBuffer}, CU_JIT_INFO_LOG_BUFFER);
  EXPECT_EQ(int{kJitInfoLogBufferSizeBytes}, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES);
  EXPECT_EQ(int{kJitErrorLogBuffer}, CU_JIT_ERROR_LOG_BUFFER);
  EXPECT_EQ(int{kJitErrorLogBufferSizeBytes}, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);

  EXPECT_EQ(int{kStreamNonBlocking}, CU_STREAM_NON_BLOCKING);
  EXPECT_EQ(kCaptureModeThreadLocal, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  EXPECT_EQ(kLaunchParamEnd, reinterpret_cast<uintptr_t>(CU_LAUNCH_PARAM_END));
  EXPECT_EQ(kLaunchParamBufferPointer, reinterpret_cast<uintptr_t>(CU_LAUNCH_PARAM_BUFFER_POINTER));
  EXPECT_EQ(kLaunchParamBufferSize, reinterpret_cast<uintptr_t>(CU_LAUNCH_PARAM_BUFFER_SIZE));
}

}  // namespace
}  // namespace quern::cuda

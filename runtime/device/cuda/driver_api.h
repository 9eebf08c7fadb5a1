// The part of the CUDA driver API that Quern calls, declared here so that nothing of CUDA is needed
// to build. Names, signatures and numbers are those of "CUDA Driver API" (NVIDIA), versions 12 and
// 13; the suffixes are the names that libcuda.so.1 exports.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quern::cuda {

using Device = int;
using DevicePointer = unsigned long long;
using Context = struct ContextTag*;
using Module = struct ModuleTag*;
using Function = struct FunctionTag*;
using Stream = struct StreamTag*;
using Event = struct EventTag*;
using Graph = struct GraphTag*;
using GraphExec = struct GraphExecTag*;

/// CUresult: those that are told apart.
enum DriverResult : int {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kInvalidContext = 201,
  kNoBinaryForGpu = 209,
  kInvalidPtx = 218,
  kJitCompilerNotFound = 221,
  kUnsupportedPtxVersion = 222,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kLaunchOutOfResources = 701,
  kLaunchFailed = 719,
  kSystemDriverMismatch = 803,
  kStreamCaptureUnsupported = 900,
  kStreamCaptureInvalidated = 901,
};

/// CUdevice_attribute.
enum DeviceAttribute : int {
  kMaxThreadsPerBlock = 1,
  kMaxGridDimX = 5,
  kMaxGridDimY = 6,
  kMaxGridDimZ = 7,
  kMultiprocessorCount = 16,
  kComputeCapabilityMajor = 75,
  kComputeCapabilityMinor = 76,
  kMaxSharedMemoryPerBlockOptin = 97,
};

/// CUfunction_attribute.
enum FunctionAttribute : int {
  kFunctionMaxThreadsPerBlock = 0,
  kFunctionSharedSizeBytes = 1,
  kFunctionMaxDynamicSharedSizeBytes = 8,
};

/// CUjit_option.
enum JitOption : int {
  kJitInfoLogBuffer = 3,
  kJitInfoLogBufferSizeBytes = 4,
  kJitErrorLogBuffer = 5,
  kJitErrorLogBufferSizeBytes = 6,
};

inline constexpr unsigned kStreamNonBlocking = 1;
inline constexpr int kCaptureModeThreadLocal = 1;
/// Dynamic shared memory that a kernel may have without being asked for more.
inline constexpr uint32_t kDefaultSharedBytes = 48 * 1024;
/// Marks of the `extra` argument of cuLaunchKernel.
inline constexpr uintptr_t kLaunchParamEnd = 0;
inline constexpr uintptr_t kLaunchParamBufferPointer = 1;
inline constexpr uintptr_t kLaunchParamBufferSize = 2;

/// X(name in DriverTable, exported symbol, parameters).
#define QUERN_CUDA_FUNCTIONS(X)                                                                   \
  X(Init, cuInit, (unsigned flags))                                                               \
  X(DriverGetVersion, cuDriverGetVersion, (int* version))                                         \
  X(GetErrorName, cuGetErrorName, (DriverResult error, const char** text))                        \
  X(GetErrorString, cuGetErrorString, (DriverResult error, const char** text))                    \
  X(DeviceGetCount, cuDeviceGetCount, (int* count))                                               \
  X(DeviceGet, cuDeviceGet, (Device * device, int ordinal))                                       \
  X(DeviceGetName, cuDeviceGetName, (char* name, int length, Device device))                      \
  X(DeviceTotalMem, cuDeviceTotalMem_v2, (size_t* bytes, Device device))                          \
  X(DeviceGetAttribute, cuDeviceGetAttribute,                                                     \
    (int* value, DeviceAttribute attribute, Device device))                                       \
  X(DevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (Context * context, Device device))         \
  X(DevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (Device device))                       \
  X(CtxPushCurrent, cuCtxPushCurrent_v2, (Context context))                                       \
  X(CtxPopCurrent, cuCtxPopCurrent_v2, (Context * context))                                       \
  X(MemGetInfo, cuMemGetInfo_v2, (size_t* free, size_t* total))                                   \
  X(MemAlloc, cuMemAlloc_v2, (DevicePointer * address, size_t bytes))                             \
  X(MemFree, cuMemFree_v2, (DevicePointer address))                                               \
  X(MemcpyHtoDAsync, cuMemcpyHtoDAsync_v2,                                                        \
    (DevicePointer destination, const void* source, size_t bytes, Stream stream))                 \
  X(MemcpyDtoHAsync, cuMemcpyDtoHAsync_v2,                                                        \
    (void* destination, DevicePointer source, size_t bytes, Stream stream))                       \
  X(MemcpyDtoDAsync, cuMemcpyDtoDAsync_v2,                                                        \
    (DevicePointer destination, DevicePointer source, size_t bytes, Stream stream))               \
  X(MemsetD8Async, cuMemsetD8Async,                                                               \
    (DevicePointer destination, unsigned char value, size_t count, Stream stream))                \
  X(ModuleLoadDataEx, cuModuleLoadDataEx,                                                         \
    (Module * module, const void* image, unsigned count, JitOption* options, void** values))      \
  X(ModuleUnload, cuModuleUnload, (Module module))                                                \
  X(ModuleGetFunction, cuModuleGetFunction,                                                       \
    (Function * function, Module module, const char* name))                                       \
  X(FuncGetAttribute, cuFuncGetAttribute,                                                         \
    (int* value, FunctionAttribute attribute, Function function))                                 \
  X(FuncSetAttribute, cuFuncSetAttribute,                                                         \
    (Function function, FunctionAttribute attribute, int value))                                  \
  X(LaunchKernel, cuLaunchKernel,                                                                 \
    (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,      \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream stream, void** parameters, \
     void** extra))                                                                               \
  X(StreamCreate, cuStreamCreate, (Stream * stream, unsigned flags))                              \
  X(StreamDestroy, cuStreamDestroy_v2, (Stream stream))                                           \
  X(StreamSynchronize, cuStreamSynchronize, (Stream stream))                                      \
  X(StreamBeginCapture, cuStreamBeginCapture_v2, (Stream stream, int mode))                       \
  X(StreamEndCapture, cuStreamEndCapture, (Stream stream, Graph * graph))                         \
  X(GraphInstantiate, cuGraphInstantiateWithFlags,                                                \
    (GraphExec * executable, Graph graph, unsigned long long flags))                              \
  X(GraphLaunch, cuGraphLaunch, (GraphExec executable, Stream stream))                            \
  X(GraphExecDestroy, cuGraphExecDestroy, (GraphExec executable))                                 \
  X(GraphDestroy, cuGraphDestroy, (Graph graph))                                                  \
  X(EventCreate, cuEventCreate, (Event * event, unsigned flags))                                  \
  X(EventRecord, cuEventRecord, (Event event, Stream stream))                                     \
  X(EventElapsedTime, cuEventElapsedTime, (float* milliseconds, Event start, Event end))          \
  X(EventDestroy, cuEventDestroy_v2, (Event event))

}  // namespace quern::cuda

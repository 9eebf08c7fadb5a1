#include "runtime/executor/open_executor.h"

#include <utility>

#include "runtime/device/host/target.h"
#include "runtime/device/open_gpu.h"
#include "runtime/executor/gpu_executor.h"
#include "runtime/executor/host_executor.h"

namespace quern {
namespace {

Result<OpenedExecutor> OpenHost(const Artifact& artifact, std::string_view isa,
                                const ExecutorOptions& options) {
  const std::vector<TargetRequirement> targets = artifact.HostTargets();
  QUERN_ASSIGN_OR_RETURN(const size_t chosen,
                         SelectTarget(targets, isa, CpuFeatures::Host(), AmxEmulatorDeclared()));
  const size_t index = targets[chosen].index;
  const schema::Target& target = *artifact.manifest().targets()->Get(static_cast<uint32_t>(index));
  QUERN_ASSIGN_OR_RETURN(CodeImage code,
                         CodeImage::Create(artifact.SegmentBytes(target.code_segment())));
  QUERN_ASSIGN_OR_RETURN(
      std::unique_ptr<Executor> executor,
      HostExecutor::Create(Program::Build(artifact.manifest()),
                           KernelTable::FromImage(artifact.manifest(), index, std::move(code)),
                           artifact.weights(), options));
  return OpenedExecutor{std::move(executor), targets[chosen].name, "cpu"};
}

}  // namespace

Result<OpenedExecutor> OpenExecutor(const Artifact& artifact, std::string_view device,
                                    std::string_view isa, const ExecutorOptions& options) {
  if (device.empty() || device == "cpu") return OpenHost(artifact, isa, options);
  QUERN_ASSIGN_OR_RETURN(std::unique_ptr<GpuDevice> gpu, OpenGpu(device));
  std::string name = gpu->name();
  QUERN_ASSIGN_OR_RETURN(std::unique_ptr<GpuExecutor> executor,
                         GpuExecutor::Create(artifact, isa, std::move(gpu), options));
  std::string target = executor->target();
  return OpenedExecutor{std::move(executor), std::move(target), std::move(name)};
}

}  // namespace quern

// quern_emulate.
#include <algorithm>
#include <vector>

#include "quern.h"
#include "runtime/api/handles.h"
#include "runtime/api/json_text.h"
#include "runtime/device/gpu_target.h"
#include "runtime/device/ptx_emulator/emulator.h"

namespace quern::api {
namespace {

std::array<uint32_t, 3> Sizes(const uint32_t (&given)[3]) {
  return {std::max(given[0], 1u), std::max(given[1], 1u), std::max(given[2], 1u)};
}

ptx::LaunchOptions MakeLaunch(const quern_emulate_options& options) {
  ptx::LaunchOptions launch;
  launch.grid = Sizes(options.grid);
  launch.block = Sizes(options.block);
  launch.cluster = Sizes(options.cluster);
  launch.shared_bytes = options.shared_bytes;
  launch.seed = options.seed;
  launch.threads = std::max(options.threads, 1u);
  launch.check_races = !options.ignore_races;
  launch.coverage = options.coverage != 0;
  if (options.max_steps) launch.max_steps = options.max_steps;
  return launch;
}

/// `name` may be null.
Result<const ptx::KernelInfo*> SelectKernel(const ptx::Module& module, const char* name) {
  const std::vector<ptx::KernelInfo>& kernels = module.kernels();
  if (!name && kernels.size() == 1) return kernels.data();
  if (const ptx::KernelInfo* kernel = name ? module.FindKernel(name) : nullptr) return kernel;
  if (kernels.empty()) return UsageError("the PTX has no kernel (.entry)");
  std::string known;
  for (const ptx::KernelInfo& kernel : kernels) known += (known.empty() ? "" : ", ") + kernel.name;
  if (name) return UsageError("no kernel '" + std::string(name) + "'; the PTX has: " + known);
  return UsageError("the PTX has " + std::to_string(kernels.size()) +
                    " kernels; name one of: " + known);
}

/// The emulator has sm_90's shared memory; the target may have less.
Status CheckShared(const ptx::Module& module, const ptx::KernelInfo& kernel, uint64_t dynamic) {
  const uint32_t most = BlockSharedBytes(ParseSm(module.target()).value_or(90));
  const uint64_t bytes = kernel.static_shared_bytes + dynamic;
  if (bytes <= most) return {};
  return UsageError("kernel '" + kernel.name + "' gets " + std::to_string(bytes) +
                    " bytes of shared memory a block; " + module.target() + " has " +
                    std::to_string(most));
}

/// The kernel's parameters, and where its buffers lie in device memory.
struct Placed {
  std::vector<uint8_t> parameters;
  std::vector<uint64_t> addresses;  ///< 0 for values.
};

Status CheckCount(const ptx::KernelInfo& kernel, size_t given) {
  if (given == kernel.parameters.size()) return {};
  std::string wanted;
  for (const ptx::ParameterInfo& each : kernel.parameters) {
    wanted += (wanted.empty() ? ": ." : ", .") + each.type + " " + each.name;
  }
  return UsageError("kernel '" + kernel.name + "' takes " +
                    std::to_string(kernel.parameters.size()) + " arguments and got " +
                    std::to_string(given) + wanted);
}

Result<Placed> Place(const ptx::KernelInfo& kernel, std::span<const quern_emulate_argument> given,
                     ptx::Memory& memory) {
  QUERN_RETURN_IF_ERROR(CheckCount(kernel, given.size()));
  Placed placed;
  placed.parameters.resize(kernel.parameter_bytes, 0);
  for (size_t i = 0; i < given.size(); ++i) {
    const ptx::ParameterInfo& parameter = kernel.parameters[i];
    QUERN_RETURN_IF_ERROR(Require(given[i].data, "data of an argument"));
    uint64_t address = 0;
    const void* value = given[i].data;
    size_t bytes = given[i].bytes;
    if (given[i].is_buffer) {
      QUERN_ASSIGN_OR_RETURN(address, memory.Allocate(bytes));
      QUERN_RETURN_IF_ERROR(memory.CopyToDevice(address, given[i].data, bytes));
      value = &address;
      bytes = sizeof(address);
    }
    if (bytes != parameter.bytes) {
      return UsageError("argument " + std::to_string(i) + " has " + std::to_string(bytes) +
                        " bytes; parameter '" + parameter.name + "' of kernel '" + kernel.name +
                        "' (." + parameter.type + ") has " + std::to_string(parameter.bytes));
    }
    std::memcpy(placed.parameters.data() + parameter.offset, value, bytes);
    placed.addresses.push_back(address);
  }
  return placed;
}

Json Describe(const std::vector<ptx::Finding>& findings) {
  Json list = Json::Array();
  for (const ptx::Finding& each : findings) {
    list.Add({{"kind", each.kind},
              {"message", each.message},
              {"line", each.line},
              {"block", each.cta},
              {"count", each.count}});
  }
  return list;
}

Json Describe(const ptx::Module& module, const ptx::KernelInfo& kernel,
              const ptx::LaunchReport& report) {
  Json json = {{"kernel", kernel.name},
               {"target", module.target()},
               {"threads", report.threads_launched},
               {"instructions", report.instructions},
               {"static_shared_bytes", kernel.static_shared_bytes},
               {"clean", report.clean()},
               {"races", Describe(report.races)},
               {"lints", Describe(report.lints)}};
  if (report.lines.empty()) return json;
  json.Set("opcodes", report.by_opcode);
  Json lines = Json::Array();
  for (const ptx::LineCount& each : report.lines) {
    lines.Add({{"line", each.line}, {"instruction", each.opcode}, {"warps", each.warps}});
  }
  json.Set("lines", lines);
  return json;
}

Status Emulate(std::string_view text, const quern_emulate_options& options,
               std::span<const quern_emulate_argument> given, std::string& json) {
  QUERN_ASSIGN_OR_RETURN(const ptx::Module module, ptx::ParseModule(text));
  QUERN_ASSIGN_OR_RETURN(const ptx::KernelInfo* kernel, SelectKernel(module, options.kernel));
  QUERN_RETURN_IF_ERROR(CheckShared(module, *kernel, options.shared_bytes));
  ptx::Memory memory;
  QUERN_ASSIGN_OR_RETURN(const Placed placed, Place(*kernel, given, memory));
  const Result<ptx::LaunchReport> report =
      ptx::Launch(module, kernel->name, placed.parameters, memory, MakeLaunch(options));
  for (size_t i = 0; i < given.size(); ++i) {
    if (!given[i].is_buffer) continue;
    QUERN_RETURN_IF_ERROR(memory.CopyToHost(given[i].data, placed.addresses[i], given[i].bytes));
  }
  if (!report.ok()) return report.status();
  json = Describe(module, *kernel, *report).text();
  return {};
}

}  // namespace
}  // namespace quern::api

using namespace quern::api;
using quern::Status;

quern_status_code quern_emulate(const char* ptx, size_t length,
                                const quern_emulate_options* options,
                                const quern_emulate_argument* arguments, size_t count,
                                char** report, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(ptx, "ptx"));
    QUERN_RETURN_IF_ERROR(count == 0 ? Status() : Require(arguments, "arguments"));
    QUERN_RETURN_IF_ERROR(Require(report, "report"));
    quern_emulate_options chosen = QUERN_EMULATE_OPTIONS_INIT;
    QUERN_RETURN_IF_ERROR(ReadOptions(options, chosen));
    std::string json;
    QUERN_RETURN_IF_ERROR(Emulate({ptx, length}, chosen, {arguments, count}, json));
    return CopyOut(json, report);
  });
}

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include "runtime/device/ptx_emulator/emulator.h"
#include "runtime/device/ptx_emulator/machine.h"

namespace quern::ptx {
namespace {

uint64_t Product(const std::array<uint32_t, 3>& size) {
  return uint64_t{size[0]} * size[1] * size[2];
}

std::string Text(const std::array<uint32_t, 3>& size) {
  return std::to_string(size[0]) + "," + std::to_string(size[1]) + "," + std::to_string(size[2]);
}

Status CheckOptions(const Code& code, size_t parameter_bytes, LaunchOptions& options) {
  const KernelInfo& info = code.info;
  if (parameter_bytes != info.parameter_bytes)
    return UsageError(std::to_string(parameter_bytes) + " bytes of parameters given, " +
                      std::to_string(info.parameter_bytes) + " wanted");
  if (info.cluster[0] && Product(options.cluster) == 1) options.cluster = info.cluster;
  constexpr std::array<uint32_t, 3> kMostCtas = {0x7fffffff, 65535, 65535};
  for (int axis = 0; axis < 3; ++axis) {
    if (options.grid[axis] == 0 || options.grid[axis] > kMostCtas[axis])
      return UsageError("a grid of " + Text(options.grid) + " CTAs; at most " + Text(kMostCtas) +
                        " and none of them 0 are possible");
    if (options.cluster[axis] == 0 || options.grid[axis] % options.cluster[axis])
      return UsageError("clusters of " + Text(options.cluster) + " do not divide a grid of " +
                        Text(options.grid));
    if (options.block[axis] == 0 || options.block[axis] > kMaxThreadsPerCta)
      return UsageError("blocks of " + Text(options.block) + " threads; 1 to 1024 are possible");
  }
  if (Product(options.cluster) > 16)
    return UsageError("clusters of " + Text(options.cluster) + "; 16 CTAs are possible");
  const uint64_t threads = Product(options.block);
  if (threads > kMaxThreadsPerCta)
    return UsageError(std::to_string(threads) + " threads in a CTA; 1024 are possible");
  if (info.max_threads[0] && threads > Product(info.max_threads))
    return UsageError(std::to_string(threads) + " threads in a CTA; it was compiled for " +
                      std::to_string(Product(info.max_threads)));
  if (info.required_threads[0] && options.block != info.required_threads)
    return UsageError("blocks of " + Text(options.block) + "; it requires " +
                      Text(info.required_threads));
  const uint64_t shared = uint64_t{code.shared_bytes} + options.shared_bytes;
  if (shared > kMaxSharedBytes)
    return UsageError(std::to_string(shared) + " bytes of shared memory; " +
                      std::to_string(kMaxSharedBytes) + " are possible");
  return {};
}

/// Puts the variables of the module into `memory` and their addresses into the constants.
Status PlaceGlobals(const Program& program, const Code& code, Memory& memory,
                    LaunchContext& context, std::vector<uint64_t>& placed) {
  std::vector<uint64_t> addresses(program.globals.size(), 0);
  for (const Code::Relocation& relocation : code.relocations) {
    uint64_t& address = addresses[relocation.variable];
    if (address == 0) {
      const AstVariable& variable = program.globals[relocation.variable];
      if (variable.external)
        return Unsupported("PTX line " + std::to_string(variable.line) + ": `" + variable.name +
                           "` is external; no other module is linked");
      QUERN_ASSIGN_OR_RETURN(address, memory.Allocate(std::max<uint64_t>(variable.bytes, 1)));
      placed.push_back(address);
      QUERN_RETURN_IF_ERROR(memory.Fill(address, 0, 1, variable.bytes));
      QUERN_RETURN_IF_ERROR(
          memory.CopyToDevice(address, variable.initial.data(), variable.initial.size()));
    }
    const uint64_t value = address + relocation.addend;
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      std::memcpy(&context.constants[relocation.constant + 8 * lane], &value, 8);
  }
  return {};
}

/// What the threads of a launch put together.
struct Shared {
  std::atomic<uint64_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  Status status;
  uint64_t instructions = 0;
  std::vector<uint64_t> counts;
  std::map<RaceCheck::Key, Finding> findings;

  /// Ends the launch with `why`, unless something else has ended it.
  void Stop(const Status& why) {
    const std::lock_guard lock(mutex);
    if (status.ok()) status = why;
    stop = true;
  }
};

void Collect(const Cluster& cluster, Shared& shared) {
  const std::lock_guard lock(shared.mutex);
  shared.instructions += cluster.steps;
  shared.counts.resize(cluster.counts.size(), 0);
  for (size_t i = 0; i < cluster.counts.size(); ++i) shared.counts[i] += cluster.counts[i];
  for (const auto& cta : cluster.ctas) {
    if (!cta->races) continue;
    for (const auto& [key, finding] : cta->races->findings()) {
      auto [it, fresh] = shared.findings.try_emplace(key, finding);
      if (fresh)
        it->second.cta = cta->index;
      else
        it->second.count += finding.count;
    }
  }
}

void RunClusters(const LaunchContext& context, uint64_t clusters, Shared& shared) {
  while (!shared.stop) {
    const uint64_t number = shared.next++;
    if (number >= clusters) return;
    Cluster cluster(context, number);
    const Status status = cluster.Run();
    Collect(cluster, shared);
    if (!status.ok()) return shared.Stop(status);
  }
}

/// What a thread does. Registers and local memory of a CTA may be more than there is.
void Work(const LaunchContext& context, uint64_t clusters, Shared& shared) {
  try {
    RunClusters(context, clusters, shared);
  } catch (const std::bad_alloc&) {
    shared.Stop(OutOfMemory("the host has no memory for the registers and local memory of a CTA"));
  }
}

/// Runs on this thread and `threads` - 1 others, or as many as there can be.
void WorkOnThreads(const LaunchContext& context, uint64_t clusters, uint64_t threads,
                   Shared& shared) {
  std::vector<std::thread> pool;
  try {
    for (uint64_t i = 1; i < threads; ++i)
      pool.emplace_back([&] { Work(context, clusters, shared); });
  } catch (const std::exception&) {  // No more threads: those that are there do the work.
  }
  Work(context, clusters, shared);
  for (std::thread& thread : pool) thread.join();
}

LaunchReport MakeReport(const LaunchContext& context, Shared& shared) {
  LaunchReport report;
  report.instructions = shared.instructions;
  report.threads_launched = Product(context.options.grid) * Product(context.options.block);
  const Code& code = *context.code;
  for (size_t i = 0; i < shared.counts.size(); ++i) {
    report.by_opcode[code.names[i]] += shared.counts[i];
    report.lines.push_back({code.insts[i].line, code.names[i], shared.counts[i]});
  }
  for (auto& [key, finding] : shared.findings)
    (finding.kind == "race" ? report.races : report.lints).push_back(std::move(finding));
  return report;
}

}  // namespace

Result<LaunchReport> Launch(const Module& module, std::string_view name,
                            std::span<const uint8_t> parameters, Memory& memory,
                            const LaunchOptions& options) {
  const Program& program = module.program();
  const auto found = std::find_if(program.codes.begin(), program.codes.end(),
                                  [&](const Code& code) { return code.info.name == name; });
  if (found == program.codes.end()) {
    std::string known;
    for (const Code& code : program.codes) known += (known.empty() ? "" : ", ") + code.info.name;
    return UsageError("no kernel '" + std::string(name) + "'; the module has: " + known);
  }
  // Whatever goes wrong from here on is this kernel's.
  const auto of_kernel = [&](const Status& status) {
    return Status(status.code(), "kernel '" + found->info.name + "': " + status.message());
  };
  LaunchContext context;
  context.code = &*found;
  context.options = options;
  context.constants = found->constants;
  context.constants.resize(found->constants.size() + 256);
  context.parameters.assign(parameters.begin(), parameters.end());
  Status status = CheckOptions(*found, parameters.size(), context.options);
  if (!status.ok()) return of_kernel(status);
  std::vector<uint64_t> placed;
  status = PlaceGlobals(program, *found, memory, context, placed);
  Shared shared;
  if (status.ok()) {
    context.global.memory = &memory;
    memory.ForEachBuffer([&](uint64_t address, uint64_t bytes, uint8_t* host) {
      context.global.ranges.push_back({address, bytes, host});
    });
    const uint64_t clusters = Product(context.options.grid) / Product(context.options.cluster);
    uint64_t threads =
        options.threads ? options.threads : std::max(1u, std::thread::hardware_concurrency());
    threads = std::min({threads, clusters, uint64_t{256}});
    WorkOnThreads(context, clusters, threads, shared);
    status = shared.status;
  }
  for (const uint64_t address : placed) (void)memory.Free(address);
  if (!status.ok()) return of_kernel(status);
  return MakeReport(context, shared);
}

}  // namespace quern::ptx

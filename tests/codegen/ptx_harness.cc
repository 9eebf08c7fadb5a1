#include "tests/codegen/ptx_harness.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <tuple>

#include "codegen/kernels/Lowering.h"
#include "codegen/ptx/PtxCodegen.h"
#include "dialects/lm/Lm.h"
#include "dialects/rt/Rt.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "runtime/device/ptx_emulator/emulator.h"
#include "runtime/schema/gpu_grid.h"
#include "runtime/schema/kernel_abi.h"
#include "tests/codegen/tracked_memory.h"

namespace quern::test {
namespace {

mlir::MLIRContext& Context() {
  static mlir::MLIRContext* context = [] {
    mlir::DialectRegistry registry;
    registry.insert<lm::LmDialect, rt::RtDialect>();
    registerCodegenDialects(registry);
    auto* made = new mlir::MLIRContext(registry, mlir::MLIRContext::Threading::DISABLED);
    made->loadAllAvailableDialects();
    return made;
  }();
  return *context;
}

struct Compiled {
  nvptx::PtxImage image;
  std::shared_ptr<ptx::Module> module;
};

// The kernels of `text` for a target; kept, since tests of both roles want them.
const Compiled& Generate(const std::string& text, const Target& target) {
  static std::map<std::pair<std::string, std::string_view>, Compiled> made;
  auto [place, is_new] = made.try_emplace({text, target.name});
  Compiled& compiled = place->second;
  if (!is_new) return compiled;
  auto parsed = mlir::parseSourceString<mlir::ModuleOp>(text, mlir::ParserConfig(&Context()));
  if (!parsed) return compiled;
  nvptx::PtxOptions options;
  if (const char* directory = std::getenv("QUERN_DUMP_KERNELS")) options.dumpKernelsTo = directory;
  auto image = nvptx::generatePtx(*parsed, target, options);
  if (mlir::failed(image)) return compiled;
  compiled.image = std::move(*image);
  Result<ptx::Module> module = ptx::ParseModule(compiled.image.text);
  if (!module.ok()) {
    ADD_FAILURE() << module.status().message();
    return compiled;
  }
  compiled.module = std::make_shared<ptx::Module>(*std::move(module));
  return compiled;
}

/// Which order of warps and asynchronous operations: any will do, scripts/emulate-all tries several.
uint64_t Seed() {
  const char* seed = std::getenv("QUERN_EMULATE_SEED");
  return seed ? std::strtoull(seed, nullptr, 10) : 1;
}

/// Blocks of one dimension, as the executor counts them.
uint32_t BlocksOf(const nvptx::GridFactor& factor, const std::vector<int64_t>& dims,
                  const std::vector<int64_t>& ranges) {
  const GridCounts counts{static_cast<uint64_t>(dims[kDimRows]),
                          static_cast<uint64_t>(dims[kDimAttentionTiles]),
                          static_cast<uint64_t>(dims[kDimPageTableStride]), ranges};
  return static_cast<uint32_t>(
      GridBlocks({factor.per, static_cast<schema::GridCount>(factor.count)}, counts));
}

}  // namespace

struct EmulatedKernel::State {
  nvptx::PtxKernel kernel;
  std::shared_ptr<ptx::Module> module;
};

std::unique_ptr<EmulatedKernel> EmulatedKernel::Compile(const std::string& text,
                                                        const Target& target, Role role) {
  const Compiled& compiled = Generate(text, target);
  std::unique_ptr<EmulatedKernel> result(new EmulatedKernel);
  for (const nvptx::PtxKernel& kernel : compiled.image.kernels)
    if (compiled.module && kernel.role == role)
      result->state_.reset(new State{kernel, compiled.module});
  if (result->state_) return result;
  ADD_FAILURE() << "kernel does not parse or cannot be generated:\n" << text;
  return nullptr;
}

EmulatedKernel::~EmulatedKernel() = default;

void EmulatedKernel::Run(const std::vector<const void*>& args, const std::vector<int64_t>& dims,
                         const std::vector<int64_t>& ranges) const {
  ptx::Memory memory;
  std::map<uint8_t*, std::pair<size_t, uint64_t>> copies;  // host -> bytes, device
  std::vector<uint64_t> parameters;
  for (const void* arg : args) {
    const TrackedRange range = FindTrackedMemory(arg);
    ASSERT_TRUE(range.data) << "argument " << parameters.size() << " points at unknown memory";
    auto [place, is_new] = copies.try_emplace(range.data, range.bytes, 0);
    if (is_new) {
      Result<uint64_t> address = memory.Allocate(std::max<size_t>(range.bytes, 1));
      ASSERT_TRUE(address.ok()) << address.status().message();
      place->second.second = *address;
      ASSERT_TRUE(memory.CopyToDevice(*address, range.data, range.bytes).ok());
    }
    parameters.push_back(place->second.second + (static_cast<const uint8_t*>(arg) - range.data));
  }
  const nvptx::Launch& launch = state_->kernel.launch;
  uint64_t counters = 0;
  std::vector<uint8_t> zeros(dims[kDimRows] * launch.countersPerRow * 4);
  if (launch.workspaceBytesPerRow > 0) {  // the executor's: unknown bytes, and zeros
    Result<uint64_t> workspace = memory.Allocate(dims[kDimRows] * launch.workspaceBytesPerRow);
    ASSERT_TRUE(workspace.ok()) << workspace.status().message();
    ASSERT_TRUE(
        memory.Fill(*workspace, 0xff, 1, dims[kDimRows] * launch.workspaceBytesPerRow).ok());
    Result<uint64_t> address = memory.Allocate(zeros.size() + 1);
    ASSERT_TRUE(address.ok()) << address.status().message();
    counters = *address;
    ASSERT_TRUE(memory.CopyToDevice(counters, zeros.data(), zeros.size()).ok());
    parameters.push_back(*workspace);
    parameters.push_back(counters);
  }
  std::vector<int64_t> all_dims = dims;
  all_dims.resize(kDimCount);
  for (int64_t dim : all_dims) parameters.push_back(dim);
  for (int64_t edge : ranges) parameters.push_back(edge);

  ptx::LaunchOptions options;
  options.block = {launch.blockThreads, 1, 1};
  options.shared_bytes = launch.sharedBytes;
  options.check_races = true;
  options.seed = Seed();
  for (size_t i = 0; i < launch.grid.size(); ++i) {
    options.grid[i] = BlocksOf(launch.grid[i], all_dims, ranges);
    if (options.grid[i] == 0) return;
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(parameters.data());
  Result<ptx::LaunchReport> report = ptx::Launch(*state_->module, state_->kernel.entry,
                                                 {bytes, parameters.size() * 8}, memory, options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  for (const ptx::Finding& finding : report->races) ADD_FAILURE() << finding.message;
  for (const ptx::Finding& finding : report->lints) ADD_FAILURE() << finding.message;
  std::vector<uint8_t> left(zeros.size());
  if (counters) ASSERT_TRUE(memory.CopyToHost(left.data(), counters, left.size()).ok());
  EXPECT_EQ(left, zeros) << "counters must be left as they were found";
  for (const auto& [host, copy] : copies)
    ASSERT_TRUE(memory.CopyToHost(host, copy.second, copy.first).ok());
}

}  // namespace quern::test

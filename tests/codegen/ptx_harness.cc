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
#include "runtime/device/gpu_target.h"
#include "runtime/device/open_gpu.h"
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

/// How many orders of warps and asynchronous operations a kernel is emulated in. Any will do;
/// scripts/emulate-all asks for several.
uint64_t Schedules() {
  const char* count = std::getenv("QUERN_EMULATE_SCHEDULES");
  return count ? std::strtoull(count, nullptr, 10) : 1;
}

/// A launch, and memory that its parameters point at.
class Runner {
 public:
  virtual ~Runner() = default;
  virtual Result<uint64_t> Allocate(uint64_t bytes) = 0;
  virtual Status Upload(uint64_t to, const void* from, uint64_t bytes) = 0;
  virtual Status Download(void* to, uint64_t from, uint64_t bytes) = 0;
  virtual Status Fill(uint64_t to, uint8_t value, uint64_t bytes) = 0;
  virtual Status Launch(const Compiled& compiled, const nvptx::PtxKernel& kernel,
                        const std::array<uint32_t, 3>& grid,
                        const std::vector<uint64_t>& parameters) = 0;
};

class EmulatorRunner : public Runner {
 public:
  explicit EmulatorRunner(uint64_t schedule) : schedule_(schedule) {}
  Result<uint64_t> Allocate(uint64_t bytes) override { return memory_.Allocate(bytes); }
  Status Upload(uint64_t to, const void* from, uint64_t bytes) override {
    return memory_.CopyToDevice(to, from, bytes);
  }
  Status Download(void* to, uint64_t from, uint64_t bytes) override {
    return memory_.CopyToHost(to, from, bytes);
  }
  Status Fill(uint64_t to, uint8_t value, uint64_t bytes) override {
    return memory_.Fill(to, value, 1, bytes);
  }
  Status Launch(const Compiled& compiled, const nvptx::PtxKernel& kernel,
                const std::array<uint32_t, 3>& grid,
                const std::vector<uint64_t>& parameters) override {
    ptx::LaunchOptions options;
    options.grid = grid;
    options.block = {kernel.launch.blockThreads, 1, 1};
    options.shared_bytes = kernel.launch.sharedBytes;
    options.check_races = true;
    options.seed = schedule_;
    const auto* bytes = reinterpret_cast<const uint8_t*>(parameters.data());
    QUERN_ASSIGN_OR_RETURN(const ptx::LaunchReport report,
                           ptx::Launch(*compiled.module, kernel.entry,
                                       {bytes, parameters.size() * 8}, memory_, options));
    for (const ptx::Finding& finding : report.races) ADD_FAILURE() << finding.message;
    for (const ptx::Finding& finding : report.lints) ADD_FAILURE() << finding.message;
    return {};
  }

 private:
  ptx::Memory memory_;
  uint64_t schedule_;
};

/// The GPU that QUERN_TEST_GPU names, or null where it names none.
GpuDevice* TestGpu() {
  static const std::unique_ptr<GpuDevice> kDevice = []() -> std::unique_ptr<GpuDevice> {
    const char* name = std::getenv("QUERN_TEST_GPU");
    if (!name) return nullptr;
    Result<std::unique_ptr<GpuDevice>> opened = OpenGpu(name);
    if (opened.ok()) return std::move(opened).value();
    std::fprintf(stderr, "QUERN_TEST_GPU=%s: %s\n", name, opened.status().message().c_str());
    std::exit(1);
  }();
  return kDevice.get();
}

class DeviceRunner : public Runner {
 public:
  explicit DeviceRunner(GpuDevice& device) : device_(device) {}
  ~DeviceRunner() override {
    for (const uint64_t address : allocated_) EXPECT_TRUE(device_.Free(address).ok());
    if (module_ != GpuModule{}) EXPECT_TRUE(device_.UnloadModule(module_).ok());
  }
  Result<uint64_t> Allocate(uint64_t bytes) override {
    QUERN_ASSIGN_OR_RETURN(const uint64_t address, device_.Allocate(bytes));
    allocated_.push_back(address);
    return address;
  }
  Status Upload(uint64_t to, const void* from, uint64_t bytes) override {
    return device_.Upload(to, from, bytes);
  }
  Status Download(void* to, uint64_t from, uint64_t bytes) override {
    return device_.Download(to, from, bytes);
  }
  Status Fill(uint64_t to, uint8_t value, uint64_t bytes) override {
    return device_.Fill(to, value, bytes);
  }
  Status Launch(const Compiled& compiled, const nvptx::PtxKernel& kernel,
                const std::array<uint32_t, 3>& grid,
                const std::vector<uint64_t>& parameters) override {
    const uint32_t threads = kernel.launch.blockThreads, shared = kernel.launch.sharedBytes;
    QUERN_ASSIGN_OR_RETURN(module_, device_.LoadModule(compiled.image.text));
    QUERN_ASSIGN_OR_RETURN(const GpuKernel entry,
                           device_.FindKernel(module_, kernel.entry, threads, shared));
    QUERN_RETURN_IF_ERROR(device_.Launch({entry, grid, threads, shared, parameters}));
    return device_.Synchronize();
  }

 private:
  GpuDevice& device_;
  GpuModule module_ = {};
  std::vector<uint64_t> allocated_;
};

std::unique_ptr<Runner> MakeRunner(uint64_t schedule) {
  if (GpuDevice* device = TestGpu()) return std::make_unique<DeviceRunner>(*device);
  return std::make_unique<EmulatorRunner>(schedule);
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

bool RunsHere(const Target& target) {
  const GpuDevice* device = TestGpu();
  if (!device) return true;
  const auto sm = static_cast<uint32_t>(target.gpu.sm);
  const GpuTargetRequirement needs = {std::string(target.name), sm, target.gpu.exact,
                                      static_cast<uint32_t>(target.gpu.ptxVersion), 0};
  return SelectGpuTarget({&needs, 1}, "", device->limits()).ok();
}

struct EmulatedKernel::State {
  nvptx::PtxKernel kernel;
  const Compiled* compiled;
};

std::unique_ptr<EmulatedKernel> EmulatedKernel::Compile(const std::string& text,
                                                        const Target& target, Role role) {
  const Compiled& compiled = Generate(text, target);
  std::unique_ptr<EmulatedKernel> result(new EmulatedKernel);
  for (const nvptx::PtxKernel& kernel : compiled.image.kernels)
    if (compiled.module && kernel.role == role) result->state_.reset(new State{kernel, &compiled});
  if (result->state_) return result;
  ADD_FAILURE() << "kernel does not parse or cannot be generated:\n" << text;
  return nullptr;
}

EmulatedKernel::~EmulatedKernel() = default;

std::string_view EmulatedKernel::generator() const { return state_->kernel.form.generator; }

void EmulatedKernel::Run(const std::vector<const void*>& args, const std::vector<int64_t>& dims,
                         const std::vector<int64_t>& ranges) const {
  Memory first;
  for (uint64_t schedule = 1; schedule <= Schedules(); ++schedule) {
    Memory memory;
    ASSERT_NO_FATAL_FAILURE(RunOnce(args, dims, ranges, schedule, memory));
    if (schedule == 1)
      first = std::move(memory);
    else
      EXPECT_TRUE(memory == first) << "the bits of schedule " << schedule << " are others";
  }
  for (const auto& [host, bytes] : first) std::memcpy(host, bytes.data(), bytes.size());
}

void EmulatedKernel::RunOnce(const std::vector<const void*>& args, const std::vector<int64_t>& dims,
                             const std::vector<int64_t>& ranges, uint64_t schedule,
                             Memory& memory) const {
  const std::unique_ptr<Runner> runner = MakeRunner(schedule);
  std::map<uint8_t*, std::pair<size_t, uint64_t>> copies;  // host -> bytes, device
  std::vector<uint64_t> parameters;
  for (const void* arg : args) {
    const TrackedRange range = FindTrackedMemory(arg);
    ASSERT_TRUE(range.data) << "argument " << parameters.size() << " points at unknown memory";
    auto [place, is_new] = copies.try_emplace(range.data, range.bytes, 0);
    if (is_new) {
      Result<uint64_t> address = runner->Allocate(std::max<size_t>(range.bytes, 1));
      ASSERT_TRUE(address.ok()) << address.status().message();
      place->second.second = *address;
      ASSERT_TRUE(runner->Upload(*address, range.data, range.bytes).ok());
    }
    parameters.push_back(place->second.second + (static_cast<const uint8_t*>(arg) - range.data));
  }
  const nvptx::Launch& launch = state_->kernel.launch;
  uint64_t counters = 0;
  std::vector<uint8_t> zeros(dims[kDimRows] * launch.countersPerRow * 4);
  if (launch.workspaceBytesPerRow > 0) {  // the executor's: unknown bytes, and zeros
    const uint64_t bytes = dims[kDimRows] * launch.workspaceBytesPerRow;
    Result<uint64_t> workspace = runner->Allocate(bytes);
    ASSERT_TRUE(workspace.ok()) << workspace.status().message();
    ASSERT_TRUE(runner->Fill(*workspace, 0xff, bytes).ok());
    Result<uint64_t> address = runner->Allocate(zeros.size() + 1);
    ASSERT_TRUE(address.ok()) << address.status().message();
    counters = *address;
    ASSERT_TRUE(runner->Upload(counters, zeros.data(), zeros.size()).ok());
    parameters.push_back(*workspace);
    parameters.push_back(counters);
  }
  std::vector<int64_t> all_dims = dims;
  all_dims.resize(kDimCount);
  for (int64_t dim : all_dims) parameters.push_back(dim);
  for (int64_t edge : ranges) parameters.push_back(edge);

  std::array<uint32_t, 3> grid = {1, 1, 1};
  for (size_t i = 0; i < launch.grid.size(); ++i) {
    grid[i] = BlocksOf(launch.grid[i], all_dims, ranges);
    if (grid[i] == 0) return;
  }
  const Status launched = runner->Launch(*state_->compiled, state_->kernel, grid, parameters);
  ASSERT_TRUE(launched.ok()) << launched.message();
  std::vector<uint8_t> left(zeros.size());
  if (counters) ASSERT_TRUE(runner->Download(left.data(), counters, left.size()).ok());
  EXPECT_EQ(left, zeros) << "counters must be left as they were found";
  for (const auto& [host, copy] : copies) {
    std::vector<uint8_t>& bytes = memory[host];
    bytes.resize(copy.first);
    ASSERT_TRUE(runner->Download(bytes.data(), copy.second, copy.first).ok());
  }
}

}  // namespace quern::test

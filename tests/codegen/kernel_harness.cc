#include "tests/codegen/kernel_harness.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "codegen/host/HostCodegen.h"
#include "codegen/host/Kernel.h"
#include "codegen/host/PackedLayout.h"
#include "codegen/kernels/Lowering.h"
#include "dialects/lm/Lm.h"
#include "dialects/rt/Rt.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "runtime/schema/kernel_abi.h"
#include "tests/codegen/kernel_proof.h"
#include "tests/support/amx_emulator/amx_emulator.h"

namespace quern::test {
namespace {

std::map<const uint8_t*, size_t>& TrackedMemory() {
  static auto* ranges = new std::map<const uint8_t*, size_t>;
  return *ranges;
}

constexpr size_t kGuardBytes = 4096;
constexpr uint8_t kGuardByte = 0xa5;

std::set<std::string, std::less<>> ReadCpuFlags() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    return {std::istream_iterator<std::string>(words), std::istream_iterator<std::string>()};
  }
  return {};
}

bool CanRun(const Target& target) {
  static const auto flags = ReadCpuFlags();
  static const bool has_tiles = HasHardwareAmx() || InstallAmxEmulator();
  for (const CpuFeature& feature : target.features) {
    const bool emulated = feature.name.substr(0, 4) == "amx_" && has_tiles;
    if (!emulated && flags.count(feature.name) == 0) return false;
  }
  return true;
}

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

// The image of `text`, which holds both roles; kept, since tests of both want it.
const std::optional<host::CodeImage>& Generate(const std::string& text, std::string_view target) {
  static std::map<std::pair<std::string, std::string_view>, std::optional<host::CodeImage>> images;
  auto [place, is_new] = images.try_emplace({text, target});
  if (!is_new) return place->second;
  auto module = mlir::parseSourceString<mlir::ModuleOp>(text, mlir::ParserConfig(&Context()));
  if (!module) return place->second;
  host::CodegenOptions options;
  if (const char* directory = std::getenv("QUERN_DUMP_KERNELS")) options.dumpKernelsTo = directory;
  auto image = host::generateHostCode(*module, *findTarget(target), options);
  if (mlir::succeeded(image)) place->second = std::move(*image);
  return place->second;
}

}  // namespace

void TrackMemory(const void* data, size_t bytes) {
  TrackedMemory()[static_cast<const uint8_t*>(data)] = bytes;
}
void UntrackMemory(const void* data) { TrackedMemory().erase(static_cast<const uint8_t*>(data)); }

TrackedRange FindTrackedMemory(const void* pointer) {
  const auto* byte = static_cast<const uint8_t*>(pointer);
  auto after = TrackedMemory().upper_bound(byte);
  if (after == TrackedMemory().begin()) return {};
  auto [data, bytes] = *--after;
  if (byte > data + bytes) return {};
  return {const_cast<uint8_t*>(data), bytes};
}

std::vector<Machine> RunnableMachines() {
  std::vector<Machine> machines;
  for (const Target& target : targets())
    if (CanRun(target))
      for (Role role : {Role::Decode, Role::Prefill}) machines.push_back({target.name, role});
  return machines;
}

std::vector<Machine> EmulatedMachines(const std::vector<Machine>& more) {
  const bool all = std::getenv("QUERN_FULL_MATRIX") != nullptr;
  std::vector<Machine> machines;
  for (const Target& target : gpuTargets())
    for (Role role : {Role::Decode, Role::Prefill}) {
      bool wanted = all || target.name == "sm_80" || target.name == "sm_90a";
      for (const Machine& machine : more)
        wanted |= machine.target == target.name && machine.role == role;
      if (wanted && RunsHere(target)) machines.push_back({target.name, role});
    }
  return machines;
}

std::vector<Machine> EmulatedMatmulMachines() {
  return EmulatedMachines(
      {{"sm_89", Role::Decode}, {"sm_89", Role::Prefill}, {"sm_100a", Role::Prefill}});
}

std::string MachineName(const Machine& machine) {
  std::string name = std::string(machine.target) + "_" + std::string(roleName(machine.role));
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
}

std::unique_ptr<CompiledKernel> CompiledKernel::Compile(const std::string& text,
                                                        const Machine& machine) {
  if (const Target& target = *findTarget(machine.target); target.isGpu()) {
    std::unique_ptr<CompiledKernel> kernel(new CompiledKernel);
    kernel->emulated_ = EmulatedKernel::Compile(text, target, machine.role);
    kernel->machine_ = MachineName(machine);
    return kernel->emulated_ ? std::move(kernel) : nullptr;
  }
  const std::optional<host::CodeImage>& image = Generate(text, machine.target);
  if (!image) {
    ADD_FAILURE() << "kernel does not parse or cannot be generated:\n" << text;
    return nullptr;
  }
  std::unique_ptr<CompiledKernel> kernel(new CompiledKernel);
  for (const host::KernelCode& code : image->kernels)
    if (code.role == machine.role) {
      kernel->entry_ = code.offset;
      kernel->scratch_bytes_ = code.scratchBytes;
    }
  kernel->code_bytes_ = image->bytes.size();
  kernel->code_ = mmap(nullptr, kernel->code_bytes_, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (kernel->code_ == MAP_FAILED) {
    ADD_FAILURE() << "no memory for " << kernel->code_bytes_ << " bytes of code";
    return nullptr;
  }
  std::memcpy(kernel->code_, image->bytes.data(), kernel->code_bytes_);
  mprotect(kernel->code_, kernel->code_bytes_, PROT_READ | PROT_EXEC);
  return kernel;
}

CompiledKernel::~CompiledKernel() {
  if (code_ && code_ != MAP_FAILED) munmap(code_, code_bytes_);
}

void CompiledKernel::Note(std::string_view axis, std::string value) const {
  if (emulated_) NoteProof(emulated_->generator(), axis, std::move(value));
}

void CompiledKernel::Run(std::vector<const void*> args, std::vector<int64_t> dims,
                         std::vector<int64_t> ranges) const {
  if (emulated_) {
    Note("machine", machine_);
    Note("rows", dims[kDimRows]);
    return emulated_->Run(args, dims, ranges);
  }
  Buffer scratch(scratch_bytes_);
  std::memset(scratch.data(), 0xff, scratch.size());  // NaN: nothing may rely on its contents
  args.push_back(scratch.data());
  dims.resize(kDimCount);
  const auto entry = reinterpret_cast<KernelEntry>(static_cast<uint8_t*>(code_) + entry_);
  entry(const_cast<void* const*>(args.data()), dims.data(), ranges.data());
  EXPECT_TRUE(scratch.IsIntact()) << "the kernel wrote behind its scratch";
}

Buffer::Buffer(size_t bytes)
    : data_(static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + kGuardBytes + 63) / 64 * 64))),
      bytes_(bytes) {
  std::memset(data_, 0, bytes_);
  std::memset(data_ + bytes_, kGuardByte, kGuardBytes);
  TrackMemory(data_, bytes_);
}
Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
Buffer::~Buffer() {
  UntrackMemory(data_);
  std::free(data_);
}

bool Buffer::IsIntact() const {
  for (size_t i = 0; i < kGuardBytes; ++i)
    if (data_[bytes_ + i] != kGuardByte) return false;
  return true;
}

Buffer RandomFloats(std::mt19937& random, size_t count, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  Buffer buffer(count * 4);
  for (size_t i = 0; i < count; ++i) buffer.as<float>()[i] = normal(random);
  return buffer;
}

namespace {

// Bytes of a block at which f16 scales lie, in formats whose codes may be any bytes.
std::vector<int> ScaleOffsets(BlockFormat format) {
  switch (format) {
    case BlockFormat::Q2_K:
      return {80, 82};
    case BlockFormat::Q3_K:
      return {108};
    case BlockFormat::Q4_K:
    case BlockFormat::Q5_K:
      return {0, 2};
    case BlockFormat::Q6_K:
      return {208};
    case BlockFormat::Q5_1:
      return {0, 2};
    default:
      return {0};
  }
}

}  // namespace

Weight RandomWeight(std::mt19937& random, BlockFormat format, int64_t rows, int64_t columns) {
  const BlockFormatInfo& info = blockFormatInfo(format);
  Weight weight = {format, rows, columns, {}, std::vector<float>(rows * columns)};
  const int64_t row_bytes = info.rowBytes(columns);
  weight.encoded.resize(rows * row_bytes);
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> source(columns);
  for (int64_t n = 0; n < rows; ++n) {
    uint8_t* row = weight.encoded.data() + n * row_bytes;
    if (canQuantize(format)) {
      for (float& value : source) value = normal(random);
      quantizeRow(format, source.data(), row, columns);
    } else {
      for (int64_t i = 0; i < row_bytes; ++i) row[i] = static_cast<uint8_t>(random());
      for (int64_t block = 0; block < row_bytes; block += info.blockBytes)
        for (int offset : ScaleOffsets(format)) {
          const uint16_t scale = f32ToF16(normal(random) * 0.01f);
          std::memcpy(row + block + offset, &scale, 2);
        }
    }
    dequantizeRow(format, row, weight.values.data() + n * columns, columns);
  }
  return weight;
}

Buffer Weight::Pack(int64_t n_begin, int64_t n_end, int64_t k_begin, int64_t k_end) const {
  const PackedFormat& packed = packedFormat(format);
  const int64_t row_bytes = blockFormatInfo(format).rowBytes(columns);
  Buffer buffer(packed.matrixBytes(n_end - n_begin, k_end - k_begin));
  uint8_t* to = buffer.data();
  for (int64_t n = n_begin; n < n_end; n += kPackedRows) {
    std::vector<const uint8_t*> pointers;
    for (int64_t r = n; r < std::min(n + kPackedRows, n_end); ++r)
      pointers.push_back(encoded.data() + r * row_bytes);
    packRowBlock(format, pointers, k_begin, k_end, to);
    to += packed.rowBlockBytes(k_end - k_begin);
  }
  return buffer;
}

int64_t NumericRowBytes(int64_t columns) { return activationRowBytes(columns); }
int64_t ScaleOffset(int64_t columns) { return activationScaleOffset(columns); }
int64_t SumOffset(int64_t columns) { return activationSumOffset(columns); }

int64_t HalfRowsBytes(int64_t rows, int64_t columns) {
  return (rows + 7) / 8 * 8 * NumericRowBytes(columns);
}

bool IsGpu(const Machine& machine) { return findTarget(machine.target)->isGpu(); }

int64_t HalfOffset(int64_t columns, int64_t row, int64_t column) {
  const int64_t k = column % 32;
  const int64_t block = 4 * (column / 32) + 2 * (k / 4 % 2) + k % 2;
  const int64_t element = 2 * (k / 8) + k / 2 % 2;
  return row / 8 * 8 * NumericRowBytes(columns) + 128 * block + 16 * (row % 8) + 2 * element;
}

Buffer HalfRows(const float* values, int64_t rows, int64_t columns) {
  Buffer buffer(HalfRowsBytes(rows, columns));
  std::memset(buffer.data(), 0xff, buffer.size());
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t k = 0; k < columns; ++k) {
      const uint16_t bits = f32ToF16(values[m * columns + k]);
      std::memcpy(buffer.data() + HalfOffset(columns, m, k), &bits, 2);
    }
  return buffer;
}

Buffer Bf16Rows(const float* values, int64_t rows, int64_t columns) {
  const int64_t row_bytes = NumericRowBytes(columns);
  Buffer buffer(rows * row_bytes);
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t k = 0; k < columns; ++k) {
      const uint16_t bits = f32ToBf16(values[m * columns + k]);
      std::memcpy(buffer.data() + m * row_bytes + 2 * k, &bits, 2);
    }
  return buffer;
}

}  // namespace quern::test

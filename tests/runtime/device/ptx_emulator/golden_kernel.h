// Kernels of an independent compiler: tests/golden/ptx, see make_triton.py there.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/device/ptx_emulator/numeric.h"
#include "runtime/device/ptx_emulator/tensor_map.h"
#include "tests/runtime/device/ptx_emulator/run_kernel.h"

namespace quern::ptx {

/// What came of one launch.
struct GoldenOutcome {
  Status status;
  LaunchReport report;
  bool right = false;  ///< Every output is within the tolerance.
  double error = 0;    ///< Largest, relative to the largest value.
  bool caught() const { return !status.ok() || !right || !report.clean(); }
};

class GoldenKernel {
 public:
  explicit GoldenKernel(const std::string& name) : name_(name) {
    const std::string base = std::string(QUERN_GOLDEN_PTX) + "/" + name;
    ptx = Read(base + ".ptx");
    launch_ = nlohmann::json::parse(Read(base + ".json"));
    expected_ = Read(base + ".bin");
  }

  std::string ptx;

  GoldenOutcome Run(const std::string& text, LaunchOptions options) const {
    GoldenOutcome outcome;
    const auto module = ParseModule(text);
    if (!module.ok()) {
      outcome.status = module.status();
      return outcome;
    }
    Memory memory;
    Parameters parameters;
    std::vector<Input> inputs;
    for (const auto& arg : launch_.at("args"))
      inputs.push_back(AddArgument(arg, memory, parameters));
    for (size_t i = 0; i < 3; ++i) {
      options.grid[i] = launch_.at("grid")[i];
      options.block[i] = launch_.at("block")[i];
    }
    options.shared_bytes = launch_.at("shared");
    options.coverage = true;
    auto report = Launch(*module, launch_.at("kernel").get<std::string>(), parameters.bytes(),
                         memory, options);
    if (!report.ok()) {
      outcome.status = report.status();
      return outcome;
    }
    NoteExecuted(*report);
    outcome.report = std::move(*report);
    outcome.right = true;
    for (const auto& output : launch_.at("outputs")) Compare(output, memory, inputs, outcome);
    return outcome;
  }

 private:
  struct Input {
    uint64_t address = 0;
    std::string type;
    size_t count = 0;
  };

  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    EXPECT_TRUE(file.good()) << path;
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  /// `fill` of make_triton.py.
  static uint64_t Fill(uint64_t seed, uint64_t i, uint64_t levels) {
    uint64_t x = (seed << 32) + i + 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return (x ^ (x >> 31)) % levels;
  }

  static uint32_t TypeBytes(const std::string& type) {
    return type == "f32" || type == "i32" ? 4 : type == "f16" || type == "bf16" ? 2 : 1;
  }

  static uint32_t Encode(const std::string& type, double value) {
    if (type == "f16") return FloatToHalf(static_cast<float>(value));
    if (type == "bf16") return FloatToBf16(static_cast<float>(value));
    if (type == "f32") return BitsOf(static_cast<float>(value));
    if (type == "e4m3") return ConvertToFormat(value, kFormatE4m3, Rounding::kNearest, true);
    return static_cast<uint32_t>(static_cast<int64_t>(value));
  }

  static double Decode(const std::string& type, const uint8_t* bytes) {
    uint32_t bits = 0;
    std::memcpy(&bits, bytes, TypeBytes(type));
    if (type == "f16") return HalfToFloat(static_cast<uint16_t>(bits));
    if (type == "bf16") return Bf16ToFloat(static_cast<uint16_t>(bits));
    if (type == "f32") return FloatOf(bits);
    return static_cast<int32_t>(bits);
  }

  static Input AddBuffer(const nlohmann::json& spec, Memory& memory) {
    Input input{0, spec.at("buffer"), spec.at("count")};
    const uint64_t levels = spec.at("levels"), seed = spec.at("seed");
    const double divide = spec.at("divide"), offset = spec.at("offset");
    const uint32_t bytes = TypeBytes(input.type);
    std::vector<uint8_t> data(input.count * bytes, 0);
    for (size_t i = 0; levels && i < input.count; ++i) {
      const auto level = static_cast<double>(Fill(seed, i, levels));
      const double value = input.type[0] == 'i'
                               ? level + offset
                               : (level - static_cast<double>(levels / 2)) / divide;
      const uint32_t bits = Encode(input.type, value);
      std::memcpy(&data[i * bytes], &bits, bytes);
    }
    input.address = Upload(memory, data);
    return input;
  }

  static Input AddArgument(const nlohmann::json& arg, Memory& memory, Parameters& parameters) {
    if (arg.contains("i32")) parameters.Add(arg.at("i32").get<int32_t>());
    if (arg.contains("i64")) parameters.Add(arg.at("i64").get<int64_t>());
    if (arg.contains("f32")) parameters.Add(arg.at("f32").get<float>());
    if (arg.contains("buffer")) {
      const Input input = AddBuffer(arg, memory);
      parameters.Add(input.address);
      return input;
    }
    if (!arg.contains("tensor_map")) return {};
    const Input input = AddBuffer(arg.at("tensor_map"), memory);
    TensorMap map;
    map.element = input.type == "bf16" ? TensorElement::kBf16 : TensorElement::kF16;
    map.address = input.address;
    map.rank = static_cast<uint32_t>(arg.at("shape").size());
    map.swizzle = static_cast<TensorSwizzle>(arg.at("swizzle").get<int>());
    uint64_t stride = TypeBytes(input.type);
    for (uint32_t axis = 0; axis < map.rank; ++axis) {
      map.dims[axis] = arg.at("shape")[map.rank - 1 - axis];
      map.box[axis] = arg.at("box")[map.rank - 1 - axis];
      map.strides[axis] = stride;
      stride *= map.dims[axis];
    }
    const auto encoded = EncodeTensorMap(map);
    EXPECT_TRUE(encoded.ok()) << encoded.status().message();
    parameters.Add(*encoded, kTensorMapAlignment);
    return input;
  }

  void Compare(const nlohmann::json& output, const Memory& memory, const std::vector<Input>& inputs,
               GoldenOutcome& outcome) const {
    const Input& input = inputs[output.at("arg").get<size_t>()];
    const std::string type = output.at("type");
    const size_t count = output.at("count"), offset = output.at("offset");
    const auto got = Download<uint8_t>(memory, input.address, count * TypeBytes(input.type));
    double largest = 1e-30, error = 0;
    for (size_t i = 0; i < count; ++i) {
      const double want =
          Decode(type, reinterpret_cast<const uint8_t*>(expected_.data()) + offset + 4 * i);
      const double have = Decode(input.type, &got[i * TypeBytes(input.type)]);
      largest = std::max(largest, std::fabs(want));
      error = std::isnan(have) ? INFINITY : std::max(error, std::fabs(have - want));
    }
    outcome.error = std::max(outcome.error, error / largest);
    outcome.right = outcome.right && error / largest <= launch_.at("tolerance").get<double>();
  }

  std::string name_;
  nlohmann::json launch_;
  std::string expected_;
};

}  // namespace quern::ptx

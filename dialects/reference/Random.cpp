//===- Random.cpp ---------------------------------------------------------===//
#include "dialects/reference/Random.h"

#include "llvm/ADT/STLExtras.h"

#include <cmath>
#include <cstring>

using namespace mlir;
using namespace quern;
using namespace quern::reference;

namespace {
/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014.
class Generator {
public:
  Generator(uint64_t seed, StringRef name) : state(seed) {
    for (char c : name)
      state = (state ^ static_cast<uint8_t>(c)) * 0x100000001b3; // FNV-1a
  }
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// Uniform in [-1, 1).
  float uniform() {
    return static_cast<float>(static_cast<int64_t>(next() >> 40) - (1 << 23)) /
           (1 << 23);
  }

private:
  uint64_t state;
};

/// Where the f16 scale and minimum of a block are, for formats that have no
/// quantizer, and the largest product of integer scale and code.
struct ScaleFields {
  BlockFormat format;
  int scaleOffset;
  int minOffset; // -1: none
  float largest;
};
constexpr ScaleFields kScaleFields[] = {
    {BlockFormat::Q5_0, 0, -1, 16},
    {BlockFormat::Q5_1, 0, 2, 31},
    {BlockFormat::Q2_K, 80, 82, 15 * 3},
    {BlockFormat::Q3_K, 108, -1, 32 * 4},
    {BlockFormat::Q4_K, 0, 2, 63 * 15},
    {BlockFormat::Q5_K, 0, 2, 63 * 31},
    {BlockFormat::Q6_K, 208, -1, 127 * 32},
};

/// Random codes under scales that keep elements below `bound`.
void fillBlocks(Generator &generator, Tensor &tensor, float bound) {
  const auto *fields = llvm::find_if(kScaleFields, [&](const auto &entry) {
    return entry.format == tensor.format;
  });
  assert(fields != std::end(kScaleFields) && "format has no quantizer");
  for (uint8_t &byte : tensor.bytes)
    byte = static_cast<uint8_t>(generator.next());
  const int64_t blockBytes = blockFormatInfo(tensor.format).blockBytes;
  for (size_t block = 0; block < tensor.bytes.size(); block += blockBytes) {
    auto store = [&](int offset, float value) {
      const uint16_t bits = f32ToF16(value);
      std::memcpy(&tensor.bytes[block + offset], &bits, sizeof(bits));
    };
    const float spread = 1.0f + 0.5f * generator.uniform();
    store(fields->scaleOffset, bound * spread / fields->largest);
    if (fields->minOffset >= 0)
      store(fields->minOffset,
            bound * generator.uniform() / 64); // Times an integer up to 63.
  }
}

/// The nearest numbers that `format` holds, where it has a quantizer.
void roundTo(BlockFormat format, std::vector<float> &row) {
  if (format == BlockFormat::F32 || !canQuantize(format))
    return;
  Tensor tensor =
      Tensor::makeStored(format, {1, static_cast<int64_t>(row.size())});
  tensor.setRow(0, row);
  row = tensor.row(0);
}

/// Element `u` in [-1, 1) of a vector, by what its name says it is for.
float vectorElement(StringRef name, float u) {
  return name.contains("bias") ? 0.1f * u : 1.0f + 0.25f * u;
}
} // namespace

std::vector<float> reference::randomFloats(uint64_t seed, StringRef name,
                                           int64_t count) {
  Generator generator(seed, name);
  std::vector<float> values(count);
  for (float &value : values)
    value = generator.uniform();
  return values;
}

WeightProvider reference::randomWeights(uint64_t seed) {
  return [seed](StringRef name, RankedTensorType type,
                Type source) -> FailureOr<Tensor> {
    Generator generator(seed, name);
    const BlockFormat format = *lm::formatOf(type);
    Tensor tensor =
        Tensor::makeStored(format, std::vector<int64_t>(type.getShape()));
    // Uniform with variance 1 / columns.
    const float bound = std::sqrt(3.0f / tensor.columns());
    if (!canQuantize(format)) {
      fillBlocks(generator, tensor, bound);
      return tensor;
    }
    for (int64_t m = 0; m < tensor.rows(); ++m) {
      std::vector<float> row(tensor.columns());
      for (float &value : row)
        value = type.getRank() == 1 ? vectorElement(name, generator.uniform())
                                    : bound * generator.uniform();
      if (source)
        roundTo(*lm::formatOf(source), row);
      tensor.setRow(m, row);
    }
    return tensor;
  };
}

#include "compiler/import/ModelFamilies.h"
#include "compiler/import/GgufText.h"
#include "compiler/import/GuardMemory.h"

#include <algorithm>
#include <cmath>

namespace quern::importer {
namespace {

//===----------------------------------------------------------------------===//
// Tables
//===----------------------------------------------------------------------===//

/// Whether the members of a family add biases to q, k and v.
enum class QkvBias {
  Always,
  /// When the file has them.
  Optional,
};

/// What distinguishes one family. Everything else is common to all of them.
struct ModelFamily {
  /// `general.architecture`, and the prefix of the metadata keys.
  std::string_view name;
  RopeMode ropeMode;
  QkvBias qkvBias;
};

constexpr ModelFamily kFamilies[] = {
    // Llama 1 to 3, Mistral, SmolLM: q and k rows permuted by the converter.
    {"llama", RopeMode::Interleaved, QkvBias::Optional},
    // Qwen 1.5, 2 and 2.5.
    {"qwen2", RopeMode::HalfSplit, QkvBias::Always},
};

/// Keys that change the computation. A value other than the neutral one is
/// refused by name.
struct RefusedKey {
  std::string_view suffix;
  double neutral;
  std::string_view meaning;
};

constexpr RefusedKey kRefusedKeys[] = {
    {"expert_count", 0, "a mixture of experts"},
    {"attention.sliding_window", 0, "sliding-window attention"},
    {"rope.scale_linear", 1, "linear rope scaling"},
    {"rope.scaling.factor", 1, "rope scaling"},
    {"attention.scale", 0, "an attention scale of its own"},
    {"logit_scale", 1, "scaled logits"},
    {"attn_logit_softcapping", 0, "capped attention scores"},
    {"final_logit_softcapping", 0, "capped logits"},
};

/// Largest sizes accepted, far above those of known models: products of any
/// three stay far inside 63 bits.
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxContext = 1 << 28;
constexpr int64_t kMaxVocab = 1 << 24;

std::string number(int64_t value) { return std::to_string(value); }

//===----------------------------------------------------------------------===//
// Metadata
//===----------------------------------------------------------------------===//

/// Reads keys of one family. The first error stays.
class ConfigReader {
public:
  ConfigReader(const GgufFile &file, std::string_view family)
      : file(file), family(family) {}

  ImportCheck error;

  const GgufValue *find(std::string_view suffix) const {
    return file.find(keyOf(suffix));
  }

  void fail(ImportError reason) {
    if (!error)
      error = std::move(reason);
  }

  /// An integer in [1, most]. A missing key is an error unless it has a
  /// default.
  int64_t size(std::string_view suffix, int64_t most,
               std::optional<int64_t> byDefault = std::nullopt) {
    const GgufValue *value = find(suffix);
    if (!value) {
      if (!byDefault)
        fail(missing(suffix));
      return byDefault.value_or(1);
    }
    if (value->type() == GgufType::Array) {
      fail(unsupported(key(suffix) + " differs from layer to layer; one value "
                                     "for all layers is supported",
                       value->offset()));
      return 1;
    }
    std::optional<int64_t> number = value->asSigned();
    bool isUnsigned = value->asUnsigned().has_value();
    if (number && *number >= 1 && *number <= most)
      return *number;
    std::string seen = number       ? std::to_string(*number)
                       : isUnsigned ? std::to_string(*value->asUnsigned())
                                    : typeText(*value);
    fail(malformed(key(suffix) + " is " + seen + ", an integer from 1 to " +
                       std::to_string(most) + " was wanted",
                   value->offset()));
    return 1;
  }

  /// A finite number in (low, high).
  double real(std::string_view suffix, double low, double high,
              std::optional<double> byDefault = std::nullopt) {
    const GgufValue *value = find(suffix);
    if (!value) {
      if (!byDefault)
        fail(missing(suffix));
      return byDefault.value_or(1);
    }
    std::optional<double> number = value->asFloat();
    if (number && *number > low && *number < high)
      return *number;
    fail(malformed(key(suffix) + " is " +
                       (number ? std::to_string(*number) : typeText(*value)) +
                       ", a number between " + std::to_string(low) + " and " +
                       std::to_string(high) + " was wanted",
                   value->offset()));
    return 1;
  }

  /// Quoted name of a key, for messages.
  std::string key(std::string_view suffix) const {
    return "metadata key " + quoted(keyOf(suffix));
  }

private:
  std::string keyOf(std::string_view suffix) const {
    return std::string(family) + "." + std::string(suffix);
  }
  ImportError missing(std::string_view suffix) const {
    return malformed(key(suffix) +
                     " is missing; convert the model again with a current "
                     "converter");
  }
  static std::string typeText(const GgufValue &value) {
    return "of type " + std::string(ggufTypeName(value.type()));
  }

  const GgufFile &file;
  std::string family;
};

std::string textOr(const GgufFile &file, std::string_view key,
                   std::string_view byDefault) {
  const GgufValue *value = file.find(key);
  return std::string(value ? value->asString().value_or(byDefault) : byDefault);
}

/// The family that the file names, or why there is none.
ImportResult<const ModelFamily *> findFamily(const GgufFile &file) {
  const GgufValue *value = file.find("general.architecture");
  if (!value)
    return malformed("metadata key \"general.architecture\" is missing; is "
                     "this file a language model?");
  std::optional<std::string_view> name = value->asString();
  if (!name)
    return malformed("metadata key \"general.architecture\" has type " +
                         std::string(ggufTypeName(value->type())) +
                         ", string was wanted",
                     value->offset());
  std::string known;
  for (const ModelFamily &family : kFamilies) {
    if (family.name == *name)
      return &family;
    known += (known.empty() ? "" : ", ") + std::string(family.name);
  }
  return unsupported(
      "the architecture is " + quoted(*name) + "; " + known +
          " are supported; compile a model of one of these, or add "
          "its row (docs/adding-a-model.md)",
      value->offset());
}

/// Refuses what would be computed differently from what the file says.
ImportCheck checkSupported(const GgufFile &file, const ConfigReader &reader) {
  std::string type = textOr(file, "general.type", "model");
  if (type != "model")
    return unsupported("the file holds a GGUF " + quoted(type) +
                           ", a model was wanted",
                       file.find("general.type")->offset());
  if (const GgufValue *count = file.find("split.count");
      count && count->asUnsigned().value_or(1) > 1)
    return unsupported("the file is one of " +
                           std::to_string(*count->asUnsigned()) +
                           " shards; merge them into one file first",
                       count->offset());
  if (const GgufValue *scaling = reader.find("rope.scaling.type")) {
    std::string_view kind = scaling->asString().value_or("of another type");
    if (kind != "none")
      return unsupported(reader.key("rope.scaling.type") + " is " +
                             quoted(kind) + "; only \"none\" is supported",
                         scaling->offset());
  }
  for (const RefusedKey &refused : kRefusedKeys) {
    const GgufValue *value = reader.find(refused.suffix);
    if (value && value->asFloat().value_or(NAN) != refused.neutral)
      return unsupported(reader.key(refused.suffix) + " asks for " +
                             std::string(refused.meaning) +
                             ", which is not supported",
                         value->offset());
  }
  return std::nullopt;
}

/// Sizes of the attention heads, which constrain each other.
void readHeads(ConfigReader &reader, ModelConfig &config) {
  config.heads = reader.size("attention.head_count", kMaxHeads);
  config.kvHeads =
      reader.size("attention.head_count_kv", kMaxHeads, config.heads);
  if (config.heads % config.kvHeads != 0)
    reader.fail(malformed(reader.key("attention.head_count_kv") + " is " +
                          number(config.kvHeads) + ", a divisor of the " +
                          number(config.heads) + " heads was wanted"));
  bool hasKeyLength = reader.find("attention.key_length") != nullptr;
  config.headDim = reader.size("attention.key_length", kMaxWidth,
                               config.hidden / config.heads);
  if (!hasKeyLength && config.hidden % config.heads != 0)
    reader.fail(malformed("the width " + number(config.hidden) +
                          " is not a multiple of the " + number(config.heads) +
                          " heads and " + reader.key("attention.key_length") +
                          " is missing"));
  int64_t valueLength =
      reader.size("attention.value_length", kMaxWidth, config.headDim);
  if (valueLength != config.headDim)
    reader.fail(unsupported("heads have keys of " + number(config.headDim) +
                            " and values of " + number(valueLength) +
                            " elements; only equal sizes are supported"));
}

void readRope(ConfigReader &reader, const ModelFamily &family,
              ModelConfig &config) {
  config.ropeMode = family.ropeMode;
  config.ropeBase = reader.real("rope.freq_base", 1, 1e12, 10000);
  config.ropeDim =
      reader.size("rope.dimension_count", kMaxWidth, config.headDim);
  if (config.ropeDim % 2 != 0 || config.ropeDim > config.headDim)
    reader.fail(malformed(reader.key("rope.dimension_count") + " is " +
                          number(config.ropeDim) +
                          ", an even number up to the head size of " +
                          number(config.headDim) + " was wanted"));
}

/// Sizes that kernels can work with: groups of 32 numbers are quantized
/// together, and a vector register holds 16.
void checkSizes(ConfigReader &reader, const ModelConfig &config) {
  struct Size {
    std::string_view suffix;
    int64_t value;
    int64_t unit;
  };
  const Size sizes[] = {
      {"embedding_length", config.hidden, 32},
      {"feed_forward_length", config.ffn, 32},
      {"attention.key_length", config.headDim, 16},
  };
  for (const Size &size : sizes)
    if (size.value % size.unit != 0)
      reader.fail(unsupported(reader.key(size.suffix) + " is " +
                              number(size.value) + "; only multiples of " +
                              number(size.unit) + " are supported"));
  if (config.heads * config.headDim % 32 != 0)
    reader.fail(unsupported(reader.key("attention.head_count") + " is " +
                            number(config.heads) + "; with heads of " +
                            number(config.headDim) +
                            " elements only even numbers are supported"));
}

/// What the presence and contents of tensors say about the model.
ImportCheck readTensorFacts(const GgufFile &file, const ModelFamily &family,
                            const ConfigReader &reader, ModelConfig &config) {
  const GgufTensor *embedding =
      file.findTensor(tensorName(TensorRole::TokenEmbedding));
  if (!embedding)
    return malformed("tensor " +
                     quoted(tensorName(TensorRole::TokenEmbedding)) +
                     " is missing; the file is not a whole model");
  config.vocab = embedding->rows();
  if (config.vocab > kMaxVocab)
    return malformed("the vocabulary has " + number(config.vocab) +
                         " tokens, at most " + number(kMaxVocab) +
                         " were wanted",
                     embedding->infoOffset);
  if (const GgufValue *size = reader.find("vocab_size");
      size && size->asSigned() != config.vocab)
    return malformed(reader.key("vocab_size") + " differs from the " +
                         number(config.vocab) + " rows of the embedding",
                     size->offset());
  config.tiedEmbedding = !file.findTensor(tensorName(TensorRole::Output));
  config.qkvBias = family.qkvBias == QkvBias::Always ||
                   file.findTensor(tensorName(TensorRole::QueryBias));
  const GgufTensor *factors =
      file.findTensor(tensorName(TensorRole::RopeFactors));
  if (!factors)
    return std::nullopt;
  if (factors->rank != 1 || factors->columns() * 2 != config.ropeDim ||
      !blockFormatInfo(factors->format).isFloat())
    return malformed("tensor " + quoted(factors->name) + " was wanted as " +
                         number(config.ropeDim / 2) + " floats",
                     factors->infoOffset);
  config.ropeFreqFactors.resize(factors->columns());
  dequantizeRow(factors->format, factors->data.data(),
                config.ropeFreqFactors.data(), factors->columns());
  for (float factor : config.ropeFreqFactors)
    if (!(factor > 0.0f) || std::isinf(factor))
      return malformed("tensor " + quoted(factors->name) +
                           " holds a factor that is not positive and finite",
                       factors->infoOffset);
  return std::nullopt;
}

} // namespace

//===----------------------------------------------------------------------===//
// Public functions
//===----------------------------------------------------------------------===//

std::vector<std::string_view> modelFamilyNames() {
  std::vector<std::string_view> names;
  for (const ModelFamily &family : kFamilies)
    names.push_back(family.name);
  return names;
}

static ImportResult<ModelConfig> readConfig(const GgufFile &file) {
  ImportResult<const ModelFamily *> found = findFamily(file);
  if (!found.ok())
    return found.error();
  const ModelFamily &family = **found;
  ConfigReader reader(file, family.name);
  if (ImportCheck refused = checkSupported(file, reader))
    return *refused;

  ModelConfig config;
  config.family = family.name;
  config.name = textOr(file, "general.name", family.name);
  config.licence = textOr(file, "general.license", "");
  config.hidden = reader.size("embedding_length", kMaxWidth);
  config.layers = reader.size("block_count", kMaxLayers);
  config.ffn = reader.size("feed_forward_length", kMaxWidth);
  config.context = reader.size("context_length", kMaxContext);
  config.rmsEps = reader.real("attention.layer_norm_rms_epsilon", 0, 1);
  readHeads(reader, config);
  readRope(reader, family, config);
  checkSizes(reader, config);
  if (!reader.error)
    reader.error = readTensorFacts(file, family, reader, config);
  if (reader.error)
    return *reader.error;
  return config;
}

ImportResult<ModelConfig> readModelConfig(const GgufFile &file) {
  return guardMemory([&] { return readConfig(file); });
}

} // namespace quern::importer

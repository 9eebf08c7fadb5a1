// Model families: which metadata keys and tensors make a model. A family is one
// row of a table in ModelFamilies.cpp; no other file names a family.
#ifndef QUERN_COMPILER_IMPORT_MODELFAMILIES_H
#define QUERN_COMPILER_IMPORT_MODELFAMILIES_H

#include "compiler/import/Gguf.h"

#include <array>
#include <span>
#include <string>
#include <vector>

namespace quern::importer {

/// Which elements of a head are rotated together.
enum class RopeMode {
  /// (2i, 2i + 1): the order of llama files, whose q and k rows the converter
  /// permutes.
  Interleaved,
  /// (i, i + ropeDim / 2).
  HalfSplit,
};

/// What a transformer's tensor is for. The first group exists once, the second
/// once per layer.
enum class TensorRole {
  TokenEmbedding, // (vocab, hidden)
  OutputNorm,     // (hidden)
  Output,         // (vocab, hidden); absent when the embedding is tied
  RopeFactors,    // (ropeDim / 2); optional

  AttentionNorm,   // (hidden)
  Query,           // (heads * headDim, hidden)
  Key,             // (kvHeads * headDim, hidden)
  Value,           // (kvHeads * headDim, hidden)
  QueryBias,       // (heads * headDim); only with qkvBias
  KeyBias,         // (kvHeads * headDim); only with qkvBias
  ValueBias,       // (kvHeads * headDim); only with qkvBias
  AttentionOutput, // (hidden, heads * headDim)
  FfnNorm,         // (hidden)
  FfnGate,         // (ffn, hidden)
  FfnUp,           // (ffn, hidden)
  FfnDown,         // (hidden, ffn)
};
inline constexpr int kTensorRoleCount =
    static_cast<int>(TensorRole::FfnDown) + 1;

/// Whether a role exists once per layer.
constexpr bool isLayerRole(TensorRole role) {
  return role >= TensorRole::AttentionNorm;
}

/// Sizes and constants of one model, checked against each other.
struct ModelConfig {
  std::string family; ///< "llama", "qwen2".
  std::string name;   ///< general.name, or the family when the file gives none.
  std::string licence; ///< general.license, empty when the file gives none.
  int64_t vocab = 0;   ///< Rows of the embedding.
  int64_t hidden = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kvHeads = 0; ///< Divides heads.
  int64_t headDim = 0;
  int64_t ropeDim =
      0; ///< Leading elements of a head that are rotated; even, <= headDim.
  double ropeBase = 0;
  RopeMode ropeMode = RopeMode::Interleaved;
  /// Each frequency is divided by its factor (ropeDim / 2); empty: no factors.
  std::vector<float> ropeFreqFactors;
  int64_t ffn = 0;
  int64_t context = 0; ///< Longest context the model was made for, in tokens.
  double rmsEps = 0;
  bool tiedEmbedding = false; ///< The output projection is the embedding.
  bool qkvBias = false;
};

/// The tensors of a model by role; nullptr where the model has none.
struct ModelTensors {
  using ByRole = std::array<const GgufTensor *, kTensorRoleCount>;
  ByRole global{};            ///< Roles that exist once.
  std::vector<ByRole> layers; ///< Roles of each layer, (layers).

  const GgufTensor *get(TensorRole role) const {
    return global[static_cast<int>(role)];
  }
  const GgufTensor *get(TensorRole role, int64_t layer) const {
    return layers[layer][static_cast<int>(role)];
  }
};

/// Names of the supported families, in table order.
std::vector<std::string_view> modelFamilyNames();

/// Name of a role's tensor in a GGUF file: "blk.3.attn_q.weight". `layer` is
/// ignored for roles that exist once.
std::string tensorName(TensorRole role, int64_t layer = 0);

/// Reads and checks the sizes of the model in `file`. Errors: Malformed
/// (missing keys, wrong types, sizes that contradict each other), Unsupported
/// (unknown family, rope scaling, shards).
ImportResult<ModelConfig> readModelConfig(const GgufFile &file);

/// Finds every tensor of the model and checks its shape. Errors: Malformed
/// (missing tensors, wrong shapes), Unsupported (tensors that the family does
/// not define).
ImportResult<ModelTensors> bindTensors(const GgufFile &file,
                                       const ModelConfig &config);

} // namespace quern::importer

#endif // QUERN_COMPILER_IMPORT_MODELFAMILIES_H

// Tensors of a model: their names, shapes and presence.
#include "compiler/import/GgufText.h"
#include "compiler/import/GuardMemory.h"
#include "compiler/import/ModelFamilies.h"

#include <algorithm>

namespace quern::importer {
namespace {

/// Names of tensors in GGUF files, by role; `blk.N.` precedes those of layers.
constexpr std::array<std::string_view, kTensorRoleCount> kTensorNames = {
    "token_embd.weight", "output_norm.weight", "output.weight",
    "rope_freqs.weight", "attn_norm.weight",   "attn_q.weight",
    "attn_k.weight",     "attn_v.weight",      "attn_q.bias",
    "attn_k.bias",       "attn_v.bias",        "attn_output.weight",
    "ffn_norm.weight",   "ffn_gate.weight",    "ffn_up.weight",
    "ffn_down.weight",
};

std::string number(int64_t value) { return std::to_string(value); }

/// Rows and columns of a role's tensor; zero rows: a vector.
struct Shape {
  int64_t rows;
  int64_t columns;
};

Shape shapeOf(TensorRole role, const ModelConfig &config) {
  int64_t q = config.heads * config.headDim;
  int64_t kv = config.kvHeads * config.headDim;
  switch (role) {
  case TensorRole::TokenEmbedding:
  case TensorRole::Output:
    return {config.vocab, config.hidden};
  case TensorRole::OutputNorm:
  case TensorRole::AttentionNorm:
  case TensorRole::FfnNorm:
    return {0, config.hidden};
  case TensorRole::RopeFactors:
    return {0, config.ropeDim / 2};
  case TensorRole::Query:
    return {q, config.hidden};
  case TensorRole::Key:
  case TensorRole::Value:
    return {kv, config.hidden};
  case TensorRole::QueryBias:
    return {0, q};
  case TensorRole::KeyBias:
  case TensorRole::ValueBias:
    return {0, kv};
  case TensorRole::AttentionOutput:
    return {config.hidden, q};
  case TensorRole::FfnGate:
  case TensorRole::FfnUp:
    return {config.ffn, config.hidden};
  case TensorRole::FfnDown:
    return {config.hidden, config.ffn};
  }
  return {0, 0};
}

/// Whether a model of this configuration has a tensor in `role`.
bool hasRole(TensorRole role, const ModelConfig &config) {
  switch (role) {
  case TensorRole::Output:
    return !config.tiedEmbedding;
  case TensorRole::RopeFactors:
    return !config.ropeFreqFactors.empty();
  case TensorRole::QueryBias:
  case TensorRole::KeyBias:
  case TensorRole::ValueBias:
    return config.qkvBias;
  default:
    return true;
  }
}

std::string shapeText(int64_t rows, int64_t columns) {
  return rows ? number(rows) + " x " + number(columns) : number(columns);
}

/// The tensor of `role`, checked against the configuration.
ImportResult<const GgufTensor *> bindTensor(const GgufFile &file,
                                            const ModelConfig &config,
                                            TensorRole role, int64_t layer) {
  std::string name = tensorName(role, layer);
  const GgufTensor *tensor = file.findTensor(name);
  if (!tensor)
    return malformed("tensor " + quoted(name) +
                     " is missing; the file is not a whole model");
  auto [rows, columns] = shapeOf(role, config);
  bool isVector = rows == 0;
  if (tensor->rank != (isVector ? 1 : 2) || tensor->columns() != columns ||
      tensor->rows() != (isVector ? 1 : rows))
    return malformed(
        "tensor " + quoted(name) + " is " +
            shapeText(tensor->rank == 1 ? 0 : tensor->rows(),
                      tensor->columns()) +
            ", " + shapeText(rows, columns) +
            " was wanted by the model's metadata; convert the model again",
        tensor->infoOffset);
  if (isVector && !blockFormatInfo(tensor->format).isFloat())
    return unsupported("tensor " + quoted(name) + " has type " +
                           std::string(blockFormatInfo(tensor->format).name) +
                           "; norms, biases and rope factors are supported as "
                           "f32, f16 and bf16",
                       tensor->infoOffset);
  return tensor;
}

} // namespace

std::string tensorName(TensorRole role, int64_t layer) {
  std::string name(kTensorNames[static_cast<int>(role)]);
  return isLayerRole(role) ? "blk." + number(layer) + "." + name : name;
}

static ImportResult<ModelTensors> bind(const GgufFile &file,
                                       const ModelConfig &config) {
  ModelTensors tensors;
  // A layer has tensors of its own, so the search ends before there are more
  // layers than tensors, whatever number the file claims.
  const auto most = static_cast<int64_t>(file.tensors().size()) + 1;
  tensors.layers.resize(std::min(config.layers, most));
  std::vector<bool> isBound(file.tensors().size());
  for (int r = 0; r < kTensorRoleCount; ++r) {
    auto role = static_cast<TensorRole>(r);
    if (!hasRole(role, config))
      continue;
    int64_t copies = isLayerRole(role) ? config.layers : 1;
    for (int64_t layer = 0; layer < copies; ++layer) {
      ImportResult<const GgufTensor *> tensor =
          bindTensor(file, config, role, layer);
      if (!tensor.ok())
        return tensor.error();
      isBound[*tensor - file.tensors().data()] = true;
      (isLayerRole(role) ? tensors.layers[layer] : tensors.global)[r] = *tensor;
    }
  }
  for (const GgufTensor &tensor : file.tensors())
    if (!isBound[&tensor - file.tensors().data()])
      return unsupported("tensor " + quoted(tensor.name) +
                             " is not part of a " + config.family +
                             " model of " + number(config.layers) + " layers",
                         tensor.infoOffset);
  return tensors;
}

ImportResult<ModelTensors> bindTensors(const GgufFile &file,
                                       const ModelConfig &config) {
  return guardMemory([&] { return bind(file, config); });
}

} // namespace quern::importer

// A whole small model as a GGUF file, with weights of zeros and a tokenizer of eight tokens.
#pragma once

#include <cstdint>
#include <string>

#include "tests/compiler/gguf_builder.h"

namespace quern::testing::gguf {

inline constexpr uint64_t kVocab = 8, kHidden = 64, kFfn = 96, kLayers = 2, kHeads = 4,
                          kKvHeads = 2;
inline constexpr uint64_t kKv = kHidden / kHeads * kKvHeads;

inline void AddMatrix(GgufBuilder& builder, const std::string& name, uint64_t rows,
                      uint64_t columns) {
  builder.tensors.push_back({name, {columns, rows}, /*Q8_0*/ 8, rows * columns / 32 * 34});
}
inline void AddVector(GgufBuilder& builder, const std::string& name, uint64_t size) {
  builder.tensors.push_back({name, {size}, /*F32*/ 0, size * 4});
}

/// A whole small model of `family` with a tied embedding.
inline GgufBuilder SmallModel(const std::string& family) {
  GgufBuilder builder;
  builder.Set("general.architecture", Text(family));
  builder.Set("general.license", Text("apache-2.0"));
  builder.Set(family + ".block_count", U32(kLayers));
  builder.Set(family + ".context_length", U32(512));
  builder.Set(family + ".embedding_length", U32(kHidden));
  builder.Set(family + ".feed_forward_length", U32(kFfn));
  builder.Set(family + ".attention.head_count", U32(kHeads));
  builder.Set(family + ".attention.head_count_kv", U32(kKvHeads));
  builder.Set(family + ".attention.layer_norm_rms_epsilon", F32(1e-5f));
  builder.Set("tokenizer.ggml.model", Text("gpt2"));
  builder.Set("tokenizer.ggml.pre", Text("smollm"));
  builder.Set("tokenizer.ggml.tokens", Texts({"a", "b", "c", "d", "ab", "cd", "<s>", "</s>"}));
  builder.Set("tokenizer.ggml.token_type", I32s({1, 1, 1, 1, 1, 1, 3, 3}));
  builder.Set("tokenizer.ggml.merges", Texts({"a b", "c d"}));
  builder.Set("tokenizer.ggml.bos_token_id", U32(6));
  builder.Set("tokenizer.ggml.eos_token_id", U32(7));
  builder.Set("tokenizer.ggml.add_bos_token", Bool(1));
  AddMatrix(builder, "token_embd.weight", kVocab, kHidden);
  AddVector(builder, "output_norm.weight", kHidden);
  for (uint64_t layer = 0; layer < kLayers; ++layer) {
    std::string blk = "blk." + std::to_string(layer) + ".";
    AddVector(builder, blk + "attn_norm.weight", kHidden);
    AddMatrix(builder, blk + "attn_q.weight", kHidden, kHidden);
    AddMatrix(builder, blk + "attn_k.weight", kKv, kHidden);
    AddMatrix(builder, blk + "attn_v.weight", kKv, kHidden);
    if (family == "qwen2") {
      AddVector(builder, blk + "attn_q.bias", kHidden);
      AddVector(builder, blk + "attn_k.bias", kKv);
      AddVector(builder, blk + "attn_v.bias", kKv);
    }
    AddMatrix(builder, blk + "attn_output.weight", kHidden, kHidden);
    AddVector(builder, blk + "ffn_norm.weight", kHidden);
    AddMatrix(builder, blk + "ffn_gate.weight", kFfn, kHidden);
    AddMatrix(builder, blk + "ffn_up.weight", kFfn, kHidden);
    AddMatrix(builder, blk + "ffn_down.weight", kHidden, kFfn);
  }
  return builder;
}

}  // namespace quern::testing::gguf

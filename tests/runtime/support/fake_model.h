// A made-up model that uses everything a program may contain: shares of unequal size, partial
// results, private copies, paged keys and values, both row classes, moved pointers. Its kernels are
// plain C++ (fake_kernels.cc), given to the executor in place of a code image; a straightforward
// reference computes the same numbers without shares, threads, pages or steps.
//
//   x = table[token] * (1 for prefill, 1.5 for decode)
//   twice:  q = W1 x;  K[slot] = q;  V[slot] = 2 q
//           a[n] = sum over slots s <= own of K[s][n] V[s][n] 0.25 / (s + 1), block by block of
//                  kAttentionBlock slots
//           x += W2 a, summed share by share
//           x += W4 (W3 x), summed share by share
//   logits = head x + bias
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/executor/host_executor.h"
#include "runtime/executor/open_executor.h"
#include "runtime/schema/artifact_generated.h"

namespace quern::testing {

inline constexpr int64_t kHidden = 8;
inline constexpr int64_t kVocab = 272;
inline constexpr int64_t kLayers = 2;
inline constexpr int64_t kContext = 256;
inline constexpr int64_t kPageTokens = 32;

/// A KV head a column of the width, so that shares may cut it anywhere.
inline schema::KvLayer FakeKvLayer() {
  return {2 * kHidden * kPageTokens * 4, kHidden, 1, kPageTokens, schema::KvElement::F32};
}

/// The fake's kernels, in the manifest's order.
enum FakeKernel { kEmbed, kProject, kAppend, kAttend, kReduceInto, kAdd, kSelect, kHead, kKernels };

struct FakeModel {
  schema::ManifestT manifest;
  std::vector<uint8_t> weights;
  /// One entry every 64 bytes: `ret`, but for the head, which sets logit 65 ('A') of row 0 to 1.
  std::vector<uint8_t> code;
  std::vector<uint8_t> tokenizer;
  /// PTX of the GPU targets; see fake_ptx.h.
  std::vector<std::string> ptx;
  // What the reference computes with, as whole matrices (rows, columns).
  std::vector<float> table, head, bias;
  std::vector<float> w[kLayers][4];
};

/// The model cut in `shares` shares. Its one target, "plain", needs no CPU feature; a second one,
/// "future", needs a feature that no machine has.
FakeModel MakeFakeModel(uint32_t shares = 3);

/// The artifact's bytes: fills in segments (with hashes), applies `mutate`, packs the manifest and
/// writes a header that fits it.
std::vector<uint8_t> Assemble(const FakeModel& model,
                              const std::function<void(schema::ManifestT&)>& mutate = {});

/// The kernels in C++, and an executor that has them instead of a target's code.
KernelTable FakeKernelTable();
Result<OpenedExecutor> OpenFakeExecutor(const Artifact& artifact, const ExecutorOptions& options);

/// A tokenizer segment: bytes 0..255, <|end|> 256 (ends an answer), <|user|> 257, and "ab" 258.
std::vector<uint8_t> FakeTokenizer();

/// Logits (tokens, vocab) of one sequence whose token i has role roles[i].
std::vector<float> Reference(const FakeModel& model, std::span<const int32_t> tokens,
                             std::span<const schema::Role> roles);

/// `count` tokens that look random, and depend on `seed`.
std::vector<int32_t> SomeTokens(size_t count, uint32_t seed);

}  // namespace quern::testing

#include <algorithm>
#include <cstring>

#include "runtime/schema/kernel_abi.h"
#include "tests/runtime/support/fake_model.h"

namespace quern::testing {
namespace {

template <typename T>
T* As(void* pointer) {
  return static_cast<T*>(pointer);
}

float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// tokens, table -> x
template <int kScaleHalves>
void Embed(void* const* args, const int64_t*, const int64_t* rows) {
  const auto* tokens = As<const int32_t>(args[0]);
  const auto* table = As<const float>(args[1]);
  auto* x = As<float>(args[2]);
  for (int64_t r = rows[0]; r < rows[1]; ++r) {
    for (int64_t n = 0; n < kHidden; ++n) {
      x[r * kHidden + n] = table[tokens[r] * kHidden + n] * (0.5f * kScaleHalves);
    }
  }
}

/// x, w (rows of this share) -> columns of y
void Project(void* const* args, const int64_t* dims, const int64_t* range) {
  const auto* x = As<const float>(args[0]);
  const auto* w = As<const float>(args[1]);
  auto* y = As<float>(args[2]);
  for (int64_t r = 0; r < dims[kDimRows]; ++r) {
    for (int64_t n = range[0]; n < range[1]; ++n) {
      y[r * kHidden + n] = Dot(x + r * kHidden, w + (n - range[0]) * kHidden, kHidden);
    }
  }
}

/// Column n of the key in slot `slot` of a sequence; that of the value is kPageTokens behind it.
float* KeyOf(void* pool, const int32_t* table, const int64_t* dims, int32_t sequence, int64_t slot,
             int64_t n) {
  const int32_t page = table[sequence * dims[kDimPageTableStride] + slot / kPageTokens];
  char* const head = As<char>(pool) + HostKvOffset(FakeKvLayer(), page, static_cast<uint32_t>(n));
  return reinterpret_cast<float*>(head) + slot % kPageTokens;
}

/// q, slots, sequences, page table -> pages; range segments: columns of K, columns of V. Two
/// threads may write the same bytes at once: one that was absent for long, and one that did its
/// work.
__attribute__((no_sanitize("thread"))) void Append(void* const* args, const int64_t* dims,
                                                   const int64_t* ranges) {
  const auto* q = As<const float>(args[0]);
  const auto* slots = As<const int32_t>(args[1]);
  const auto* sequences = As<const int32_t>(args[2]);
  const auto* table = As<const int32_t>(args[3]);
  for (int64_t r = 0; r < dims[kDimRows]; ++r) {
    for (int64_t n = ranges[0]; n < ranges[1]; ++n) {
      *KeyOf(args[4], table, dims, sequences[r], slots[r], n) = q[r * kHidden + n];
    }
    for (int64_t n = ranges[2]; n < ranges[3]; ++n) {
      float* key = KeyOf(args[4], table, dims, sequences[r], slots[r], n);
      key[kPageTokens] = 2.0f * q[r * kHidden + n];
    }
  }
}

/// What column n of a row in slot `own` sums over block `block` of its context.
float AttendBlock(void* pool, const int32_t* table, const int64_t* dims, int32_t sequence,
                  int64_t own, int64_t n, int64_t block) {
  float sum = 0.0f;
  const int64_t end = std::min(own + 1, (block + 1) * kAttentionBlock);
  for (int64_t s = block * kAttentionBlock; s < end; ++s) {
    const float* k = KeyOf(pool, table, dims, sequence, s, n);
    sum += k[0] * k[kPageTokens] * (0.25f / static_cast<float>(s + 1));
  }
  return sum;
}

/// slots, work items, page table, pages, states -> columns of a; scratch is written to
void Attend(void* const* args, const int64_t* dims, const int64_t*) {
  const auto* slots = As<const int32_t>(args[0]);
  const auto* items = As<const int32_t>(args[1]);
  const auto* table = As<const int32_t>(args[2]);
  auto* a = As<float>(args[4]);
  auto* states = As<float>(args[5]);
  std::memset(args[6], 0xff, kHidden * sizeof(float));
  const int64_t stride = AttentionBlockStride(dims[kDimPageTableStride]);
  const auto attend = [&](const int32_t* item, int64_t r, int64_t n) {
    const int64_t blocks = slots[r] / kAttentionBlock + 1;
    const int32_t kind = item[kWorkKind];
    const int64_t begin = kind == kAttentionPart ? item[kWorkFirstBlock] : 0,
                  end = kind == kAttentionPart ? item[kWorkEndBlock] : blocks;
    float total = 0.0f;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t state = ((r * kHidden + n) * stride + b) * (kAttentionStateLanes + 1);
      const float sum = kind == kAttentionMerge ? states[state]
                                                : AttendBlock(args[3], table, dims,
                                                              item[kWorkSequence], slots[r], n, b);
      if (kind == kAttentionPart) states[state] = sum;
      total += sum;
    }
    if (kind != kAttentionPart) a[r * kHidden + n] = total;
  };
  for (int64_t i = 0; i < dims[kDimAttentionTiles]; ++i) {
    const int32_t* item = items + i * kAttentionWorkFields;
    for (int64_t r = item[kWorkFirstRow]; r < item[kWorkFirstRow] + item[kWorkRows]; ++r) {
      for (int64_t n = item[kWorkFirstHead]; n < item[kWorkEndHead]; ++n) attend(item, r, n);
    }
  }
}

/// columns of a, w (columns of this share) -> this share's partial result
void ReduceInto(void* const* args, const int64_t* dims, const int64_t* range) {
  const auto* a = As<const float>(args[0]);
  const auto* w = As<const float>(args[1]);
  auto* d = As<float>(args[2]);
  const int64_t width = range[1] - range[0];
  for (int64_t r = 0; r < dims[kDimRows]; ++r) {
    for (int64_t n = 0; n < kHidden; ++n) {
      d[r * kHidden + n] = Dot(a + r * kHidden + range[0], w + n * width, width);
    }
  }
}

/// x, partial results -> x. How many there are stands in the first float of the weight.
void Add(void* const* args, const int64_t* dims, const int64_t* rows) {
  auto* x = As<float>(args[0]);
  const auto* d = As<const float>(args[1]);
  const auto shares = static_cast<int64_t>(*As<const float>(args[2]));
  for (int64_t r = rows[0]; r < rows[1]; ++r) {
    for (int64_t n = 0; n < kHidden; ++n) {
      for (int64_t s = 0; s < shares; ++s) {
        x[r * kHidden + n] += d[(s * dims[kDimRows] + r) * kHidden + n];
      }
    }
  }
}

/// x, logit rows -> y
void Select(void* const* args, const int64_t*, const int64_t* rows) {
  const auto* x = As<const float>(args[0]);
  const auto* logit_rows = As<const int32_t>(args[1]);
  auto* y = As<float>(args[2]);
  for (int64_t r = rows[0]; r < rows[1]; ++r) {
    std::memcpy(y + r * kHidden, x + logit_rows[r] * kHidden, kHidden * sizeof(float));
  }
}

/// y, head (rows of this share), bias -> columns of the logits
void Head(void* const* args, const int64_t* dims, const int64_t* range) {
  const auto* y = As<const float>(args[0]);
  const auto* w = As<const float>(args[1]);
  const auto* bias = As<const float>(args[2]);
  auto* logits = As<float>(args[3]);
  for (int64_t r = 0; r < dims[kDimRows]; ++r) {
    for (int64_t n = range[0]; n < range[1]; ++n) {
      const float* row = w + (n - range[0]) * kHidden;
      logits[r * kVocab + n] = Dot(y + r * kHidden, row, kHidden) + bias[n];
    }
  }
}

}  // namespace

KernelTable FakeKernelTable() {
  KernelTable table;
  table.kernels.resize(kKernels);
  table.kernels[kEmbed].entries = {Embed<3>, Embed<2>};  // decode, prefill
  const std::pair<FakeKernel, KernelEntry> others[] = {
      {kProject, Project}, {kAppend, Append}, {kAttend, Attend}, {kReduceInto, ReduceInto},
      {kAdd, Add},         {kSelect, Select}, {kHead, Head},
  };
  for (const auto& [index, entry] : others) table.kernels[index].entries = {entry, entry};
  table.scratch_bytes = kHidden * sizeof(float);
  return table;
}

Result<OpenedExecutor> OpenFakeExecutor(const Artifact& artifact, const ExecutorOptions& options) {
  QUERN_ASSIGN_OR_RETURN(std::unique_ptr<Executor> executor,
                         HostExecutor::Create(Program::Build(artifact.manifest()),
                                              FakeKernelTable(), artifact.weights(), options));
  return OpenedExecutor{std::move(executor), "fake", "cpu"};
}

}  // namespace quern::testing

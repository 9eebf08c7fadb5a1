#include "runtime/executor/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "runtime/device/host/host_memory.h"
#include "runtime/schema/fixed_kv.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {
namespace {

/// Pools in the host's memory.
class HostKvMemory final : public KvMemory {
 public:
  static Result<std::unique_ptr<KvMemory>> Create(std::span<const schema::KvLayer> layers,
                                                  int64_t pages) {
    auto memory = std::make_unique<HostKvMemory>();
    for (const schema::KvLayer& layer : layers) {
      const uint64_t bytes = KvCache::BytesNeeded({&layer, 1}, pages);
      QUERN_ASSIGN_OR_RETURN(HostMemory pool, HostMemory::Allocate(bytes, "keys and values"));
      memory->pools_.push_back(std::move(pool));
    }
    memory->layers_.assign(layers.begin(), layers.end());
    return std::unique_ptr<KvMemory>(std::move(memory));
  }

  std::byte* pool(size_t layer) const override { return pools_[layer].data(); }
  uint64_t page_bytes(size_t layer) const override { return HostKvPageBytes(layers_[layer]); }
  bool starts_zeroed() const override { return true; }
  void Clear(int32_t page) override {
    ForHeads(page, page,
             [](std::byte* to, const std::byte*, size_t bytes) { std::memset(to, 0, bytes); });
  }
  void Copy(int32_t to, int32_t from) override { ForHeads(to, from, std::memcpy); }

 private:
  /// Calls work(head of page `to`, the same of page `from`, bytes) for every KV head of every
  /// layer.
  template <typename Work>
  void ForHeads(int32_t to, int32_t from, const Work& work) const {
    for (size_t i = 0; i < pools_.size(); ++i) {
      const schema::KvLayer& layer = layers_[i];
      const uint64_t head_bytes = page_bytes(i) / layer.kv_heads();
      for (uint32_t head = 0; head < layer.kv_heads(); ++head) {
        work(pool(i) + HostKvOffset(layer, to, head), pool(i) + HostKvOffset(layer, from, head),
             head_bytes);
      }
    }
  }

  std::vector<HostMemory> pools_;        // by layer
  std::vector<schema::KvLayer> layers_;  // by layer
};

Status CheckPages(int64_t pages) {
  if (pages > 0 && pages <= INT32_MAX) return {};
  return UsageError("a KV pool of " + std::to_string(pages) + " pages, wanted 1 to 2^31 - 1");
}

}  // namespace

uint64_t HostKvPageBytes(const schema::KvLayer& layer) {
  if (layer.element() != schema::KvElement::F16) return layer.page_bytes();
  return layer.kv_heads() * FixedKvHeadBytes(layer.head_dim(), layer.page_tokens());
}

uint64_t HostKvOffset(const schema::KvLayer& layer, int32_t page, uint32_t head) {
  const auto number = static_cast<uint64_t>(page);
  const uint64_t page_bytes = HostKvPageBytes(layer);
  const uint64_t head_bytes = page_bytes / layer.kv_heads();
  return number / kKvPageRun * kKvPageRun * page_bytes +
         (head * kKvPageRun + number % kKvPageRun) * head_bytes;
}

uint64_t KvCache::BytesNeeded(std::span<const schema::KvLayer> layers, int64_t pages) {
  uint64_t page_bytes = 0, bytes = 0;
  for (const schema::KvLayer& layer : layers) page_bytes += HostKvPageBytes(layer);
  const uint64_t rounded =
      (static_cast<uint64_t>(pages) + kKvPageRun - 1) / kKvPageRun * kKvPageRun;
  return __builtin_mul_overflow(page_bytes, rounded, &bytes) ? UINT64_MAX : bytes;
}

Result<KvCache> KvCache::Create(std::span<const schema::KvLayer> layers, int64_t pages) {
  QUERN_RETURN_IF_ERROR(CheckPages(pages));
  QUERN_ASSIGN_OR_RETURN(std::unique_ptr<KvMemory> memory, HostKvMemory::Create(layers, pages));
  return Create(layers, pages, std::move(memory));
}

Result<KvCache> KvCache::Create(std::span<const schema::KvLayer> layers, int64_t pages,
                                std::unique_ptr<KvMemory> memory) {
  QUERN_RETURN_IF_ERROR(CheckPages(pages));
  KvCache cache;
  cache.page_tokens_ = layers.empty() ? 32 : layers.front().page_tokens();
  const auto count = static_cast<size_t>(pages);
  cache.owners_.resize(count);
  cache.roles_.resize(count);
  cache.dirty_.assign(count, !memory->starts_zeroed());
  for (int64_t page = pages; page > 0; --page) {
    cache.free_.push_back(static_cast<int32_t>(page - 1));
  }
  cache.memory_ = std::move(memory);
  return cache;
}

int32_t KvCache::Take() {
  const int32_t page = free_.back();
  const auto index = static_cast<size_t>(page);
  free_.pop_back();
  owners_[index] = 1;
  roles_[index] = 0;
  // Kernels read whole pages and mask what lies beyond a row's slot: a NaN left there would survive
  // the masking, so a used page is cleared.
  if (dirty_[index]) memory_->Clear(page);
  dirty_[index] = true;
  return page;
}

void KvCache::Release(int32_t page) {
  if (--owners_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

int32_t KvCache::TakeCopy(int32_t page) {
  const int32_t copy = Take();
  roles_[static_cast<size_t>(copy)] = roles_[static_cast<size_t>(page)];
  memory_->Copy(copy, page);
  return copy;
}

KvSequence::KvSequence(KvSequence&& other) noexcept
    : cache_(other.cache_), pages_(std::exchange(other.pages_, {})) {}

KvSequence& KvSequence::operator=(KvSequence&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(pages_, other.pages_);
  return *this;
}

KvSequence::~KvSequence() { Truncate(0); }

KvSequence KvSequence::Fork() const {
  KvSequence fork(cache_);
  fork.pages_ = pages_;
  for (int32_t page : pages_) cache_->Share(page);
  return fork;
}

Status KvSequence::Prepare(int64_t begin, int64_t end, schema::Role role) {
  if (begin >= end) return {};
  const int64_t page_tokens = cache_->page_tokens();
  const auto first = static_cast<size_t>(begin / page_tokens);
  const auto needed = static_cast<size_t>((end + page_tokens - 1) / page_tokens);
  const size_t kept = std::min(needed, pages_.size());
  int64_t takes = static_cast<int64_t>(needed - kept);
  for (size_t i = first; i < kept; ++i) takes += cache_->owners(pages_[i]) > 1;
  if (takes > cache_->free_pages()) {
    return OutOfMemory("the session has " + std::to_string(cache_->free_pages()) + " of " +
                       std::to_string(cache_->pages()) + " KV pages free and this step needs " +
                       std::to_string(takes) + " (" + std::to_string(page_tokens) +
                       " tokens each); free a sequence or raise kv_tokens");
  }
  for (size_t i = first; i < kept; ++i) {
    if (cache_->owners(pages_[i]) == 1) continue;
    const int32_t copy = cache_->TakeCopy(pages_[i]);
    cache_->Release(pages_[i]);
    pages_[i] = copy;
  }
  while (pages_.size() < needed) pages_.push_back(cache_->Take());
  for (size_t i = first; i < needed; ++i) cache_->AddRole(pages_[i], role);
  return {};
}

void KvSequence::Truncate(int64_t length) {
  const int64_t page_tokens = cache_->page_tokens();
  const auto needed = static_cast<size_t>((length + page_tokens - 1) / page_tokens);
  while (pages_.size() > needed) {
    cache_->Release(pages_.back());
    pages_.pop_back();
  }
}

}  // namespace quern

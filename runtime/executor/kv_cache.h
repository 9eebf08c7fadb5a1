// Keys and values: a pool of pages, and the pages of one sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/schema/artifact_generated.h"

namespace quern {

/// Which numerics wrote (part of) a page: bit `1 << role` for each schema::Role.
using RoleMask = uint8_t;

/// Where pages lie: one pool a layer, on the host or on a device.
class KvMemory {
 public:
  virtual ~KvMemory() = default;
  /// The pool of `layer`, in the address space of what executes kernels.
  virtual std::byte* pool(size_t layer) const = 0;
  /// Bytes of a page of `layer`, all KV heads.
  virtual uint64_t page_bytes(size_t layer) const = 0;
  /// Whether pages that were never cleared are zero.
  virtual bool starts_zeroed() const = 0;
  /// Sets page `page` of every layer to zero.
  virtual void Clear(int32_t page) = 0;
  /// Copies page `from` of every layer to page `to`.
  virtual void Copy(int32_t to, int32_t from) = 0;
};

/// Bytes of a page in the host's memory, all KV heads. Not page_bytes() of the manifest, which are
/// those of a GPU: in 16 bits, hosts hold fixed-point numbers and their scales (fixed_kv.h).
uint64_t HostKvPageBytes(const schema::KvLayer& layer);

/// Bytes from the start of a pool in the host's memory to KV head `head` of page `page`; head h of
/// the next page follows, but for the last of a run of kKvPageRun.
uint64_t HostKvOffset(const schema::KvLayer& layer, int32_t page, uint32_t head);

/// The pages of a session. Page p exists in every layer's pool: on a device at p * page_bytes of
/// that layer, on the host as HostKvOffset says. What is inside a page is the kernels' matter.
/// Pages are counted: a page with several owners is read-only.
class KvCache {
 public:
  /// `layers` are the manifest's. Pages lie in the host's memory. Errors: kOutOfMemory; kUsage when
  /// `pages` is out of range.
  static Result<KvCache> Create(std::span<const schema::KvLayer> layers, int64_t pages);
  /// The same with pages in `memory`, which has `pages` of each layer.
  static Result<KvCache> Create(std::span<const schema::KvLayer> layers, int64_t pages,
                                std::unique_ptr<KvMemory> memory);

  /// Bytes of all layers' pages in the host's memory, in whole runs; saturates.
  static uint64_t BytesNeeded(std::span<const schema::KvLayer> layers, int64_t pages);

  /// Slots of a page.
  int64_t page_tokens() const { return page_tokens_; }
  int64_t pages() const { return static_cast<int64_t>(owners_.size()); }
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  /// The pool of `layer`, and the bytes of a page.
  std::byte* pool(size_t layer) const { return memory_->pool(layer); }
  int64_t page_bytes(size_t layer) const {
    return static_cast<int64_t>(memory_->page_bytes(layer));
  }

  int32_t owners(int32_t page) const { return owners_[static_cast<size_t>(page)]; }
  RoleMask roles(int32_t page) const { return roles_[static_cast<size_t>(page)]; }

 private:
  friend class KvSequence;

  /// A page of zeros with one owner. Precondition: free_pages() > 0.
  int32_t Take();
  void Share(int32_t page) { ++owners_[static_cast<size_t>(page)]; }
  void Release(int32_t page);
  /// A page with one owner and the contents of `page`. Precondition: free_pages() > 0.
  int32_t TakeCopy(int32_t page);
  void AddRole(int32_t page, schema::Role role) {
    roles_[static_cast<size_t>(page)] |= static_cast<RoleMask>(1u << static_cast<unsigned>(role));
  }

  int64_t page_tokens_ = 0;
  std::unique_ptr<KvMemory> memory_;
  std::vector<int32_t> owners_;  // by page
  std::vector<RoleMask> roles_;  // by page
  std::vector<bool> dirty_;      // by page: was in use before, or never cleared
  std::vector<int32_t> free_;    // a stack, the lowest page on top at first
};

/// The page table of one sequence: slot s is slot s % page_tokens of pages()[s / page_tokens].
/// Releases its pages when destroyed; the cache must outlive it.
class KvSequence {
 public:
  explicit KvSequence(KvCache* cache) : cache_(cache) {}
  KvSequence(KvSequence&& other) noexcept;
  KvSequence& operator=(KvSequence&& other) noexcept;
  ~KvSequence();

  /// A second sequence with the same pages.
  KvSequence Fork() const;

  /// Makes slots [begin, end) ready to be written with `role`'s numerics: adds pages, and copies
  /// those in the range that have other owners. Slots below `begin` keep their contents.
  /// Precondition: begin <= pages().size() * page_tokens. Error: kOutOfMemory, and nothing changed.
  Status Prepare(int64_t begin, int64_t end, schema::Role role);

  /// Releases the pages that no slot below `length` needs.
  void Truncate(int64_t length);

  std::span<const int32_t> pages() const { return pages_; }

 private:
  KvCache* cache_;
  std::vector<int32_t> pages_;
};

}  // namespace quern

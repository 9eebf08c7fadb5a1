#include "runtime/executor/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <span>
#include <vector>

#include "runtime/schema/kernel_abi.h"

namespace quern {
namespace {

using schema::Role;

constexpr RoleMask kDecodeBit = 1, kPrefillBit = 2;

/// Bytes of a KV head of the first layer: codes of 4 columns and 3 scales a token; of all heads of
/// the second, in f32.
constexpr uint64_t kFixedHead = 32 * (2 * 4 * 2 + 3 * 4), kFloatPage = 2048;

std::vector<schema::KvLayer> Layers() {
  return {schema::KvLayer(2 * 2 * 4 * 32 * 2, 2, 4, 32, schema::KvElement::F16),
          schema::KvLayer(2 * 1 * 8 * 32 * 4, 1, 8, 32, schema::KvElement::F32)};
}

KvCache Cache(int64_t pages) {
  Result<KvCache> cache = KvCache::Create(Layers(), pages);
  EXPECT_TRUE(cache.ok());
  return std::move(cache).value();
}

/// The bytes of page `page`, of every KV head of every layer.
std::vector<std::span<std::byte>> PiecesOf(const KvCache& cache, int32_t page) {
  std::vector<std::span<std::byte>> pieces;
  for (size_t i = 0; i < Layers().size(); ++i) {
    const schema::KvLayer layer = Layers()[i];
    for (uint32_t head = 0; head < layer.kv_heads(); ++head) {
      pieces.emplace_back(cache.pool(i) + HostKvOffset(layer, page, head),
                          HostKvPageBytes(layer) / layer.kv_heads());
    }
  }
  return pieces;
}

void Fill(const KvCache& cache, int32_t page, int value) {
  for (std::span<std::byte> piece : PiecesOf(cache, page)) {
    std::memset(piece.data(), value, piece.size());
  }
}

bool Holds(const KvCache& cache, int32_t page, int value) {
  for (std::span<std::byte> piece : PiecesOf(cache, page)) {
    for (std::byte byte : piece) {
      if (byte != static_cast<std::byte>(value)) return false;
    }
  }
  return true;
}

TEST(HostKvPageBytes, AddsScalesToSixteenBitsAlone) {
  EXPECT_EQ(HostKvPageBytes(Layers()[0]), 2 * kFixedHead);
  EXPECT_EQ(HostKvPageBytes(Layers()[1]), kFloatPage);
  KvCache cache = Cache(1);
  EXPECT_EQ(cache.page_bytes(0), static_cast<int64_t>(2 * kFixedHead));
}

TEST(HostKvOffset, GivesEveryHeadOfEveryPageItsOwnBytes) {
  const int32_t pages = 2 * kKvPageRun + 1;
  KvCache cache = Cache(pages);
  std::vector<bool> taken(KvCache::BytesNeeded({&Layers()[0], 1}, pages));
  for (int32_t page = 0; page < pages; ++page) {
    for (uint32_t head = 0; head < 2; ++head) {
      const uint64_t at = HostKvOffset(Layers()[0], page, head);
      for (uint64_t i = 0; i < kFixedHead; ++i) {
        ASSERT_LT(at + i, taken.size());
        ASSERT_FALSE(taken[at + i]) << page << ", " << head;
        taken[at + i] = true;
      }
    }
  }
  // A head's pages follow one another within a run.
  EXPECT_EQ(HostKvOffset(Layers()[0], 17, 1), HostKvOffset(Layers()[0], 16, 1) + kFixedHead);
  EXPECT_EQ(HostKvOffset(Layers()[0], 16, 1), 3 * 16 * kFixedHead);
}

TEST(KvSequence, TakesPagesAsSlotsNeedThem) {
  KvCache cache = Cache(5);
  KvSequence sequence(&cache);
  ASSERT_TRUE(sequence.Prepare(0, 1, Role::Prefill).ok());
  EXPECT_EQ(sequence.pages().size(), 1u);
  ASSERT_TRUE(sequence.Prepare(1, 32, Role::Prefill).ok());
  EXPECT_EQ(sequence.pages().size(), 1u);
  ASSERT_TRUE(sequence.Prepare(32, 97, Role::Decode).ok());
  EXPECT_EQ(sequence.pages().size(), 4u);
  EXPECT_EQ(cache.free_pages(), 1);
  sequence.Truncate(33);
  EXPECT_EQ(sequence.pages().size(), 2u);
  EXPECT_EQ(cache.free_pages(), 3);
}

TEST(KvSequence, ReleasesItsPagesAtTheEnd) {
  KvCache cache = Cache(3);
  {
    KvSequence sequence(&cache);
    ASSERT_TRUE(sequence.Prepare(0, 96, Role::Decode).ok());
    KvSequence moved = std::move(sequence);
    EXPECT_EQ(moved.pages().size(), 3u);
    EXPECT_EQ(cache.free_pages(), 0);
  }
  EXPECT_EQ(cache.free_pages(), 3);
}

TEST(KvSequence, ForksShareUntilTheyWrite) {
  KvCache cache = Cache(6);
  KvSequence first(&cache);
  ASSERT_TRUE(first.Prepare(0, 40, Role::Prefill).ok());
  Fill(cache, first.pages()[0], 1);
  Fill(cache, first.pages()[1], 2);
  KvSequence second = first.Fork();
  EXPECT_EQ(cache.free_pages(), 4);
  EXPECT_EQ(cache.owners(first.pages()[0]), 2);

  ASSERT_TRUE(second.Prepare(40, 41, Role::Decode).ok());
  EXPECT_EQ(cache.free_pages(), 3);  // only the partly filled page was copied
  EXPECT_EQ(second.pages()[0], first.pages()[0]);
  EXPECT_NE(second.pages()[1], first.pages()[1]);
  EXPECT_TRUE(Holds(cache, second.pages()[1], 2));
  Fill(cache, second.pages()[1], 3);
  EXPECT_TRUE(Holds(cache, first.pages()[1], 2));

  ASSERT_TRUE(first.Prepare(40, 41, Role::Decode).ok());  // its own again: no copy
  EXPECT_EQ(cache.free_pages(), 3);
  EXPECT_TRUE(Holds(cache, first.pages()[1], 2));
}

TEST(KvSequence, AForkAtAPageBoundaryCopiesNothing) {
  KvCache cache = Cache(4);
  KvSequence first(&cache);
  ASSERT_TRUE(first.Prepare(0, 64, Role::Prefill).ok());
  KvSequence second = first.Fork();
  ASSERT_TRUE(second.Prepare(64, 65, Role::Prefill).ok());
  EXPECT_EQ(cache.free_pages(), 1);
  EXPECT_EQ(second.pages()[1], first.pages()[1]);
}

TEST(KvSequence, RunsOutWithATypedErrorAndNoChange) {
  KvCache cache = Cache(3);
  KvSequence first(&cache);
  ASSERT_TRUE(first.Prepare(0, 40, Role::Prefill).ok());
  KvSequence second = first.Fork();
  const Status status = second.Prepare(40, 65, Role::Decode);  // a copy and a new page; one is free
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory);
  EXPECT_NE(status.message().find("1 of 3 KV pages free and this step needs 2"), std::string::npos)
      << status.message();
  EXPECT_EQ(cache.free_pages(), 1);
  EXPECT_TRUE(std::ranges::equal(second.pages(), first.pages()));
  EXPECT_EQ(cache.roles(first.pages()[1]), kPrefillBit);
  ASSERT_TRUE(second.Prepare(40, 64, Role::Decode).ok());
}

TEST(KvCache, PagesRememberWhoWroteThem) {
  KvCache cache = Cache(4);
  KvSequence first(&cache);
  ASSERT_TRUE(first.Prepare(0, 40, Role::Prefill).ok());
  ASSERT_TRUE(first.Prepare(40, 41, Role::Decode).ok());
  EXPECT_EQ(cache.roles(first.pages()[0]), kPrefillBit);
  EXPECT_EQ(cache.roles(first.pages()[1]), kPrefillBit | kDecodeBit);
  KvSequence second = first.Fork();
  ASSERT_TRUE(second.Prepare(41, 42, Role::Decode).ok());
  EXPECT_EQ(cache.roles(second.pages()[1]), kPrefillBit | kDecodeBit);
  const int32_t page = first.pages()[1];
  first.Truncate(0);
  KvSequence third(&cache);
  ASSERT_TRUE(third.Prepare(0, 1, Role::Decode).ok());
  EXPECT_EQ(third.pages()[0], page);  // the last one released
  EXPECT_EQ(cache.roles(page), kDecodeBit);
}

TEST(KvCache, ReusedPagesAreZeros) {
  KvCache cache = Cache(1);
  KvSequence first(&cache);
  ASSERT_TRUE(first.Prepare(0, 1, Role::Decode).ok());
  Fill(cache, 0, 0xff);  // not-a-numbers
  first.Truncate(0);
  ASSERT_TRUE(first.Prepare(0, 1, Role::Decode).ok());
  EXPECT_TRUE(Holds(cache, 0, 0));
}

TEST(KvCache, RefusesSizesThatCannotBe) {
  EXPECT_EQ(KvCache::Create(Layers(), 0).status().code(), StatusCode::kUsage);
  EXPECT_EQ(KvCache::Create(Layers(), int64_t{1} << 40).status().code(), StatusCode::kUsage);
  EXPECT_EQ(KvCache::BytesNeeded(Layers(), 10), 16 * (2 * kFixedHead + kFloatPage));
  EXPECT_EQ(KvCache::BytesNeeded(Layers(), 17), 32 * (2 * kFixedHead + kFloatPage));
  EXPECT_EQ(KvCache::BytesNeeded(Layers(), INT64_MAX), UINT64_MAX);
}

}  // namespace
}  // namespace quern

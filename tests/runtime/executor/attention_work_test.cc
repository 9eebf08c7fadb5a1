// Who computes what of attention: everything once, by shares that have about as much to do.
#include "runtime/executor/attention_work.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <tuple>
#include <utility>

namespace quern {
namespace {

/// Rows of one sequence: tokens in front of them, and how many they are.
struct Rows {
  int32_t before, count;
};

struct Step {
  explicit Step(const std::vector<Rows>& sequences) {
    for (size_t s = 0; s < sequences.size(); ++s) {
      for (int32_t row = 0; row < sequences[s].count; ++row) {
        if (row % kAttentionTileRows == 0) {
          const auto first = static_cast<int32_t>(slots.size());
          const auto rows =
              static_cast<int32_t>(std::min<int64_t>(kAttentionTileRows, sequences[s].count - row));
          tiles.insert(tiles.end(), {first, rows, static_cast<int32_t>(s), 0});
        }
        slots.push_back(sequences[s].before + row);
      }
    }
  }
  bool small() const { return slots.size() <= kSmallStepRows; }
  std::vector<int32_t> tiles, slots;
};

AttentionCut CutOf(int64_t heads, int64_t kv_heads, int64_t shares) {
  AttentionCut cut;
  cut.group = heads / kv_heads;
  cut.takes_parts = true;
  for (int64_t s = 0; s < shares; ++s) {
    cut.heads.push_back({heads * s / shares, heads * (s + 1) / shares});
  }
  return cut;
}

AttentionWork Deal(const AttentionCut& cut, const Step& step) {
  AttentionWork work;
  work.Deal(cut, step.tiles, step.slots, step.small());
  return work;
}

int64_t BlocksOf(int64_t keys) { return (keys + kAttentionBlock - 1) / kAttentionBlock; }

/// Calls visit(share, item) for all items.
template <typename Visit>
void ForItems(const AttentionCut& cut, const AttentionWork& work, bool merge, const Visit& visit) {
  for (size_t share = 0; share < cut.heads.size(); ++share) {
    for (const AttentionItem& item : work.items(share, merge)) visit(share, item);
  }
}

/// Every row and head is computed once: whole, or all its blocks and then their merge, by the share
/// that reads it.
void ExpectComplete(const AttentionCut& cut, const Step& step, const AttentionWork& work) {
  std::map<std::pair<int64_t, int64_t>, int64_t> whole, merged;       // (row, head) -> times
  std::map<std::tuple<int64_t, int64_t, int64_t>, int64_t> computed;  // (row, head, block)
  const auto for_each = [](const AttentionItem& item, const auto& visit) {
    for (int64_t row = item[kWorkFirstRow]; row < item[kWorkFirstRow] + item[kWorkRows]; ++row) {
      for (int64_t head = item[kWorkFirstHead]; head < item[kWorkEndHead]; ++head) {
        visit(row, head);
      }
    }
  };
  ForItems(cut, work, false, [&](size_t, const AttentionItem& item) {
    ASSERT_GT(item[kWorkRows], 0);
    ASSERT_LT(item[kWorkFirstHead], item[kWorkEndHead]);
    for_each(item, [&](int64_t row, int64_t head) {
      if (item[kWorkKind] == kAttentionWhole) {
        ++whole[{row, head}];
        return;
      }
      ASSERT_EQ(item[kWorkKind], kAttentionPart);
      for (int64_t b = item[kWorkFirstBlock]; b < item[kWorkEndBlock]; ++b) {
        ++computed[{row, head, b}];
      }
    });
  });
  ForItems(cut, work, true, [&](size_t share, const AttentionItem& item) {
    ASSERT_EQ(item[kWorkKind], kAttentionMerge);
    ASSERT_GE(item[kWorkFirstHead], cut.heads[share][0]);
    ASSERT_LE(item[kWorkEndHead], cut.heads[share][1]);
    for_each(item, [&](int64_t row, int64_t head) { ++merged[{row, head}]; });
  });
  EXPECT_EQ(work.merges(), !merged.empty());
  for (size_t at = 0; at < step.tiles.size(); at += kAttentionTileFields) {
    const int32_t first = step.tiles[at], rows = step.tiles[at + 1];
    const int64_t blocks = BlocksOf(step.slots[static_cast<size_t>(first + rows - 1)] + 1);
    for (int64_t row = first; row < first + rows; ++row) {
      for (int64_t head = 0; head < cut.head_count(); ++head) {
        ASSERT_EQ((whole[{row, head}] + merged[{row, head}]), 1) << row << ", " << head;
        for (int64_t b = 0; b < blocks; ++b) {
          ASSERT_EQ((computed[{row, head, b}]), (merged[{row, head}])) << row << ", " << head;
        }
      }
    }
  }
}

/// Keys of heads that each share reads.
std::vector<int64_t> KeysRead(const AttentionCut& cut, const Step& step,
                              const AttentionWork& work) {
  std::vector<int64_t> keys(cut.heads.size());
  ForItems(cut, work, false, [&](size_t share, const AttentionItem& item) {
    const int32_t last = item[kWorkFirstRow] + item[kWorkRows] - 1;
    int64_t end = step.slots[static_cast<size_t>(last)] + 1, begin = 0;
    if (item[kWorkKind] == kAttentionPart) {
      begin = item[kWorkFirstBlock] * kAttentionBlock;
      end = std::min(end, item[kWorkEndBlock] * kAttentionBlock);
    }
    const int64_t kv_heads =
        (item[kWorkEndHead] + cut.group - 1) / cut.group - item[kWorkFirstHead] / cut.group;
    keys[share] += kv_heads * (end - begin);
  });
  return keys;
}

constexpr std::pair<int64_t, int64_t> kHeads[] = {{9, 3}, {14, 2}, {8, 8}, {32, 8}, {7, 1}, {3, 3}};

TEST(AttentionWork, CoversRaggedStepsOnce) {
  std::mt19937 random(1);
  for (const auto& [heads, kv_heads] : kHeads) {
    for (int64_t shares = 1; shares <= 8; ++shares) {
      for (int trial = 0; trial < 30; ++trial) {
        std::vector<Rows> sequences(1 + random() % 4);
        for (Rows& rows : sequences) {
          rows.before = static_cast<int32_t>(random() % (trial % 2 ? 5000 : 700));
          rows.count = trial % 3 ? 1 : static_cast<int32_t>(1 + random() % 50);
        }
        SCOPED_TRACE(::testing::Message()
                     << heads << "/" << kv_heads << ", " << shares << " shares, trial " << trial);
        const AttentionCut cut = CutOf(heads, kv_heads, shares);
        const Step step(sequences);
        const AttentionWork work = Deal(cut, step);
        ExpectComplete(cut, step, work);
        EXPECT_EQ(work.aligned(), shares == 1 || (step.small() && work.aligned()));
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(AttentionWork, SmallStepsWithShortContextsAreAligned) {
  const AttentionCut cut = CutOf(9, 3, 2);
  const Step step({{100, 1}, {7, 2}});
  const AttentionWork work = Deal(cut, step);
  EXPECT_TRUE(work.aligned());
  EXPECT_FALSE(work.merges());
  for (size_t share = 0; share < 2; ++share) {
    ASSERT_EQ(work.items(share, false).size(), 2u);
    const int32_t begin = share ? 4 : 0, end = share ? 9 : 4;
    EXPECT_EQ(work.items(share, false)[0], (AttentionItem{0, 1, 0, begin, end, 0, 0, 0}));
    EXPECT_EQ(work.items(share, false)[1], (AttentionItem{1, 2, 1, begin, end, 0, 0, 0}));
  }
}

TEST(AttentionWork, LargeStepsAreEvenWithinAUnit) {
  for (const auto& [heads, kv_heads] : kHeads) {
    for (int64_t shares = 2; shares <= 8; ++shares) {
      const AttentionCut cut = CutOf(heads, kv_heads, shares);
      const Step step({{3000, 200}, {0, 77}, {512, 1}});
      const AttentionWork work = Deal(cut, step);
      EXPECT_FALSE(work.aligned());
      EXPECT_FALSE(work.merges());
      std::vector<int64_t> pairs(static_cast<size_t>(shares));
      int64_t greatest = 0;
      ForItems(cut, work, false, [&](size_t share, const AttentionItem& item) {
        int64_t unit = 0;
        for (int32_t row = 0; row < item[kWorkRows]; ++row) {
          unit += step.slots[static_cast<size_t>(item[kWorkFirstRow] + row)] + 1;
        }
        pairs[share] += unit;
        greatest = std::max(greatest, unit);
      });
      const auto [least, most] = std::minmax_element(pairs.begin(), pairs.end());
      EXPECT_LE(*most - *least, greatest) << heads << "/" << kv_heads << ", " << shares;
    }
  }
}

TEST(AttentionWork, LongContextsAreCutEvenly) {
  for (const auto& [heads, kv_heads] : kHeads) {
    for (int64_t shares = 2; shares <= 8; ++shares) {
      for (const std::vector<Rows>& sequences :
           {std::vector<Rows>{{4095, 1}}, {{8000, 3}}, {{2000, 1}, {30, 1}, {5000, 2}}}) {
        const AttentionCut cut = CutOf(heads, kv_heads, shares);
        const Step step(sequences);
        const std::vector<int64_t> keys = KeysRead(cut, step, Deal(cut, step));
        int64_t even = 0;  // of a share, were keys cut anywhere
        for (const Rows& rows : sequences) even += kv_heads * (rows.before + rows.count) / shares;
        EXPECT_LE(*std::max_element(keys.begin(), keys.end()), even + 2 * kAttentionBlock)
            << heads << "/" << kv_heads << ", " << shares;
      }
    }
  }
}

TEST(AttentionWork, CutsTheContextOfTheHeadInTheMiddle) {
  const AttentionCut cut = CutOf(9, 3, 2);
  const AttentionWork work = Deal(cut, Step({{4095, 1}}));
  const auto whole = AttentionItem{0, 1, 0, 0, 3, 0, 0, kAttentionWhole};
  const auto items = [&](size_t share, bool merge) {
    const auto span = work.items(share, merge);
    return std::vector<AttentionItem>(span.begin(), span.end());
  };
  EXPECT_EQ(items(0, false),
            (std::vector<AttentionItem>{whole, {0, 1, 0, 3, 6, 0, 4, kAttentionPart}}));
  EXPECT_EQ(items(1, false), (std::vector<AttentionItem>{{0, 1, 0, 3, 6, 4, 8, kAttentionPart},
                                                         {0, 1, 0, 6, 9, 0, 0, kAttentionWhole}}));
  EXPECT_EQ(items(0, true), (std::vector<AttentionItem>{{0, 1, 0, 3, 4, 0, 0, kAttentionMerge}}));
  EXPECT_EQ(items(1, true), (std::vector<AttentionItem>{{0, 1, 0, 4, 6, 0, 0, kAttentionMerge}}));
}

TEST(AttentionWork, WithoutPartsLongContextsStayAligned) {
  AttentionCut cut = CutOf(9, 3, 2);
  cut.takes_parts = false;
  EXPECT_TRUE(Deal(cut, Step({{4095, 1}})).aligned());
}

TEST(AttentionWork, WhatGainsNothingIsNotCut) {
  // Shares read one KV head each: nothing could be more even.
  EXPECT_TRUE(Deal(CutOf(14, 2, 2), Step({{4095, 1}})).aligned());
  // More shares than KV heads all read the same pages.
  EXPECT_FALSE(Deal(CutOf(14, 2, 4), Step({{4095, 1}})).aligned());
  EXPECT_TRUE(Deal(CutOf(14, 2, 4), Step({{511, 1}})).aligned());
}

TEST(AttentionWork, IsDealtOutAnewInEveryStep) {
  const AttentionCut cut = CutOf(9, 3, 3);
  AttentionWork work;
  for (const std::vector<Rows>& sequences :
       {std::vector<Rows>{{4000, 40}}, {{9, 1}}, {{6000, 1}}, {{0, 5}}, {{9, 1}}}) {
    const Step step(sequences);
    work.Deal(cut, step.tiles, step.slots, step.small());
    ExpectComplete(cut, step, work);
  }
  EXPECT_TRUE(work.aligned());
}

}  // namespace
}  // namespace quern

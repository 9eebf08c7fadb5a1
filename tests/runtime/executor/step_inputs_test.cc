#include "runtime/executor/step_inputs.h"

#include <gtest/gtest.h>

#include <numeric>

#include "runtime/schema/kernel_abi.h"

namespace quern {
namespace {

const StepLimits kLimits{.rows = 64, .vocab = 100, .page_tokens = 32, .pages = 10};

/// A step of two sequences: `first` rows of sequence 0 from slot 30, then `second` of sequence 1
/// from slot 0.
struct TwoSequences {
  TwoSequences(int first, int second) {
    for (int i = 0; i < first; ++i) Add(0, 30 + i);
    for (int i = 0; i < second; ++i) Add(1, i);
    input.tokens = tokens;
    input.positions = slots;
    input.slots = slots;
    input.sequences = sequences;
    input.page_tables = tables;
  }
  void Add(int32_t sequence, int32_t slot) {
    tokens.push_back(7);
    slots.push_back(slot);
    sequences.push_back(sequence);
  }
  std::vector<int32_t> tokens, slots, sequences;
  std::vector<int32_t> pages0 = {4, 2, 9}, pages1 = {5};
  std::vector<std::span<const int32_t>> tables = {pages0, pages1};
  StepInput input;
};

TEST(StepInputs, CutsTilesAtSequencesAndAt16Rows) {
  TwoSequences step(37, 3);
  StepInputs inputs;
  const Status status = inputs.Fill(step.input, kLimits);
  ASSERT_TRUE(status.ok()) << status.message();
  const int32_t expected[][4] = {{0, 16, 0, 0}, {16, 16, 0, 0}, {32, 5, 0, 0}, {37, 3, 1, 0}};
  ASSERT_EQ(inputs.attention_tiles(), 4);
  const auto tiles = inputs.array(schema::StepInput::AttentionTiles);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(tiles[i], expected[i / 4][i % 4]) << i;
}

TEST(StepInputs, CutsTilesAtTheTargetsRows) {
  TwoSequences step(37, 3);
  StepLimits limits = kLimits;
  limits.tile_rows = 36;
  StepInputs inputs;
  ASSERT_TRUE(inputs.Fill(step.input, limits).ok());
  const auto tiles = inputs.array(schema::StepInput::AttentionTiles);
  EXPECT_EQ(std::vector<int32_t>(tiles.begin(), tiles.end()),
            (std::vector<int32_t>{0, 36, 0, 0, 36, 1, 0, 0, 37, 3, 1, 0}));
}

TEST(StepInputs, CutsTilesWhereSlotsAreNotConsecutive) {
  TwoSequences step(2, 0);
  step.slots[1] = 40;
  StepInputs inputs;
  ASSERT_TRUE(inputs.Fill(step.input, kLimits).ok());
  EXPECT_EQ(inputs.attention_tiles(), 2);
}

TEST(StepInputs, CountsKeysThatRowsSee) {
  TwoSequences step(2, 3);  // slots 30, 31 and 0, 1, 2
  StepInputs inputs;
  ASSERT_TRUE(inputs.Fill(step.input, kLimits).ok());
  EXPECT_EQ(inputs.CountKeys(0).keys, 32 + 3);
  EXPECT_EQ(inputs.CountKeys(0).pairs, 31 + 32 + 1 + 2 + 3);
  // A window of 2: keys 29 to 31, and all of the other sequence.
  EXPECT_EQ(inputs.CountKeys(2).keys, 3 + 3);
  EXPECT_EQ(inputs.CountKeys(2).pairs, 2 + 2 + 1 + 2 + 2);
}

TEST(StepInputs, PadsPageTablesToTheLongest) {
  TwoSequences step(1, 1);
  StepInputs inputs;
  ASSERT_TRUE(inputs.Fill(step.input, kLimits).ok());
  ASSERT_EQ(inputs.page_table_stride(), 4);  // and to a power of two
  const auto table = inputs.array(schema::StepInput::PageTable);
  EXPECT_EQ(std::vector<int32_t>(table.begin(), table.end()),
            (std::vector<int32_t>{4, 2, 9, 0, 5, 0, 0, 0}));
}

TEST(StepInputs, RefusesMorePagesThanASequenceHas) {
  TwoSequences step(1, 1);  // 3 pages and 1
  StepLimits limits = kLimits;
  limits.sequence_pages = 3;
  StepInputs inputs;
  EXPECT_TRUE(inputs.Fill(step.input, limits).ok());
  limits.sequence_pages = 2;
  const Status status = inputs.Fill(step.input, limits);
  EXPECT_EQ(status.code(), StatusCode::kUsage);
  EXPECT_EQ(status.message(), "a page table of 3 pages, wanted 2 at most");
}

TEST(StepInputs, RefusesWhatKernelsMustNotSee) {
  StepInputs inputs;
  auto expect_usage = [&](const StepInput& input, const char* what) {
    const Status status = inputs.Fill(input, kLimits);
    EXPECT_EQ(status.code(), StatusCode::kUsage) << what;
  };
  expect_usage(TwoSequences(0, 0).input, "no rows");
  TwoSequences many(65, 0);
  expect_usage(many.input, "too many rows");
  for (int32_t token : {-1, 100}) {
    TwoSequences step(2, 2);
    step.tokens[3] = token;
    expect_usage(step.input, "token");
  }
  for (int32_t slot : {-1, 32}) {
    TwoSequences step(2, 2);
    step.slots[3] = slot;
    expect_usage(step.input, "slot");
  }
  TwoSequences sequence(2, 2);
  sequence.sequences[0] = 2;
  expect_usage(sequence.input, "sequence");
  TwoSequences page(2, 2);
  page.pages1[0] = 10;
  expect_usage(page.input, "page");
  TwoSequences long_table(2, 2);
  long_table.pages1.assign(11, 1);
  long_table.tables[1] = long_table.pages1;
  expect_usage(long_table.input, "a table of more pages than there are");
  TwoSequences many_tables(2, 2);
  many_tables.tables.resize(65, many_tables.pages1);
  many_tables.input.page_tables = many_tables.tables;
  expect_usage(many_tables.input, "more tables than rows");
  TwoSequences lengths(2, 2);
  lengths.input.positions = lengths.input.positions.first(3);
  expect_usage(lengths.input, "lengths");

  float logits = 0;
  for (const std::vector<int32_t>& rows : {std::vector<int32_t>{4}, {-1}, {1, 1}, {2, 1}}) {
    TwoSequences step(2, 2);
    step.input.logit_rows = rows;
    step.input.logits = &logits;
    expect_usage(step.input, "logit rows");
  }
  TwoSequences no_memory(2, 2);
  const std::vector<int32_t> row = {0};
  no_memory.input.logit_rows = row;
  expect_usage(no_memory.input, "no memory for logits");
}

}  // namespace
}  // namespace quern

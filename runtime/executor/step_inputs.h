// What one step is given, and the arrays that kernels read it from.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/schema/artifact_generated.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {

/// One step: rows of one or more sequences, all of one role.
struct StepInput {
  schema::Role role = schema::Role::Decode;
  std::span<const int32_t> tokens;     ///< (rows)
  std::span<const int32_t> positions;  ///< (rows)
  /// (rows) index of the row in its sequence. The sequence's slots below must have been written by
  /// earlier steps or earlier rows, and its pages prepared (KvSequence::Prepare).
  std::span<const int32_t> slots;
  /// (rows) index into `page_tables`.
  std::span<const int32_t> sequences;
  /// (sequences) the pages of each.
  std::span<const std::span<const int32_t>> page_tables;
  /// Rows that need logits, ascending; may be empty.
  std::span<const int32_t> logit_rows;
  /// (logit_rows, vocab), the caller's; written when the step returns. Null: the logits stay with
  /// the executor (Executor::kept_rows()).
  float* logits = nullptr;
  /// How many of the best logits of each row are wanted where the executor keeps them; see
  /// Executor::candidates().
  int32_t candidates = 0;
};

/// What a session allows in a step.
struct StepLimits {
  int64_t rows = 0;
  int64_t vocab = 0;
  int64_t page_tokens = 32;
  int64_t pages = 0;
  /// Entries of a page table at most.
  int64_t sequence_pages = pages;
  /// Logit rows that may stay with the executor.
  int64_t kept_rows = 0;
  /// Rows of an attention tile at most.
  int64_t tile_rows = kAttentionTileRows;
};

/// How many keys the rows of a step see.
struct SeenKeys {
  /// Pairs of a row and a key.
  double pairs = 0;
  /// Keys that some row of the step sees.
  double keys = 0;
};

/// The int32 arrays of schema::StepInput, kept from step to step to reuse their memory.
class StepInputs {
 public:
  /// Checks `input` and fills the arrays. Error: kUsage, naming the row.
  Status Fill(const StepInput& input, const StepLimits& limits);

  /// The array of `which`.
  std::span<const int32_t> array(schema::StepInput which) const;

  int64_t rows() const { return static_cast<int64_t>(input_.tokens.size()); }
  int64_t logit_rows() const { return static_cast<int64_t>(input_.logit_rows.size()); }
  int64_t attention_tiles() const;
  /// Entries of the page table a sequence.
  int64_t page_table_stride() const { return stride_; }
  /// Keys seen by rows that see their last `window`; 0: all.
  SeenKeys CountKeys(uint64_t window) const;

 private:
  Status CheckRows(const StepInput& input, const StepLimits& limits) const;
  void FillPageTable();
  void FillTiles(int64_t tile_rows);

  StepInput input_;
  int64_t stride_ = 0;
  std::vector<int32_t> page_table_;
  std::vector<int32_t> tiles_;
};

}  // namespace quern

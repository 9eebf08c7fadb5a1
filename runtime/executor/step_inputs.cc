#include "runtime/executor/step_inputs.h"

#include <algorithm>
#include <bit>
#include <string>

#include "runtime/schema/kernel_abi.h"

namespace quern {
namespace {

Status BadRow(size_t row, const std::string& what) {
  return UsageError("row " + std::to_string(row) + " of the step: " + what);
}

}  // namespace

Status StepInputs::Fill(const StepInput& input, const StepLimits& limits) {
  QUERN_RETURN_IF_ERROR(CheckRows(input, limits));
  input_ = input;
  FillPageTable();
  FillTiles(limits.tile_rows);
  return {};
}

Status StepInputs::CheckRows(const StepInput& input, const StepLimits& limits) const {
  const size_t rows = input.tokens.size();
  if (rows == 0 || static_cast<int64_t>(rows) > limits.rows) {
    return UsageError("a step of " + std::to_string(rows) + " rows, wanted 1 to " +
                      std::to_string(limits.rows));
  }
  if (input.positions.size() != rows || input.slots.size() != rows ||
      input.sequences.size() != rows) {
    return UsageError("positions, slots and sequences of a step must be as many as its " +
                      std::to_string(rows) + " tokens");
  }
  for (size_t row = 0; row < rows; ++row) {
    if (input.tokens[row] < 0 || input.tokens[row] >= limits.vocab) {
      return BadRow(row, "token " + std::to_string(input.tokens[row]) + ", wanted 0 to " +
                             std::to_string(limits.vocab - 1));
    }
    const int32_t sequence = input.sequences[row];
    if (sequence < 0 || static_cast<size_t>(sequence) >= input.page_tables.size()) {
      return BadRow(row, "sequence " + std::to_string(sequence) + " of " +
                             std::to_string(input.page_tables.size()));
    }
    const auto pages = input.page_tables[static_cast<size_t>(sequence)];
    const int64_t slots = static_cast<int64_t>(pages.size()) * limits.page_tokens;
    if (input.slots[row] < 0 || input.slots[row] >= slots || input.positions[row] < 0) {
      return BadRow(row, "slot " + std::to_string(input.slots[row]) + ", position " +
                             std::to_string(input.positions[row]) + ", but pages for " +
                             std::to_string(slots) + " slots");
    }
  }
  if (input.page_tables.size() > static_cast<size_t>(limits.rows)) {
    return UsageError(std::to_string(input.page_tables.size()) + " page tables in a step, wanted " +
                      std::to_string(limits.rows) + " at most");
  }
  for (const auto& pages : input.page_tables) {
    if (static_cast<int64_t>(pages.size()) > limits.sequence_pages) {
      return UsageError("a page table of " + std::to_string(pages.size()) + " pages, wanted " +
                        std::to_string(limits.sequence_pages) + " at most");
    }
    for (int32_t page : pages) {
      if (page < 0 || page >= limits.pages) {
        return UsageError("page " + std::to_string(page) + " in a page table, wanted 0 to " +
                          std::to_string(limits.pages - 1));
      }
    }
  }
  int64_t previous = -1;
  for (int32_t row : input.logit_rows) {
    if (row <= previous || static_cast<size_t>(row) >= rows) {
      return UsageError("logit row " + std::to_string(row) + " of " + std::to_string(rows) +
                        " rows; logit rows must ascend");
    }
    previous = row;
  }
  if (!input.logits && static_cast<int64_t>(input.logit_rows.size()) > limits.kept_rows) {
    return UsageError(std::to_string(input.logit_rows.size()) +
                      " logit rows without memory for logits");
  }
  return {};
}

void StepInputs::FillPageTable() {
  stride_ = 1;
  for (const auto& pages : input_.page_tables) {
    stride_ = std::max(stride_, static_cast<int64_t>(pages.size()));
  }
  // A power of two: launches that were recorded for one step then fit many longer ones.
  stride_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(stride_)));
  page_table_.assign(input_.page_tables.size() * static_cast<size_t>(stride_), 0);
  auto row = page_table_.begin();
  for (const auto& pages : input_.page_tables) {
    std::copy(pages.begin(), pages.end(), row);
    row += stride_;
  }
}

void StepInputs::FillTiles(int64_t tile_rows) {
  tiles_.clear();
  const size_t rows = input_.tokens.size();
  for (size_t first = 0; first < rows;) {
    size_t end = first + 1;
    while (end < rows && static_cast<int64_t>(end - first) < tile_rows &&
           input_.sequences[end] == input_.sequences[first] &&
           input_.slots[end] == input_.slots[end - 1] + 1) {
      ++end;
    }
    tiles_.insert(tiles_.end(), {static_cast<int32_t>(first), static_cast<int32_t>(end - first),
                                 input_.sequences[first], 0});
    first = end;
  }
}

std::span<const int32_t> StepInputs::array(schema::StepInput which) const {
  switch (which) {
    case schema::StepInput::Tokens:
      return input_.tokens;
    case schema::StepInput::Positions:
      return input_.positions;
    case schema::StepInput::Slots:
      return input_.slots;
    case schema::StepInput::RowSequences:
      return input_.sequences;
    case schema::StepInput::PageTable:
      return page_table_;
    case schema::StepInput::AttentionTiles:
      return tiles_;
    case schema::StepInput::LogitRows:
      return input_.logit_rows;
    case schema::StepInput::AttentionStates:  // Nothing that a step is given.
      return {};
  }
  return {};
}

int64_t StepInputs::attention_tiles() const {
  return static_cast<int64_t>(tiles_.size()) / kAttentionTileFields;
}

SeenKeys StepInputs::CountKeys(uint64_t window) const {
  SeenKeys seen;
  const size_t rows = input_.tokens.size();
  for (size_t row = 0; row < rows; ++row) {
    // Runs of rows of a sequence follow one another: what the run before saw is not new.
    const bool goes_on = row > 0 && input_.sequences[row] == input_.sequences[row - 1] &&
                         input_.slots[row] == input_.slots[row - 1] + 1;
    const double length = static_cast<double>(input_.slots[row]) + 1;
    const double visible = window > 0 ? std::min(length, static_cast<double>(window)) : length;
    seen.pairs += visible;
    seen.keys += goes_on ? 1 : visible;
  }
  return seen;
}

}  // namespace quern

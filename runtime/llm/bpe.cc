#include "runtime/llm/bpe.h"

#include <algorithm>

namespace quern {

MergeTable::MergeTable(std::span<const Source> merges, uint32_t vocab)
    : begin_(size_t{vocab} + 1, 0), entries_(merges.size()) {
  for (const Source& merge : merges) ++begin_[merge.left + 1];
  for (size_t i = 1; i < begin_.size(); ++i) begin_[i] += begin_[i - 1];
  std::vector<uint32_t> fill(begin_.begin(), begin_.end() - 1);
  for (uint32_t rank = 0; rank < merges.size(); ++rank) {
    const Source& merge = merges[rank];
    entries_[fill[merge.left]++] = {merge.right, rank, merge.result};
  }
  auto before = [](const Entry& a, const Entry& b) {
    return a.right != b.right ? a.right < b.right : a.rank < b.rank;
  };
  for (size_t left = 0; left < vocab; ++left)
    std::sort(entries_.begin() + begin_[left], entries_.begin() + begin_[left + 1], before);
}

const MergeTable::Entry* MergeTable::Find(uint32_t left, uint32_t right) const {
  const Entry* first = entries_.data() + begin_[left];
  const Entry* last = entries_.data() + begin_[left + 1];
  const Entry* found = std::lower_bound(
      first, last, right, [](const Entry& entry, uint32_t value) { return entry.right < value; });
  return found != last && found->right == right ? found : nullptr;
}

void BpeMerger::Merge(std::span<const uint32_t> tokens, std::vector<int32_t>& out) {
  if (tokens.empty()) return;
  const auto count = static_cast<int32_t>(tokens.size());
  symbols_.clear();
  heap_.clear();
  for (int32_t i = 0; i < count; ++i)
    symbols_.push_back({tokens[i], i - 1, i + 1 < count ? i + 1 : -1, true});
  for (int32_t i = 0; i + 1 < count; ++i) Consider(i);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), Later{});
    const Step step = heap_.back();
    heap_.pop_back();
    Apply(step);
  }
  for (int32_t i = 0; i != -1; i = symbols_[i].next)
    out.push_back(static_cast<int32_t>(symbols_[i].token));
}

/// Queues the merge of the symbol at `position` with the next one, if there is one.
void BpeMerger::Consider(int32_t position) {
  const Symbol& left = symbols_[position];
  const Symbol& right = symbols_[left.next];
  const MergeTable::Entry* merge = merges_.Find(left.token, right.token);
  if (!merge) return;
  heap_.push_back({merge->rank, position, left.token, right.token, merge->result});
  std::push_heap(heap_.begin(), heap_.end(), Later{});
}

/// Does a queued merge unless one of its symbols has changed since.
void BpeMerger::Apply(const Step& step) {
  Symbol& left = symbols_[step.position];
  if (!left.alive || left.token != step.left || left.next == -1) return;
  Symbol& right = symbols_[left.next];
  if (right.token != step.right) return;
  right.alive = false;
  left.token = step.result;
  left.next = right.next;
  if (left.next != -1) {
    symbols_[left.next].previous = step.position;
    Consider(step.position);
  }
  if (left.previous != -1) Consider(left.previous);
}

}  // namespace quern

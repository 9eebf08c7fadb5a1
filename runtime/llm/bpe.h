// Byte pair encoding of one piece of text (Sennrich et al., arXiv:1508.07909), by rank.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace quern {

/// The merges of a tokenizer, found by their two tokens. Immutable.
class MergeTable {
 public:
  struct Entry {
    uint32_t right;
    uint32_t rank;
    uint32_t result;
  };
  struct Source {
    uint32_t left, right, result;
  };

  MergeTable() = default;
  /// `merges` in order of rank, ids below `vocab`. Of two merges of one pair the first counts.
  MergeTable(std::span<const Source> merges, uint32_t vocab);

  /// The merge of `left` and `right`, or null. O(log n).
  const Entry* Find(uint32_t left, uint32_t right) const;

 private:
  std::vector<uint32_t> begin_;  // (vocab + 1): where the merges of each left token begin
  std::vector<Entry> entries_;   // by left token, right token, rank
};

/// Merges `tokens`, lowest rank first and leftmost of equals, until no merge applies.
/// O(n log n) time. The scratch is kept between pieces.
class BpeMerger {
 public:
  explicit BpeMerger(const MergeTable& merges) : merges_(merges) {}

  /// Appends what `tokens` become to `out`.
  void Merge(std::span<const uint32_t> tokens, std::vector<int32_t>& out);

 private:
  struct Symbol {
    uint32_t token;
    int32_t previous, next;  // -1: none
    bool alive;
  };
  struct Step {
    uint32_t rank;
    int32_t position;
    uint32_t left, right, result;
  };
  struct Later {
    bool operator()(const Step& a, const Step& b) const {
      return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
    }
  };

  void Consider(int32_t position);
  void Apply(const Step& step);

  const MergeTable& merges_;
  std::vector<Symbol> symbols_;
  std::vector<Step> heap_;
};

}  // namespace quern

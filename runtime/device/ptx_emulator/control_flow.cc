// Immediate post-dominators (Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm", on the
// reversed graph).
#include <algorithm>

#include "runtime/device/ptx_emulator/program.h"

namespace quern::ptx {
namespace {

class PostDominators {
 public:
  explicit PostDominators(Code& code) : code_(code) {}

  void Run() {
    FindBlocks();
    FindOrder();
    Solve();
    for (uint32_t block = 0; block < Exit(); ++block) {
      Inst& last = code_.insts[End(block) - 1];
      if (last.flow != Inst::Flow::kBranch || last.guard < 0) continue;
      const int32_t meet = dominator_[block];
      last.reconverge = meet < 0 || static_cast<uint32_t>(meet) == Exit() ? Size() : begins_[meet];
    }
  }

 private:
  uint32_t Size() const { return static_cast<uint32_t>(code_.insts.size()); }
  uint32_t Exit() const { return static_cast<uint32_t>(begins_.size()); }
  uint32_t End(uint32_t block) const { return block + 1 < Exit() ? begins_[block + 1] : Size(); }
  uint32_t BlockAt(uint32_t inst) const { return inst < Size() ? block_of_[inst] : Exit(); }

  void FindBlocks() {
    std::vector<bool> leads(Size() + 1, false);
    leads[0] = true;
    for (uint32_t i = 0; i < Size(); ++i) {
      if (code_.insts[i].flow == Inst::Flow::kNext) continue;
      if (code_.insts[i].flow == Inst::Flow::kBranch) leads[code_.insts[i].target] = true;
      leads[i + 1] = true;
    }
    block_of_.resize(Size());
    for (uint32_t i = 0; i < Size(); ++i) {
      if (leads[i]) begins_.push_back(i);
      block_of_[i] = Exit() - 1;
    }
    successors_.resize(Exit());
    predecessors_.resize(Exit() + 1);
    for (uint32_t block = 0; block < Exit(); ++block) {
      const Inst& last = code_.insts[End(block) - 1];
      auto& next = successors_[block];
      if (last.flow == Inst::Flow::kExit) next.push_back(Exit());
      if (last.flow == Inst::Flow::kBranch) next.push_back(BlockAt(last.target));
      if (last.flow == Inst::Flow::kNext || last.guard >= 0) next.push_back(BlockAt(End(block)));
      for (uint32_t successor : next) predecessors_[successor].push_back(block);
    }
  }

  /// Postorder of the reversed graph, from the exit.
  void FindOrder() {
    number_.assign(Exit() + 1, -1);
    std::vector<bool> seen(Exit() + 1, false);
    std::vector<std::pair<uint32_t, size_t>> stack = {{Exit(), 0}};
    seen[Exit()] = true;
    while (!stack.empty()) {
      auto& [block, next] = stack.back();
      if (next < predecessors_[block].size()) {
        const uint32_t before = predecessors_[block][next++];
        if (!seen[before]) {
          seen[before] = true;
          stack.emplace_back(before, 0);
        }
        continue;
      }
      number_[block] = static_cast<int32_t>(order_.size());
      order_.push_back(block);
      stack.pop_back();
    }
  }

  uint32_t Intersect(uint32_t a, uint32_t b) const {
    while (a != b) {
      while (number_[a] < number_[b]) a = static_cast<uint32_t>(dominator_[a]);
      while (number_[b] < number_[a]) b = static_cast<uint32_t>(dominator_[b]);
    }
    return a;
  }

  void Solve() {
    dominator_.assign(Exit() + 1, -1);
    dominator_[Exit()] = static_cast<int32_t>(Exit());
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t i = order_.size() - 1; i-- > 0;) {
        const uint32_t block = order_[i];
        int32_t best = -1;
        for (uint32_t next : successors_[block])
          if (number_[next] >= 0 && dominator_[next] >= 0)
            best = best < 0 ? static_cast<int32_t>(next)
                            : static_cast<int32_t>(Intersect(static_cast<uint32_t>(best), next));
        if (best != dominator_[block]) {
          dominator_[block] = best;
          changed = true;
        }
      }
    }
  }

  Code& code_;
  std::vector<uint32_t> begins_, block_of_, order_;
  std::vector<std::vector<uint32_t>> successors_, predecessors_;
  std::vector<int32_t> number_, dominator_;
};

}  // namespace

void FindReconvergence(Code& code) {
  if (!code.insts.empty()) PostDominators(code).Run();
}

}  // namespace quern::ptx

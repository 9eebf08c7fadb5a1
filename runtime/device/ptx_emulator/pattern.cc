#include "runtime/device/ptx_emulator/pattern.h"

#include <map>

namespace quern::ptx {
namespace {

/// The opcode of a pattern: what stands before its first modifier.
std::string_view OpcodeOf(std::string_view pattern) {
  return pattern.substr(0, pattern.find_first_of(".(["));
}

struct Matcher {
  const std::vector<std::string>& modifiers;
  Match& match;
  size_t& reached;

  bool From(std::string_view pattern, size_t at) {
    reached = std::max(reached, at);
    if (pattern.empty()) return at == modifiers.size();
    const char open = pattern.front();
    if (open == '.') {
      const size_t end = std::min(pattern.find_first_of(".([", 1), pattern.size());
      return at < modifiers.size() && modifiers[at] == pattern.substr(0, end) &&
             From(pattern.substr(end), at + 1);
    }
    const size_t close = pattern.find(open == '(' ? ')' : ']');
    std::string_view choices = pattern.substr(1, close - 1);
    const std::string_view rest = pattern.substr(close + 1);
    while (at < modifiers.size() && !choices.empty()) {
      const size_t bar = std::min(choices.find('|'), choices.size());
      if (modifiers[at] == choices.substr(0, bar)) {
        match.groups.push_back(modifiers[at]);
        if (From(rest, at + 1)) return true;
        match.groups.pop_back();
      }
      choices.remove_prefix(std::min(bar + 1, choices.size()));
    }
    if (open == '(') return false;
    match.groups.emplace_back();
    if (From(rest, at)) return true;
    match.groups.pop_back();
    return false;
  }
};

const std::multimap<std::string_view, const Row*>& Index() {
  static const auto* const kIndex = [] {
    auto* index = new std::multimap<std::string_view, const Row*>;
    for (const Row* row : AllRows()) index->emplace(OpcodeOf(row->pattern), row);
    return index;
  }();
  return *kIndex;
}

}  // namespace

bool MatchPattern(std::string_view pattern, const std::vector<std::string>& modifiers, Match& match,
                  size_t& reached) {
  match.groups.clear();
  return Matcher{modifiers, match, reached}.From(pattern.substr(OpcodeOf(pattern).size()), 0);
}

std::vector<const Row*> AllRows() {
  std::vector<const Row*> all;
  for (auto rows :
       {IntegerRows(), CarryRows(), FloatRows(), HalfRows(), CompareRows(), ConvertRows(),
        MoveRows(), MemoryRows(), AtomicRows(), WarpRows(), BarrierRows(), MbarrierRows(),
        AsyncCopyRows(), TensorCopyRows(), MatrixRows(), WgmmaRows(), Tcgen05Rows()})
    for (const Row& row : rows) all.push_back(&row);
  return all;
}

Result<const Row*> FindRow(const AstInstruction& instruction, Match& match) {
  size_t reached = 0;
  const auto [begin, end] = Index().equal_range(instruction.opcode);
  for (auto it = begin; it != end; ++it)
    if (MatchPattern(it->second->pattern, instruction.modifiers, match, reached)) return it->second;
  std::string message = "PTX line " + std::to_string(instruction.line) + ": `" +
                        instruction.Name() + "`: the emulator has no ";
  if (begin == end)
    message += "instruction `" + instruction.opcode + "`";
  else if (reached < instruction.modifiers.size())
    message += "`" + instruction.modifiers[reached] + "` there";
  else
    message += "`" + instruction.opcode + "` without a further modifier";
  return Unsupported(message);
}

}  // namespace quern::ptx

#include "tests/runtime/device/ptx_emulator/instruction_coverage.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "runtime/device/ptx_emulator/pattern.h"

namespace quern::ptx {
namespace {

/// The choices of a pattern, group by group, without what an optional group leaves out.
std::vector<std::vector<std::string>> ChoicesOf(const std::string& pattern) {
  std::vector<std::vector<std::string>> groups;
  for (size_t at = pattern.find_first_of("(["); at != std::string::npos;
       at = pattern.find_first_of("([", at + 1)) {
    std::string word;
    groups.emplace_back();
    for (++at; pattern[at] != ')' && pattern[at] != ']'; ++at) {
      if (pattern[at] == '|')
        groups.back().push_back(std::exchange(word, {}));
      else
        word += pattern[at];
    }
    groups.back().push_back(word);
  }
  return groups;
}

/// "mma.sync.aligned" -> {"mma", ".sync", ".aligned"}; "shared::cta" is one word.
AstInstruction Parse(const std::string& name) {
  AstInstruction instruction;
  const size_t dot = std::min(name.find('.'), name.size());
  instruction.opcode = name.substr(0, dot);
  for (size_t at = dot; at < name.size();) {
    const size_t end = std::min(name.find('.', at + 1), name.size());
    instruction.modifiers.push_back(name.substr(at, end - at));
    at = end;
  }
  return instruction;
}

class Executed {
 public:
  void Note(const std::string& name) {
    const std::lock_guard lock(mutex_);
    if (!names_.insert(name).second) return;
    const AstInstruction instruction = Parse(name);
    Match match;
    const Result<const Row*> row = FindRow(instruction, match);
    if (!row.ok()) return;  // bra, ret, exit have no row.
    auto& groups = rows_[*row];
    groups.resize(match.groups.size());
    for (size_t i = 0; i < match.groups.size(); ++i) groups[i].emplace(match.groups[i]);
  }

  /// Rows of the tables that were never executed, by their patterns.
  std::vector<std::string> MissingRows() const {
    std::vector<std::string> missing;
    for (const Row* row : AllRows())
      if (!rows_.count(row)) missing.push_back(row->pattern);
    return missing;
  }

  /// "PATTERN with MODIFIER" of the rows that were executed.
  std::vector<std::string> MissingModifiers() const {
    std::vector<std::string> missing;
    for (const auto& [row, groups] : rows_) {
      const auto choices = ChoicesOf(row->pattern);
      for (size_t i = 0; i < choices.size(); ++i)
        for (const std::string& choice : choices[i])
          if (!groups[i].count(choice)) missing.push_back(row->pattern + " with " + choice);
    }
    return missing;
  }

 private:
  std::mutex mutex_;
  std::set<std::string> names_;
  std::map<const Row*, std::vector<std::set<std::string>>> rows_;
};

Executed& TheExecuted() {
  static auto* const kExecuted = new Executed;
  return *kExecuted;
}

class Check : public ::testing::Environment {
 public:
  void TearDown() override {
    if (GTEST_FLAG_GET(filter) != "*") return;
    if (std::getenv("QUERN_SHOW_COVERAGE"))
      for (const std::string& each : TheExecuted().MissingModifiers())
        std::printf("not executed: %s\n", each.c_str());
    for (const std::string& each : TheExecuted().MissingRows())
      ADD_FAILURE() << "no test executes " << each;
  }
};

[[maybe_unused]] const auto* const kCheck = ::testing::AddGlobalTestEnvironment(new Check);

}  // namespace

void NoteExecuted(const char* instruction) { TheExecuted().Note(instruction); }

void NoteExecuted(const LaunchReport& report) {
  for (const auto& [name, count] : report.by_opcode)
    if (count > 0) TheExecuted().Note(name);
}

}  // namespace quern::ptx

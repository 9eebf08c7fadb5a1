// Matching the name of an instruction against the patterns of the tables.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {

/// Whether `modifiers` fit `pattern`, whose opcode has been compared already. `reached` becomes at
/// least the number of modifiers that fitted some beginning.
bool MatchPattern(std::string_view pattern, const std::vector<std::string>& modifiers, Match& match,
                  size_t& reached);

/// The first row for the instruction, of all tables. Error: UNSUPPORTED, naming what is unknown.
Result<const Row*> FindRow(const AstInstruction& instruction, Match& match);

/// Every row of every table.
std::vector<const Row*> AllRows();

}  // namespace quern::ptx

// `quern --help`.
#pragma once

#include <string>

namespace quern::tools {

/// Commands, exit codes and where to read on.
std::string GeneralHelp();

}  // namespace quern::tools

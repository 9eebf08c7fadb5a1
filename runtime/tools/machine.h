// This machine, and where the compiler is.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace quern::tools {

/// What quern_doctor says.
nlohmann::ordered_json DescribeMachine();

/// Path of the binary that holds `compile` and `import`: quern-compile beside this program, or in
/// ../libexec/quern. Empty when there is none that can be executed.
std::string FindCompiler();

}  // namespace quern::tools

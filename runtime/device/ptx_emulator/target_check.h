// Which targets have an instruction.
#pragma once

#include <string>
#include <string_view>

#include "runtime/device/ptx_emulator/ast.h"

namespace quern::ptx {

/// What `target` (".target" of the module, such as "sm_80") lacks to execute `instruction`: "needs
/// sm_89 or later, and the module is for sm_80"; "" where nothing is known against it.
std::string MissingFrom(std::string_view target, const AstInstruction& instruction);

}  // namespace quern::ptx

// Which instructions of the tables the tests of this binary execute.
#pragma once

#include "runtime/device/ptx_emulator/emulator.h"

namespace quern::ptx {

/// Notes what a launch with LaunchOptions::coverage executed. When all tests of the binary have
/// run, an instruction, or a modifier of one, that none of them executed is a failure.
void NoteExecuted(const LaunchReport& report);
/// Notes an instruction that ends the launch it is in.
void NoteExecuted(const char* instruction);

}  // namespace quern::ptx

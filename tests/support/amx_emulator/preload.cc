// The emulator as a shared library for LD_PRELOAD: programs under test need no change. It tells
// them by QUERN_AMX_EMULATOR=1 that AMX code will run although CPUID knows nothing of it.
#include <cstdlib>

#include "tests/support/amx_emulator/amx_emulator.h"

namespace {

__attribute__((constructor)) void InstallAtLoad() {
  if (!quern::HasHardwareAmx() && quern::InstallAmxEmulator()) setenv("QUERN_AMX_EMULATOR", "1", 1);
}

}  // namespace

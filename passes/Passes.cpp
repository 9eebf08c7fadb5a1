//===- Passes.cpp - Registration of every pass ----------------------------===//
#include "passes/Passes.h"

namespace quern {
namespace generated {
#define GEN_PASS_REGISTRATION
#include "passes/Passes.h.inc"
} // namespace generated

void registerPasses() { generated::registerQuernPasses(); }

} // namespace quern

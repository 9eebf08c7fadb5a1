//===- InsertJoins.h - Where threads must meet ------------------*- C++ -*-===//
#ifndef QUERN_PASSES_CONVERSION_INSERTJOINS_H
#define QUERN_PASSES_CONVERSION_INSERTJOINS_H

#include "dialects/rt/Rt.h"

namespace quern {

/// Puts an `rt.join` before every dispatch that touches what another thread may
/// still write or read (docs/architecture.md, section 5). Lists follow one
/// another as in a step: prologue, blocks in any order, epilogue.
void insertJoins(rt::ProgramOp program);

} // namespace quern

#endif // QUERN_PASSES_CONVERSION_INSERTJOINS_H

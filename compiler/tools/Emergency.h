//===- Emergency.h - Ends that no code can return from ----------*- C++ -*-===//
//
// LLVM and MLIR are built without exceptions and end the process when memory is
// used up; a mapped model file that becomes shorter raises SIGBUS wherever it
// is read. Either way the command ends with its error line and its exit code,
// and no temporary file stays behind.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_TOOLS_EMERGENCY_H
#define QUERN_COMPILER_TOOLS_EMERGENCY_H

namespace quern {

/// Installs the handlers. `verb` ("compile", or empty) is named in messages and
/// must live as long as the process; `json`: standard output gets the error as
/// an object too. Call once, before anything that allocates.
void installEmergencyExits(const char *verb, bool json);

} // namespace quern

#endif // QUERN_COMPILER_TOOLS_EMERGENCY_H

// Operands of PTX instructions.
#pragma once

#include "runtime/device/ptx_emulator/ast.h"
#include "runtime/device/ptx_emulator/token_cursor.h"

namespace quern::ptx {

/// Reads one operand: %r1, !%p1, %tid.x, 42, 0f3F800000, _, {a, b}, [base+4, {x, y}], d|p.
/// Error: MALFORMED.
Status ParseOperand(TokenCursor& cursor, AstOperand& operand);

/// Reads a number, perhaps with a minus. Error: MALFORMED.
Status ParseConstant(TokenCursor& cursor, AstOperand& operand);

}  // namespace quern::ptx

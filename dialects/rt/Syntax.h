//===- Syntax.h - Parts of the rt assembly format ---------------*- C++ -*-===//
#ifndef QUERN_DIALECTS_RT_SYNTAX_H
#define QUERN_DIALECTS_RT_SYNTAX_H

#include "dialects/rt/Rt.h"

namespace quern::rt {

/// A dispatch's arguments, `(buffer @x, kv, step tokens)`.
mlir::ParseResult parseArgs(mlir::OpAsmParser &parser, mlir::ArrayAttr &args);
void printArgs(mlir::OpAsmPrinter &printer, mlir::Operation *op,
               mlir::ArrayAttr args);

} // namespace quern::rt

#endif // QUERN_DIALECTS_RT_SYNTAX_H

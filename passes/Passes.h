//===- Passes.h - Every pass -----------------------------------*- C++ -*-===//
//
// Passes.td lists them, with what each does; docs/phases.md says when each runs
// and docs/adding-a-pass.md how to write one.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_PASSES_PASSES_H
#define QUERN_PASSES_PASSES_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace quern {

#define GEN_PASS_DECL
#include "passes/Passes.h.inc"

/// Makes every pass known by its flag: to quern-opt and to textual pipelines.
void registerPasses();

} // namespace quern

#endif // QUERN_PASSES_PASSES_H

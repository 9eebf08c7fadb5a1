//===- ImportLm.h - Model files as lm modules -------------------*- C++ -*-===//
//
// Builds the module that docs/architecture.md (section 1) describes from a
// model's sizes and the types of its tensors. Weight bytes are not touched.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_IMPORT_IMPORTLM_H
#define QUERN_COMPILER_IMPORT_IMPORTLM_H

#include "compiler/import/ModelFamilies.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

namespace quern::importer {

/// Tokens of a KV page. The kernels' contract, see docs/architecture.md.
inline constexpr int64_t kKvPageTokens = 32;

/// The model as an lm module: prologue, one body per distinct signature of
/// weight types, epilogue and layer table. `context` has the dialects loaded.
mlir::OwningOpRef<mlir::ModuleOp> importLm(mlir::MLIRContext *context,
                                           const ModelConfig &config,
                                           const ModelTensors &tensors);

} // namespace quern::importer

#endif // QUERN_COMPILER_IMPORT_IMPORTLM_H

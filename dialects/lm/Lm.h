//===- Lm.h - The dialect of language models --------------------*- C++ -*-===//
//
// Types, attributes and ops of the lm dialect (docs/spec.md), and the few
// questions about types that passes and generators share.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_DIALECTS_LM_LM_H
#define QUERN_DIALECTS_LM_LM_H

#include "dialects/lm/BlockFormat.h"
#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include <optional>

#include "dialects/lm/LmDialect.h.inc"
#include "dialects/lm/LmEnums.h.inc"
#define GET_ATTRDEF_CLASSES
#include "dialects/lm/LmAttrs.h.inc"
#define GET_TYPEDEF_CLASSES
#include "dialects/lm/LmTypes.h.inc"
#define GET_OP_CLASSES
#include "dialects/lm/LmOps.h.inc"

namespace quern::lm {

/// The storage format of elements of `type` (an element type or a tensor):
/// block types, f32, f16 and bf16; none for any other type.
std::optional<BlockFormat> formatOf(mlir::Type type);

/// The element type that stores `format`: builtin for float formats, a block
/// type for the others.
mlir::Type elementTypeOf(mlir::MLIRContext *context, BlockFormat format);

/// Columns of a KV head whose int8 codes share a scale.
inline constexpr int64_t kKvScaleColumns = 32;

/// Whether `type` is a tensor of quantized activations (a8).
bool isQuantizedActivations(mlir::Type type);

/// Whether `op` is attention, in whichever form.
inline bool isAttention(mlir::Operation &op) {
  return mlir::isa<AttentionOp, OnlineAttentionOp>(op);
}

/// The format in which matmuls over a weight of `format` read activations,
/// unless they are to be precise (f32): a8 beside quantized weights, f16 beside
/// floats.
BlockFormat activationFormatFor(BlockFormat format);

/// Checks a kernel's region against its signature: block arguments are
/// `inputs`, only lm ops and constants inside, the terminator yields `outputs`,
/// and products split along k find ranges. Shared by lm.kernel and rt.kernel.
mlir::LogicalResult verifyKernelBody(mlir::Operation *op, mlir::Region &body,
                                     mlir::TypeRange inputs,
                                     mlir::TypeRange outputs);

/// Checks a `tiles` dictionary (null is fine): every value is a #lm.tile.
mlir::LogicalResult verifyTiles(mlir::Operation *op,
                                mlir::DictionaryAttr tiles);

} // namespace quern::lm

#endif // QUERN_DIALECTS_LM_LM_H

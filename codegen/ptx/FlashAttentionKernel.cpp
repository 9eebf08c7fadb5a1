#include "codegen/ptx/Kernel.h"
namespace quern::nvptx {
bool matchesFlashAttention(Kernel &) { return false; }
mlir::LogicalResult generateFlashAttention(Kernel &) { return mlir::failure(); }
} // namespace quern::nvptx

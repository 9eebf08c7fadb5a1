#include "codegen/ptx/Kernel.h"
namespace quern::nvptx {
bool matchesTensorMatmul(Kernel &) { return false; }
mlir::LogicalResult generateTensorMatmul(Kernel &) { return mlir::failure(); }
} // namespace quern::nvptx

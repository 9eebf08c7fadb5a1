#include "codegen/ptx/Kernel.h"
namespace quern::ptx {
bool matchesTensorMatmul(Kernel &) { return false; }
mlir::LogicalResult generateTensorMatmul(Kernel &) { return mlir::failure(); }
} // namespace quern::ptx

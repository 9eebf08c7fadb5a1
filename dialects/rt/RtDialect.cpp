//===- RtDialect.cpp - Registration and sizes of rows ---------------------===//
#include "dialects/rt/Rt.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"

using namespace mlir;
using namespace quern;
using namespace quern::rt;

#include "dialects/rt/RtDialect.cpp.inc"

void RtDialect::initialize() {
  registerAttributes();
  addOperations<
#define GET_OP_LIST
#include "dialects/rt/RtOps.cpp.inc"
      >();
}

int64_t rt::activationRowBytes(int64_t columns) {
  return (2 * columns + 63) / 64 * 64;
}

std::optional<int64_t> rt::bytesPerRow(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  if (!tensor || tensor.getRank() < 2 ||
      tensor.isDynamicDim(tensor.getRank() - 1))
    return std::nullopt;
  const int64_t columns = tensor.getShape().back();
  if (lm::isQuantizedActivations(type))
    return activationRowBytes(columns);
  // Rows of f16 and e4m3 are an accelerator's; a host has f32 in their place.
  std::optional<BlockFormat> format = lm::formatOf(type);
  if (!(format == BlockFormat::F32 || format == BlockFormat::F16 ||
        format == BlockFormat::E4M3) ||
      !tensor.isDynamicDim(tensor.getRank() - 2))
    return std::nullopt;
  return columns * static_cast<int64_t>(sizeof(float));
}

int64_t rt::copiesOf(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor && tensor.getRank() == 3 ? tensor.getDimSize(0) : 1;
}

//===- LmTypes.cpp - Types of the lm dialect ------------------------------===//
#include "dialects/lm/Lm.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/IR/TypeUtilities.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace quern;
using namespace quern::lm;

static ParseResult parseFormat(AsmParser &parser, BlockFormat &format) {
  StringRef name;
  SMLoc loc = parser.getCurrentLocation();
  if (parser.parseKeyword(&name))
    return failure();
  std::optional<BlockFormat> parsed = quern::parseBlockFormat(name);
  if (!parsed)
    return parser.emitError(loc, "unknown block format '") << name << "'";
  format = *parsed;
  return success();
}

static void printFormat(AsmPrinter &printer, BlockFormat format) {
  std::string_view name = blockFormatInfo(format).name;
  printer << StringRef(name.data(), name.size());
}

#define GET_TYPEDEF_CLASSES
#include "dialects/lm/LmTypes.cpp.inc"

void LmDialect::registerTypes() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "dialects/lm/LmTypes.cpp.inc"
      >();
}

LogicalResult BlockType::verify(function_ref<InFlightDiagnostic()> emitError,
                                BlockFormat format) {
  if (blockFormatInfo(format).isFloat())
    return emitError() << "expected a block format, but f32, f16 and bf16 are "
                          "builtin types";
  return success();
}

LogicalResult KvCacheType::verify(function_ref<InFlightDiagnostic()> emitError,
                                  int64_t heads, int64_t headDim, int64_t page,
                                  Type elementType) {
  if (heads <= 0 || headDim <= 0)
    return emitError() << "expected positive heads and head_dim, but got "
                       << heads << " and " << headDim;
  if (page <= 0 || page % 32 != 0)
    return emitError() << "expected a page of a multiple of 32 rows, but got "
                       << page;
  const bool isInt8 = isQuantizedActivations(elementType);
  if (!elementType.isF16() && !elementType.isF32() && !isInt8)
    return emitError() << "expected element type f16, f32 or !lm.block<a8>, "
                          "but got "
                       << elementType;
  if (isInt8 && headDim % kKvScaleColumns != 0)
    return emitError() << "expected head_dim to be a multiple of "
                       << kKvScaleColumns
                       << ", whose codes share a scale, but got " << headDim;
  return success();
}

std::optional<BlockFormat> lm::formatOf(Type type) {
  type = getElementTypeOrSelf(type);
  if (auto block = dyn_cast<BlockType>(type))
    return block.getFormat();
  if (type.isF32())
    return BlockFormat::F32;
  if (type.isF16())
    return BlockFormat::F16;
  if (type.isBF16())
    return BlockFormat::BF16;
  return std::nullopt;
}

Type lm::elementTypeOf(MLIRContext *context, BlockFormat format) {
  switch (format) {
  case BlockFormat::F32:
    return Float32Type::get(context);
  case BlockFormat::F16:
    return Float16Type::get(context);
  case BlockFormat::BF16:
    return BFloat16Type::get(context);
  default:
    return BlockType::get(context, format);
  }
}

bool lm::isQuantizedActivations(Type type) {
  return formatOf(type) == BlockFormat::A8;
}

BlockFormat lm::activationFormatFor(BlockFormat format) {
  const BlockFormatInfo &info = blockFormatInfo(format);
  return info.isFloat()       ? BlockFormat::F16
         : info.isRowScaled() ? format
                              : BlockFormat::A8;
}

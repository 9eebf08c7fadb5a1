//===- LmAttrs.cpp - Attributes of the lm dialect -------------------------===//
#include "dialects/lm/Lm.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace quern;
using namespace quern::lm;

#include "dialects/lm/LmEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "dialects/lm/LmAttrs.cpp.inc"

void LmDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialects/lm/LmAttrs.cpp.inc"
      >();
}

LogicalResult TileAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                               int64_t rows, int64_t blocks, int64_t keys,
                               int64_t prefetch) {
  if (rows <= 0 || blocks <= 0 || keys <= 0)
    return emitError() << "expected positive rows, blocks and keys, but got "
                       << rows << ", " << blocks << " and " << keys;
  if (prefetch < 0)
    return emitError() << "expected prefetch of 0 bytes or more, but got "
                       << prefetch;
  return success();
}

LogicalResult RangesAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                 int64_t segments, ArrayRef<int64_t> bounds) {
  if (segments <= 0 || bounds.empty() || bounds.size() % (2 * segments) != 0)
    return emitError() << "expected the same segments in every share, at least "
                          "one of each";
  const int64_t shares = bounds.size() / (2 * segments);
  for (int64_t segment = 0; segment < segments; ++segment) {
    int64_t next = 0;
    for (int64_t share = 0; share < shares; ++share) {
      const int64_t at = 2 * (share * segments + segment);
      if (bounds[at] != next || bounds[at + 1] < next)
        return emitError() << "expected share " << share << " of segment "
                           << segment << " to begin at " << next
                           << " and end there or later, but got " << bounds[at]
                           << ":" << bounds[at + 1];
      next = bounds[at + 1];
    }
  }
  return success();
}

// [begin:end, begin:end], [...]: one bracket a share.
Attribute RangesAttr::parse(AsmParser &parser, Type) {
  SMLoc loc = parser.getCurrentLocation();
  SmallVector<int64_t> bounds;
  int64_t segments = -1;
  auto parseRange = [&]() -> ParseResult {
    return failure(parser.parseInteger(bounds.emplace_back()) ||
                   parser.parseColon() ||
                   parser.parseInteger(bounds.emplace_back()));
  };
  auto parseShare = [&]() -> ParseResult {
    const size_t before = bounds.size();
    if (parser.parseCommaSeparatedList(AsmParser::Delimiter::Square,
                                       parseRange))
      return failure();
    const int64_t count = (bounds.size() - before) / 2;
    if (segments >= 0 && count != segments)
      return parser.emitError(loc, "expected the same segments in every share");
    segments = count;
    return success();
  };
  if (parser.parseCommaSeparatedList(AsmParser::Delimiter::LessGreater,
                                     parseShare))
    return {};
  return parser.getChecked<RangesAttr>(loc, parser.getContext(), segments,
                                       bounds);
}

void RangesAttr::print(AsmPrinter &printer) const {
  printer << "<";
  for (int64_t share = 0; share < getShares(); ++share) {
    printer << (share ? ", [" : "[");
    for (int64_t segment = 0; segment < getSegments(); ++segment)
      printer << (segment ? ", " : "") << getBegin(share, segment) << ":"
              << getEnd(share, segment);
    printer << "]";
  }
  printer << ">";
}

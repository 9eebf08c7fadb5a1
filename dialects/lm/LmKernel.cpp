//===- LmKernel.cpp - Kernels: syntax and checks of their regions ---------===//
//
// Labels in comments (`kernel_c1`) are those of docs/spec.md.
//
//===----------------------------------------------------------------------===//
#include "dialects/lm/Lm.h"
#include "dialects/lm/Verify.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace quern;
using namespace quern::lm;

LogicalResult lm::verifyTiles(Operation *op, DictionaryAttr tiles) {
  if (!tiles)
    return success();
  for (NamedAttribute entry : tiles)
    if (!isa<TileAttr>(entry.getValue()))
      return op->emitOpError()
             << "expected tiles of " << entry.getName()
             << " to be a #lm.tile, but got " << entry.getValue();
  return success();
}

LogicalResult lm::verifyKernelBody(Operation *op, Region &body,
                                   TypeRange inputs, TypeRange outputs) {
  if (!llvm::equal(body.getArgumentTypes(), inputs))
    return op->emitOpError(
        "expected the region's arguments to have the operands' types");
  for (Operation &inner : body.front()) {
    if (!isa_and_nonnull<LmDialect>(inner.getDialect()) ||
        isa<KernelOp, WeightOp>(inner))
      return inner.emitOpError("is not allowed in a kernel: weights are "
                               "operands, and only lm ops compute");
    if (inner.hasAttr("tiles"))
      return inner.emitOpError("expected its tiles on the kernel around it");
  }
  auto yield = dyn_cast<YieldOp>(body.front().getTerminator());
  if (!yield || !llvm::equal(yield.getValues().getTypes(), outputs))
    return op->emitOpError(
        "expected the region to yield values of the results' types");
  return success();
}

LogicalResult YieldOp::verify() {
  // yield_c1: by name, since rt builds on lm.
  StringRef parent = (*this)->getParentOp()->getName().getStringRef();
  if (parent != "lm.kernel" && parent != "rt.kernel")
    return emitOpError() << "expected to end a kernel, but is in " << parent;
  return success();
}

LogicalResult KernelOp::verify() {
  // kernel_c1
  if (getName().empty())
    return emitOpError("expected a name");
  // kernel_c2, kernel_c3
  if (failed(verifyKernelBody(*this, getBody(), getInputs().getTypes(),
                              getOutputs().getTypes())))
    return failure();
  // kernel_c4
  if (getRangesAttr() && getSplit() != KernelSplit::Shares)
    return emitOpError("expected no ranges when rows are split");
  // kernel_c5
  for (Operation &inner : getBody().front()) {
    auto product = dyn_cast<QuantMatmulOp>(inner);
    if (!product || product.getSplit() != MatmulSplit::K ||
        product.getRangesAttr())
      continue;
    RangesAttr ranges = getRangesAttr();
    if (!ranges || ranges.getSegments() != 1 ||
        ranges.getExtent(0) != dim(product.getX(), 1) ||
        ranges.getShares() != dim(product.getResult(), 0))
      return product.emitOpError()
             << "expected ranges of one segment over " << dim(product.getX(), 1)
             << " columns in " << dim(product.getResult(), 0)
             << " shares, its own or the kernel's";
  }
  // kernel_c6
  auto isCache = [](Type type) { return isa<KvCacheType>(type); };
  if (llvm::count_if(getInputs().getTypes(), isCache) > 1)
    return emitOpError("expected at most one cache among the operands");
  // kernel_c7
  return verifyTiles(*this, getTilesAttr());
}

/// `split(rows)`.
static ParseResult parseSplit(OpAsmParser &parser, OperationState &state) {
  StringRef word;
  SMLoc loc;
  if (parser.parseKeyword("split") || parser.parseLParen() ||
      parser.getCurrentLocation(&loc) || parser.parseKeyword(&word) ||
      parser.parseRParen())
    return failure();
  std::optional<KernelSplit> split = symbolizeKernelSplit(word);
  if (!split)
    return parser.emitError(loc, "expected rows or shares, but got '")
           << word << "'";
  state.addAttribute("split",
                     KernelSplitAttr::get(parser.getContext(), *split));
  return success();
}

// "name" split(rows) (%a = %x : type, ...) -> (types) attributes {...} {...}
ParseResult KernelOp::parse(OpAsmParser &parser, OperationState &state) {
  StringAttr name;
  if (parser.parseAttribute(name, "name", state.attributes) ||
      parseSplit(parser, state))
    return failure();
  SmallVector<OpAsmParser::Argument> arguments;
  SmallVector<OpAsmParser::UnresolvedOperand> operands;
  SMLoc loc = parser.getCurrentLocation();
  auto parseBinding = [&]() -> ParseResult {
    OpAsmParser::Argument &argument = arguments.emplace_back();
    return failure(parser.parseArgument(argument) || parser.parseEqual() ||
                   parser.parseOperand(operands.emplace_back()) ||
                   parser.parseColonType(argument.type));
  };
  if (parser.parseCommaSeparatedList(AsmParser::Delimiter::Paren,
                                     parseBinding) ||
      parser.parseOptionalArrowTypeList(state.types) ||
      parser.parseOptionalAttrDictWithKeyword(state.attributes) ||
      parser.parseRegion(*state.addRegion(), arguments))
    return failure();
  SmallVector<Type> types;
  for (const OpAsmParser::Argument &argument : arguments)
    types.push_back(argument.type);
  return parser.resolveOperands(operands, types, loc, state.operands);
}

void KernelOp::print(OpAsmPrinter &printer) {
  printer << ' ' << getNameAttr() << " split("
          << stringifyKernelSplit(getSplit()) << ") (";
  llvm::interleaveComma(llvm::zip_equal(getBody().getArguments(), getInputs()),
                        printer, [&](auto pair) {
                          auto [argument, input] = pair;
                          printer << argument << " = " << input << " : "
                                  << input.getType();
                        });
  printer << ") -> (" << getOutputs().getTypes() << ")";
  printer.printOptionalAttrDictWithKeyword((*this)->getAttrs(),
                                           {"name", "split"});
  printer << ' ';
  printer.printRegion(getBody(), /*printEntryBlockArgs=*/false);
}

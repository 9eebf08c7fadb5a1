//===- RtAttrs.cpp - Attributes of the rt dialect -------------------------===//
#include "dialects/rt/Rt.h"
#include "dialects/rt/Syntax.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace quern;
using namespace quern::rt;

#include "dialects/rt/RtEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "dialects/rt/RtAttrs.cpp.inc"

void RtDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialects/rt/RtAttrs.cpp.inc"
      >();
}

ArgAttr ArgAttr::buffer(MLIRContext *context, StringRef name) {
  return get(context, ArgKind::Buffer, name);
}
ArgAttr ArgAttr::weight(MLIRContext *context, StringRef name) {
  return get(context, ArgKind::Weight, name);
}
ArgAttr ArgAttr::kv(MLIRContext *context) {
  return get(context, ArgKind::Kv, "");
}
ArgAttr ArgAttr::step(MLIRContext *context, StepInput input) {
  return get(context, ArgKind::Step, stringifyStepInput(input));
}

StepInput ArgAttr::getStepInput() const {
  return *symbolizeStepInput(getName());
}

LogicalResult ArgAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                              ArgKind kind, StringRef name) {
  if (kind == ArgKind::Step && !symbolizeStepInput(name))
    return emitError() << "unknown step input '" << name << "'";
  if ((kind == ArgKind::Kv) != name.empty())
    return emitError() << "expected a name, or kv without one";
  return success();
}

/// The name after the kind: @buffer, "weight" or an input's keyword.
static ParseResult parseArgName(AsmParser &parser, ArgKind kind,
                                std::string &name) {
  StringAttr symbol;
  StringRef keyword;
  switch (kind) {
  case ArgKind::Buffer:
    if (parser.parseSymbolName(symbol))
      return failure();
    name = symbol.str();
    return success();
  case ArgKind::Weight:
    return parser.parseString(&name);
  case ArgKind::Kv:
    return success();
  case ArgKind::Step:
    if (parser.parseKeyword(&keyword))
      return failure();
    name = keyword.str();
    return success();
  }
  llvm_unreachable("all kinds are handled");
}

/// `buffer @x` and the like: the attribute's body.
static ArgAttr parseArg(AsmParser &parser) {
  SMLoc loc = parser.getCurrentLocation();
  StringRef word;
  if (parser.parseKeyword(&word))
    return {};
  std::optional<ArgKind> kind = symbolizeArgKind(word);
  if (!kind) {
    parser.emitError(loc, "expected buffer, weight, kv or step, but got '")
        << word << "'";
    return {};
  }
  std::string name;
  if (parseArgName(parser, *kind, name))
    return {};
  return parser.getChecked<ArgAttr>(loc, parser.getContext(), *kind,
                                    StringRef(name));
}

static void printArg(AsmPrinter &printer, ArgAttr arg) {
  printer << stringifyArgKind(arg.getKind());
  if (arg.getKind() == ArgKind::Buffer) {
    printer << ' ';
    printer.printSymbolName(arg.getName());
  } else if (arg.getKind() == ArgKind::Weight) {
    printer << ' ';
    printer.printString(arg.getName());
  } else if (arg.getKind() == ArgKind::Step) {
    printer << ' ' << arg.getName();
  }
}

Attribute ArgAttr::parse(AsmParser &parser, Type) {
  if (parser.parseLess())
    return {};
  ArgAttr arg = parseArg(parser);
  if (!arg || parser.parseGreater())
    return {};
  return arg;
}

void ArgAttr::print(AsmPrinter &printer) const {
  printer << "<";
  printArg(printer, *this);
  printer << ">";
}

ParseResult rt::parseArgs(OpAsmParser &parser, ArrayAttr &args) {
  SmallVector<Attribute> parsed;
  auto parseOne = [&]() -> ParseResult {
    ArgAttr arg = parseArg(parser);
    parsed.push_back(arg);
    return success(arg != nullptr);
  };
  // The list may be empty: its end is the closing parenthesis.
  if (parser.parseCommaSeparatedList(AsmParser::Delimiter::Paren, parseOne))
    return failure();
  args = ArrayAttr::get(parser.getContext(), parsed);
  return success();
}

void rt::printArgs(OpAsmPrinter &printer, Operation *, ArrayAttr args) {
  printer << "(";
  llvm::interleaveComma(args.getAsRange<ArgAttr>(), printer,
                        [&](ArgAttr arg) { printArg(printer, arg); });
  printer << ")";
}

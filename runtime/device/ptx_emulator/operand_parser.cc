#include "runtime/device/ptx_emulator/operand_parser.h"

namespace quern::ptx {
namespace {

using Kind = AstOperand::Kind;

constexpr int kMaxDepth = 4;  // {[{...}]} is the deepest that PTX has.

Status ParseNested(TokenCursor& cursor, AstOperand& operand, int depth);

Status Scalar(TokenCursor& cursor, AstOperand& operand) {
  operand.negated = cursor.Accept("!");
  if (cursor.Now().kind != Token::Kind::kName) return ParseConstant(cursor, operand);
  operand.name = cursor.Take().text;
  if (operand.name == "_") {
    operand.kind = Kind::kSink;
    return {};
  }
  operand.kind = Kind::kName;
  if (cursor.Now().kind == Token::Kind::kDot) operand.name += cursor.Take().text;  // %tid.x
  return {};
}

/// Behind `{`.
Status Vector(TokenCursor& cursor, AstOperand& operand, int depth) {
  operand.kind = Kind::kVector;
  do {
    QUERN_RETURN_IF_ERROR(ParseNested(cursor, operand.elements.emplace_back(), depth));
  } while (cursor.Accept(","));
  return cursor.Expect("}");
}

/// Behind `[`: base, base+4, base+-4, 64; then `, {coordinates}` and the like.
Status Address(TokenCursor& cursor, AstOperand& operand, int depth) {
  operand.kind = Kind::kAddress;
  QUERN_RETURN_IF_ERROR(Scalar(cursor, operand.elements.emplace_back()));
  if (cursor.Now().Is("-") || cursor.Accept("+")) {
    AstOperand offset;
    QUERN_RETURN_IF_ERROR(ParseConstant(cursor, offset));
    operand.value = offset.value;
  }
  while (cursor.Accept(","))
    QUERN_RETURN_IF_ERROR(ParseNested(cursor, operand.elements.emplace_back(), depth));
  return cursor.Expect("]");
}

Status ParseNested(TokenCursor& cursor, AstOperand& operand, int depth) {
  if (depth == kMaxDepth) return cursor.Error("operands nested too deeply");
  if (cursor.Accept("{")) return Vector(cursor, operand, depth + 1);
  if (cursor.Accept("[")) return Address(cursor, operand, depth + 1);
  QUERN_RETURN_IF_ERROR(Scalar(cursor, operand));
  if (!cursor.Accept("|")) return {};
  AstOperand pair;
  pair.kind = Kind::kPair;
  pair.elements.push_back(std::move(operand));
  QUERN_RETURN_IF_ERROR(Scalar(cursor, pair.elements.emplace_back()));
  operand = std::move(pair);
  return {};
}

}  // namespace

Status ParseOperand(TokenCursor& cursor, AstOperand& operand) {
  return ParseNested(cursor, operand, 0);
}

Status ParseConstant(TokenCursor& cursor, AstOperand& operand) {
  const bool minus = cursor.Accept("-");
  if (cursor.Now().kind == Token::Kind::kInteger)
    operand.kind = Kind::kInteger;
  else if (cursor.Now().kind == Token::Kind::kFloat)
    operand.kind = Kind::kFloat;
  else
    return cursor.Error("expected a constant before " + cursor.Seen());
  const Token& token = cursor.Take();
  operand.value = token.value;
  operand.width = token.width;
  if (!minus) return {};
  if (operand.kind == Kind::kInteger)
    operand.value = 0 - operand.value;
  else
    operand.value ^= uint64_t{1} << (8 * operand.width - 1);
  return {};
}

}  // namespace quern::ptx

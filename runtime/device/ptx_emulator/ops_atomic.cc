// atom and red. PTX ISA 9.7.13.
#include <cmath>
#include <cstring>

#include "runtime/device/ptx_emulator/ops.h"
#include "runtime/device/ptx_emulator/sync.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

enum Operation { kAdd, kMin, kMax, kAnd, kOr, kXor, kExch, kInc, kDec, kCas };
constexpr std::pair<std::string_view, Operation> kOperations[] = {
    {".add", kAdd}, {".min", kMin},   {".max", kMax}, {".and", kAnd}, {".or", kOr},
    {".xor", kXor}, {".exch", kExch}, {".inc", kInc}, {".dec", kDec}, {".cas", kCas}};

enum Type { kU32, kS32, kU64, kS64, kF32, kF64, kF16, kBf16, kF16x2, kBf16x2, kB16, kB32, kB64 };
struct TypeName {
  std::string_view name;
  Type type;
};
constexpr TypeName kTypes[] = {
    {".u32", kU32}, {".s32", kS32}, {".u64", kU64},   {".s64", kS64},     {".f32", kF32},
    {".f64", kF64}, {".f16", kF16}, {".bf16", kBf16}, {".f16x2", kF16x2}, {".bf16x2", kBf16x2},
    {".b16", kB16}, {".b32", kB32}, {".b64", kB64}};

enum Data { kSpace, kOp, kType, kBytes, kReturns };

float HalfSum(uint32_t a, uint32_t b) {
  return HalfToFloat(static_cast<uint16_t>(a)) + HalfToFloat(static_cast<uint16_t>(b));
}
float Bf16Sum(uint32_t a, uint32_t b) {
  return Bf16ToFloat(static_cast<uint16_t>(a)) + Bf16ToFloat(static_cast<uint16_t>(b));
}

uint64_t Add(Type type, uint64_t a, uint64_t b) {
  const auto x = static_cast<uint32_t>(a), y = static_cast<uint32_t>(b);
  switch (type) {
    case kF32:
      return BitsOf(FloatOf(x) + FloatOf(y));
    case kF64:
      return std::bit_cast<uint64_t>(std::bit_cast<double>(a) + std::bit_cast<double>(b));
    case kF16:
      return FloatToHalf(HalfSum(x, y));
    case kBf16:
      return FloatToBf16(Bf16Sum(x, y));
    case kF16x2:
      return FloatToHalf(HalfSum(x, y)) | uint32_t{FloatToHalf(HalfSum(x >> 16, y >> 16))} << 16;
    case kBf16x2:
      return FloatToBf16(Bf16Sum(x, y)) | uint32_t{FloatToBf16(Bf16Sum(x >> 16, y >> 16))} << 16;
    default:
      return a + b;
  }
}

bool Less(Type type, uint64_t a, uint64_t b) {
  switch (type) {
    case kS32:
      return static_cast<int32_t>(a) < static_cast<int32_t>(b);
    case kS64:
      return static_cast<int64_t>(a) < static_cast<int64_t>(b);
    case kF32:
      return FloatOf(static_cast<uint32_t>(a)) < FloatOf(static_cast<uint32_t>(b));
    case kU32:
      return static_cast<uint32_t>(a) < static_cast<uint32_t>(b);
    default:
      return a < b;
  }
}

uint64_t Apply(Operation operation, Type type, uint64_t old, uint64_t b, uint64_t c) {
  switch (operation) {
    case kAdd:
      return Add(type, old, b);
    case kMin:
      return Less(type, b, old) ? b : old;
    case kMax:
      return Less(type, old, b) ? b : old;
    case kAnd:
      return old & b;
    case kOr:
      return old | b;
    case kXor:
      return old ^ b;
    case kExch:
      return b;
    case kInc:
      return old >= b ? 0 : old + 1;
    case kDec:
      return old == 0 || old > b ? b : old - 1;
    case kCas:
      return old == b ? c : old;
  }
  return old;
}

template <class U>
uint64_t Exchange(uint8_t* at, const Inst& inst, uint64_t b, uint64_t c) {
  auto* place = reinterpret_cast<U*>(at);
  U old = __atomic_load_n(place, __ATOMIC_ACQUIRE);
  while (true) {
    const auto next = static_cast<U>(Apply(static_cast<Operation>(inst.data[kOp]),
                                           static_cast<Type>(inst.data[kType]), old,
                                           static_cast<U>(b), static_cast<U>(c)));
    if (__atomic_compare_exchange_n(place, &old, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
      return old;
  }
}

uint64_t ExchangeAt(uint8_t* at, const Inst& inst, uint64_t b, uint64_t c) {
  switch (inst.data[kBytes]) {
    case 2:
      return Exchange<uint16_t>(at, inst, b, c);
    case 4:
      return Exchange<uint32_t>(at, inst, b, c);
    default:
      return Exchange<uint64_t>(at, inst, b, c);
  }
}

void RunAtomic(Warp& warp, const Inst& inst, LaneMask mask) {
  const size_t first = inst.data[kReturns] ? 1 : 0;  // Operand of the address.
  const Operand* elements = warp.cta().context().code->elements.data();
  const Operand& b = inst.operands[first + 1];
  const Operand& c = inst.operands[first + 2];
  const bool vector = b.kind == Operand::Kind::kVector;
  const uint32_t count = vector ? b.count : 1;
  const auto space = static_cast<Space>(inst.data[kSpace]);
  const auto bytes = static_cast<uint32_t>(inst.data[kBytes]);
  ForLanes(mask, [&](uint32_t lane) {
    const uint64_t address = warp.Address(inst.operands[first], lane);
    uint8_t* at =
        warp.Access(space, address, bytes * count, bytes * count, lane, AccessKind::kAtomic);
    if (!at) return;
    const uint64_t third = inst.data[kOp] == kCas ? warp.Value(c, lane) : 0;
    for (uint32_t i = 0; i < count; ++i) {
      const Operand& source = vector ? elements[b.first + i] : b;
      const uint64_t old = ExchangeAt(at + i * bytes, inst, warp.Value(source, lane), third);
      const Operand& d = inst.operands[0];
      if (first) warp.SetValue(vector ? elements[d.first + i] : d, lane, old);
    }
    Synchronize(warp, space, address, true, true);
  });
}

std::string BindAtomic(const Match& match, Inst& inst, bool returns) {
  inst.data[kReturns] = returns;
  Space space = Space::kGeneric;
  for (auto group : match.groups) {
    if (group == ".global") space = Space::kGlobal;
    if (group.starts_with(".shared")) space = Space::kShared;
    for (const auto& [name, operation] : kOperations)
      if (group == name) inst.data[kOp] = operation;
    for (const TypeName& row : kTypes)
      if (group == row.name) inst.data[kType] = row.type, inst.data[kBytes] = TypeBytes(group);
  }
  inst.data[kSpace] = static_cast<int32_t>(space);
  const auto op = static_cast<Operation>(inst.data[kOp]);
  const auto type = static_cast<Type>(inst.data[kType]);
  const Operand& value = inst.operands[returns ? 2 : 1];
  const bool vector = value.kind == Operand::Kind::kVector;
  const bool floating = type >= kF32 && type <= kBf16x2;
  if (floating && op != kAdd) return "floating-point atomics have .add only";
  if ((op == kInc || op == kDec) && type != kU32) return ".inc and .dec have .u32 only";
  if (type >= kB16 && (op == kAdd || op == kMin || op == kMax)) return "arithmetic on untyped bits";
  if (vector != (match.Has(".v2") || match.Has(".v4") || match.Has(".v8")))
    return "a vector operand";
  if (!vector && !value.constant && value.bytes != inst.data[kBytes])
    return "a register of another width";
  return "";
}

std::string BindAtom(const Match& m, const Code&, Inst& i) { return BindAtomic(m, i, true); }
std::string BindRed(const Match& m, const Code&, Inst& i) { return BindAtomic(m, i, false); }

Rows MakeRows() {
  const std::string head =
      "[.relaxed|.acquire|.release|.acq_rel][.cta|.cluster|.gpu|.sys]"
      "[.global|.shared|.shared::cta|.shared::cluster]";
  const std::string operations = "(.add|.min|.max|.and|.or|.xor|.exch|.inc|.dec|.cas)";
  const std::string tail =
      "[.noftz][.L2::cache_hint][.v2|.v4|.v8]"
      "(.u32|.s32|.u64|.s64|.f32|.f64|.f16|.bf16|.f16x2|.bf16x2|.b16|.b32|.b64)";
  Rows rows;
  rows.push_back({"atom" + head + operations + tail, "=m a m x?", RunAtomic, BindAtom});
  // The scope in front of the order is an older spelling.
  const std::string old_head =
      "(.global|.shared)(.cta|.gpu|.sys)(.relaxed|.acquire|.release|.acq_rel)";
  rows.push_back({"atom" + old_head + operations + tail, "=m a m x?", RunAtomic, BindAtom});
  rows.push_back({"red" + old_head + operations + tail, "a m x?", RunAtomic, BindRed});
  rows.push_back({"red" + head + operations + tail, "a m x?", RunAtomic, BindRed});
  return rows;
}

}  // namespace

std::span<const Row> AtomicRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

}  // namespace quern::ptx

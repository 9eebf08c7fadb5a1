// ld, st and cache hints. PTX ISA 9.7.9.
#include <cstring>

#include "runtime/device/ptx_emulator/ops.h"
#include "runtime/device/ptx_emulator/sync.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

enum Data { kSpace, kBytes, kSigned, kOrder };
enum Order { kWeak, kAcquire, kRelease };

Space SpaceOf(const Match& match) {
  for (auto group : match.groups) {
    if (group == ".global") return Space::kGlobal;
    if (group.starts_with(".shared")) return Space::kShared;
    if (group == ".local") return Space::kLocal;
    if (group.starts_with(".param")) return Space::kParam;
    if (group == ".const") return Space::kConst;
  }
  return Space::kGeneric;
}

/// Elements of global memory are read and written whole: CTAs run on several threads.
uint64_t LoadElement(const uint8_t* from, int32_t bytes) {
  switch (bytes) {
    case 1:
      return __atomic_load_n(from, __ATOMIC_RELAXED);
    case 2:
      return __atomic_load_n(reinterpret_cast<const uint16_t*>(from), __ATOMIC_RELAXED);
    case 4:
      return __atomic_load_n(reinterpret_cast<const uint32_t*>(from), __ATOMIC_RELAXED);
    default:
      return __atomic_load_n(reinterpret_cast<const uint64_t*>(from), __ATOMIC_RELAXED);
  }
}

void StoreElement(uint8_t* to, int32_t bytes, uint64_t value) {
  switch (bytes) {
    case 1:
      return __atomic_store_n(to, static_cast<uint8_t>(value), __ATOMIC_RELAXED);
    case 2:
      return __atomic_store_n(reinterpret_cast<uint16_t*>(to), static_cast<uint16_t>(value),
                              __ATOMIC_RELAXED);
    case 4:
      return __atomic_store_n(reinterpret_cast<uint32_t*>(to), static_cast<uint32_t>(value),
                              __ATOMIC_RELAXED);
    default:
      return __atomic_store_n(reinterpret_cast<uint64_t*>(to), value, __ATOMIC_RELAXED);
  }
}

uint64_t Extend(uint64_t value, const Inst& inst) {
  if (!inst.data[kSigned]) return value;
  const int shift = 64 - 8 * inst.data[kBytes];
  return static_cast<uint64_t>(static_cast<int64_t>(value << shift) >> shift);
}

void RunLoad(Warp& warp, const Inst& inst, LaneMask mask) {
  const Operand& d = inst.operands[0];
  const bool vector = d.kind == Operand::Kind::kVector;
  const Operand* elements = vector ? warp.cta().context().code->elements.data() + d.first : &d;
  const uint32_t count = vector ? d.count : 1;
  const int32_t bytes = inst.data[kBytes];
  const auto total = static_cast<uint32_t>(bytes) * count;
  const auto space = static_cast<Space>(inst.data[kSpace]);
  const auto kind = inst.data[kOrder] == kWeak ? AccessKind::kRead : AccessKind::kAtomic;
  const uint64_t events = warp.cluster().events;
  ForLanes(mask, [&](uint32_t lane) {
    const uint64_t address = warp.Address(inst.operands[1], lane);
    const uint8_t* from = warp.Access(space, address, total, total, lane, kind);
    if (!from) return;
    for (uint32_t i = 0; i < count; ++i)
      warp.SetValue(elements[i], lane,
                    Extend(LoadElement(from + i * static_cast<uint32_t>(bytes), bytes), inst));
    if (inst.data[kOrder] == kAcquire) Synchronize(warp, space, address, true, false);
  });
  warp.cluster().events = events;  // A read changes nothing, ordered or not.
  if (inst.data[kOrder] == kAcquire) __atomic_thread_fence(__ATOMIC_ACQUIRE);
}

/// Notes a weak store to shared memory, with whether it changes anything.
void NoteStore(Warp& warp, uint64_t address, const uint8_t* to, const uint8_t* bytes,
               uint32_t count) {
  RaceCheck* races = warp.cta().races.get();
  const uint64_t offset = (address & ~kWindowMask) - kSharedBase;
  if (!races || offset >= warp.cta().shared.size()) return;  // Another CTA's.
  races->Write(warp.id(), static_cast<uint32_t>(offset), count, RaceCheck::Proxy::kGeneric,
               std::memcmp(to, bytes, count) == 0);
}

void RunStore(Warp& warp, const Inst& inst, LaneMask mask) {
  const Operand& a = inst.operands[1];
  const bool vector = a.kind == Operand::Kind::kVector;
  const Operand* elements = vector ? warp.cta().context().code->elements.data() + a.first : &a;
  const uint32_t count = vector ? a.count : 1;
  const auto bytes = static_cast<uint32_t>(inst.data[kBytes]);
  const auto space = static_cast<Space>(inst.data[kSpace]);
  const bool weak = inst.data[kOrder] == kWeak;
  if (!weak) __atomic_thread_fence(__ATOMIC_RELEASE);
  ForLanes(mask, [&](uint32_t lane) {
    const uint64_t address = warp.Address(inst.operands[0], lane);
    uint8_t* to =
        warp.Access(space, address, bytes * count, bytes * count, lane, AccessKind::kAtomic);
    if (!to) return;
    uint8_t values[32];
    for (uint32_t i = 0; i < count; ++i) {
      const uint64_t value = warp.Value(elements[i], lane);
      std::memcpy(values + i * bytes, &value, bytes);
    }
    uint64_t relative = address;
    const Space where = space == Space::kGeneric ? Warp::SpaceOfGeneric(relative) : space;
    if (weak && where == Space::kShared) NoteStore(warp, address, to, values, bytes * count);
    for (uint32_t i = 0; i < count; ++i) {
      uint64_t value = 0;
      std::memcpy(&value, values + i * bytes, bytes);
      StoreElement(to + i * bytes, static_cast<int32_t>(bytes), value);
    }
    if (!weak) Synchronize(warp, space, address, false, true);
  });
}

std::string BindAccess(const Match& match, const Code& code, Inst& inst, const Operand& data) {
  const std::string_view type = match.Last();
  const int bytes = TypeBytes(type);
  const uint32_t count = match.Has(".v2") ? 2 : match.Has(".v4") ? 4 : match.Has(".v8") ? 8 : 1;
  inst.data[kSpace] = static_cast<int32_t>(SpaceOf(match));
  inst.data[kBytes] = bytes;
  inst.data[kSigned] = type[1] == 's' && bytes < 8;
  const uint32_t given = data.kind == Operand::Kind::kVector ? data.count : 1;
  if (given != count) return "the vector has " + std::to_string(given) + " elements";
  if (static_cast<uint32_t>(bytes) * count > 32) return "more than 32 bytes";
  for (uint32_t i = 0; i < count; ++i) {
    const Operand& element =
        data.kind == Operand::Kind::kVector ? code.elements[data.first + i] : data;
    if (!element.constant && element.bytes < bytes) return "a register is too narrow";
  }
  return "";
}

std::string BindLoad(const Match& match, const Code& code, Inst& inst) {
  const std::string_view order = match.groups[0];
  inst.data[kOrder] = order.empty() || order == ".weak" ? kWeak : kAcquire;
  return BindAccess(match, code, inst, inst.operands[0]);
}

std::string BindStore(const Match& match, const Code& code, Inst& inst) {
  const std::string_view order = match.groups[0];
  inst.data[kOrder] = order.empty() || order == ".weak" ? kWeak : kRelease;
  return BindAccess(match, code, inst, inst.operands[1]);
}

Rows MakeRows() {
  const std::string spaces =
      "[.global|.shared|.shared::cta|.shared::cluster|.local|.param|.param::entry|.const]";
  const std::string hints =
      "[.ca|.cg|.cs|.lu|.cv|.wb|.wt][.nc]"
      "[.L1::evict_normal|.L1::evict_unchanged|.L1::evict_first|.L1::evict_last|.L1::no_allocate]"
      "[.L2::evict_normal|.L2::evict_first|.L2::evict_last][.L2::cache_hint]"
      "[.L2::64B|.L2::128B|.L2::256B]";
  const std::string types =
      "[.v2|.v4|.v8](.b8|.u8|.s8|.b16|.u16|.s16|.f16|.bf16|.b32|.u32|.s32|.f32|.f16x2|.bf16x2|"
      ".b64|.u64|.s64|.f64)";
  const std::string scope = "[.cta|.cluster|.gpu|.sys]";
  const std::string read = "[.weak|.relaxed|.acquire|.volatile]" + scope + spaces + hints + types;
  const std::string write = "[.weak|.relaxed|.release|.volatile]" + scope + spaces + hints + types;
  Rows rows;
  rows.push_back({"ld" + read, "=m a l?", RunLoad, BindLoad});
  rows.push_back({"ldu" + read, "=m a l?", RunLoad, BindLoad});
  rows.push_back({"st" + write, "a m l?", RunStore, BindStore});
  rows.push_back({"prefetch[.global|.local](.L1|.L2|.L2::evict_last|.L2::evict_normal)", "a",
                  Nothing, nullptr});
  rows.push_back({"prefetch[.const|.param].tensormap", "a", Nothing, nullptr});
  rows.push_back({"prefetchu.L1", "a", Nothing, nullptr});
  rows.push_back({"applypriority[.global].L2::evict_normal", "a i", Nothing, nullptr});
  rows.push_back({"discard[.global].L2", "a i", Nothing, nullptr});
  return rows;
}

}  // namespace

std::span<const Row> MemoryRows() {
  static const Rows kRows = MakeRows();
  return kRows;
}

}  // namespace quern::ptx

// cp.async.bulk and the tensor memory accelerator. PTX ISA 9.7.9.25.4 and .5. Bounds are checked
// when a copy is issued; the bytes move when an mbarrier's waiter or the bulk group needs them.
#include <algorithm>
#include <bit>
#include <cstring>

#include "runtime/device/ptx_emulator/ops.h"
#include "runtime/device/ptx_emulator/sync.h"
#include "runtime/device/ptx_emulator/tensor_map.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;
using Proxy = RaceCheck::Proxy;

/// A contiguous piece of a tile. `global` null: zeros (a load), nothing (a store).
struct Piece {
  uint32_t shared;
  uint32_t bytes;
  uint8_t* global;
};
using Pieces = std::vector<Piece>;

bool ReadMap(Warp& warp, const Operand& operand, uint32_t lane, TensorMap& map) {
  const uint64_t address = warp.Address(operand, lane);
  const uint8_t* bytes = warp.Access(Space::kGeneric, address, kTensorMapBytes, kTensorMapAlignment,
                                     lane, AccessKind::kRead);
  if (!bytes) return false;
  auto decoded = DecodeTensorMap(bytes);
  if (!decoded.ok()) return warp.Fault(decoded.status().message(), lane), false;
  map = *decoded;
  return true;
}

/// The 16-byte units of the box at `start`, in the order of shared memory. The box lies in shared
/// memory; where the swizzle puts its units is checked here.
bool TilePieces(Warp& warp, const TensorMap& map, const std::array<int64_t, 5>& start,
                uint32_t shared, uint32_t lane, Pieces& pieces) {
  const uint32_t element = ElementBytes(map.element), row_bytes = map.box[0] * element;
  const uint32_t unit = 16;
  uint32_t rows = 1;
  for (uint32_t axis = 1; axis < map.rank; ++axis) rows *= map.box[axis];
  for (uint32_t row = 0; row < rows; ++row) {
    uint64_t address = map.address;
    bool inside = true;
    for (uint32_t axis = 1, rest = row; axis < map.rank; rest /= map.box[axis], ++axis) {
      const int64_t at = start[axis] + rest % map.box[axis];
      inside &= at >= 0 && static_cast<uint64_t>(at) < map.dims[axis];
      address += static_cast<uint64_t>(at) * map.strides[axis];
    }
    // Bytes [low, high) of the row lie in the tensor.
    const int64_t width = static_cast<int64_t>(map.dims[0] * element);
    const int64_t first = start[0] * element;
    const int64_t low = std::clamp<int64_t>(-first, 0, row_bytes);
    const int64_t high = inside ? std::clamp<int64_t>(width - first, low, row_bytes) : low;
    uint8_t* from = nullptr;
    if (high > low) {
      from = warp.Global(address + static_cast<uint64_t>(first + low),
                         static_cast<uint32_t>(high - low), 1, lane);
      if (!from) return false;
    }
    for (uint32_t at = 0; at < row_bytes; at += unit) {
      const uint32_t place = Swizzle(shared + row * row_bytes + at, map.swizzle);
      if (place + unit > warp.cta().shared_end())
        return warp.Fault("the swizzle takes the tile past the end of shared memory", lane), false;
      const int64_t begin = std::clamp<int64_t>(low, at, at + unit),
                    end = std::clamp<int64_t>(high, at, at + unit);
      const auto before = static_cast<uint32_t>(begin - at);
      if (end <= begin) {
        pieces.push_back({place, unit, nullptr});
        continue;
      }
      if (before) pieces.push_back({place, before, nullptr});
      pieces.push_back({place + before, static_cast<uint32_t>(end - begin), from + (begin - low)});
      if (end < at + unit)
        pieces.push_back({place + static_cast<uint32_t>(end - at),
                          static_cast<uint32_t>(at + unit - end), nullptr});
    }
  }
  return true;
}

/// What a copy that an mbarrier signals does when it happens.
void QueueLoad(Warp& warp, const Inst& inst, std::vector<Cta*> targets, Pieces pieces,
               uint32_t bytes, uint32_t barrier) {
  VectorClock clock;
  if (warp.cta().races) warp.cta().races->Release(warp.id(), clock);
  auto shared = std::make_shared<Pieces>(std::move(pieces));
  for (Cta* target : targets)
    warp.cluster().async.push_back(
        {&warp, inst.line, [=, &warp] {
           for (const Piece& piece : *shared) {
             uint8_t* to = target->shared.data() + (piece.shared - kSharedBase);
             if (piece.global)
               std::memcpy(to, piece.global, piece.bytes);
             else
               std::memset(to, 0, piece.bytes);
           }
           Mbarrier* mbarrier = target->FindMbarrier(barrier);
           if (!mbarrier)
             return warp.Fault("the copy of line " + std::to_string(inst.line) +
                               " finds no mbarrier at shared offset " +
                               std::to_string(barrier - kSharedBase));
           auto& gathered = mbarrier->gathered;
           gathered.resize(std::max(gathered.size(), clock.size()), 0);
           for (size_t v = 0; v < clock.size(); ++v) gathered[v] = std::max(gathered[v], clock[v]);
           CompleteTransaction(*target, *mbarrier, bytes);
         }});
}

/// Operand i of an instruction, when it is there; the last ones are optional and of several kinds.
const Operand* OptionalOperand(const Inst& inst, size_t i) {
  return inst.operands[i].kind == Operand::Kind::kNone ? nullptr : &inst.operands[i];
}

/// The CTA that a shared address names, and the address within it.
Cta* OwnerOf(Warp& warp, uint64_t& address) {
  address &= ~kWindowMask;
  const uint64_t rank = address >> kSharedRankShift;
  if (rank == 0 || rank > warp.cluster().ctas.size()) return &warp.cta();
  address &= (uint64_t{1} << kSharedRankShift) - 1;
  return warp.cluster().ctas[rank - 1].get();
}

/// The CTAs that get a load: the one the address names, or those of a multicast mask.
std::vector<Cta*> Targets(Warp& warp, const Inst& inst, Cta* named, const Operand* multicast,
                          uint32_t lane) {
  if (!inst.data[0] || !multicast) return {named};
  std::vector<Cta*> targets;
  const uint64_t mask = warp.Value(*multicast, lane);
  for (size_t rank = 0; rank < warp.cluster().ctas.size(); ++rank)
    if ((mask >> rank) & 1) targets.push_back(warp.cluster().ctas[rank].get());
  return targets;
}

enum Data { kMulticast, kDims };

/// [dst], [map, {coordinates}], [mbarrier] [, multicast mask] [, policy]
void RunTensorLoad(Warp& warp, const Inst& inst, LaneMask mask) {
  const Operand* elements = warp.cta().context().code->elements.data();
  ForLanes(mask, [&](uint32_t lane) {
    TensorMap map;
    if (!ReadMap(warp, inst.operands[1], lane, map)) return;
    const Operand& coordinates = elements[inst.operands[1].first];
    if (coordinates.count != map.rank || inst.data[kDims] != static_cast<int32_t>(map.rank))
      return warp.Fault("a tensor map of rank " + std::to_string(map.rank), lane);
    std::array<int64_t, 5> start = {};
    for (uint32_t axis = 0; axis < map.rank; ++axis)
      start[axis] = static_cast<int32_t>(warp.Value(elements[coordinates.first + axis], lane));
    uint64_t destination = warp.Address(inst.operands[0], lane),
             barrier = warp.Address(inst.operands[2], lane);
    uint32_t bytes = ElementBytes(map.element);
    for (uint32_t axis = 0; axis < map.rank; ++axis) bytes *= map.box[axis];
    if (!warp.Shared(destination, bytes, 128, lane, AccessKind::kWrite, Proxy::kAsync)) return;
    Cta* owner = OwnerOf(warp, destination);
    OwnerOf(warp, barrier);
    Pieces pieces;
    if (!TilePieces(warp, map, start, static_cast<uint32_t>(destination), lane, pieces)) return;
    QueueLoad(warp, inst, Targets(warp, inst, owner, OptionalOperand(inst, 3), lane),
              std::move(pieces), bytes, static_cast<uint32_t>(barrier));
  });
}

/// [map, {coordinates}], [src] [, policy]
void RunTensorStore(Warp& warp, const Inst& inst, LaneMask mask) {
  const Operand* elements = warp.cta().context().code->elements.data();
  ForLanes(mask, [&](uint32_t lane) {
    TensorMap map;
    if (!ReadMap(warp, inst.operands[0], lane, map)) return;
    const Operand& coordinates = elements[inst.operands[0].first];
    if (coordinates.count != map.rank || inst.data[kDims] != static_cast<int32_t>(map.rank))
      return warp.Fault("a tensor map of rank " + std::to_string(map.rank), lane);
    std::array<int64_t, 5> start = {};
    for (uint32_t axis = 0; axis < map.rank; ++axis)
      start[axis] = static_cast<int32_t>(warp.Value(elements[coordinates.first + axis], lane));
    const uint64_t source = warp.Address(inst.operands[1], lane) & ~kWindowMask;
    uint32_t bytes = ElementBytes(map.element);
    for (uint32_t axis = 0; axis < map.rank; ++axis) bytes *= map.box[axis];
    if (!warp.Shared(source, bytes, 128, lane, AccessKind::kRead, Proxy::kAsync)) return;
    Pieces pieces;
    if (!TilePieces(warp, map, start, static_cast<uint32_t>(source), lane, pieces)) return;
    Cta* cta = &warp.cta();
    warp.bulks.push_back({lane, warp.bulk_groups[lane], [cta, pieces = std::move(pieces)] {
                            for (const Piece& piece : pieces)
                              if (piece.global)
                                std::memcpy(piece.global,
                                            cta->shared.data() + (piece.shared - kSharedBase),
                                            piece.bytes);
                          }});
  });
}

bool BulkSize(Warp& warp, const Operand& operand, uint32_t lane, uint32_t& bytes) {
  bytes = static_cast<uint32_t>(warp.Value(operand, lane));
  if (bytes % 16 == 0) return true;
  warp.Fault("a bulk copy of " + std::to_string(bytes) + " bytes; a multiple of 16 is wanted",
             lane);
  return false;
}

/// [dst], [src], bytes, [mbarrier] [, mask] [, policy]: from global memory, or shared of this CTA.
void RunBulkLoad(Warp& warp, const Inst& inst, LaneMask mask) {
  const bool from_shared = inst.data[1];
  ForLanes(mask, [&](uint32_t lane) {
    uint32_t bytes;
    if (!BulkSize(warp, inst.operands[2], lane, bytes)) return;
    uint64_t destination = warp.Address(inst.operands[0], lane),
             barrier = warp.Address(inst.operands[3], lane);
    const uint64_t source = warp.Address(inst.operands[1], lane);
    if (!warp.Shared(destination, bytes, 16, lane, AccessKind::kWrite, Proxy::kAsync)) return;
    uint8_t* from = from_shared
                        ? warp.Shared(source, bytes, 16, lane, AccessKind::kRead, Proxy::kAsync)
                        : warp.Global(source, bytes, 16, lane);
    if (!from) return;
    Cta* owner = OwnerOf(warp, destination);
    OwnerOf(warp, barrier);
    QueueLoad(warp, inst, Targets(warp, inst, owner, OptionalOperand(inst, 4), lane),
              {{static_cast<uint32_t>(destination), bytes, from}}, bytes,
              static_cast<uint32_t>(barrier));
  });
}

/// [dst], [src], bytes [, policy]: from shared to global memory.
void RunBulkStore(Warp& warp, const Inst& inst, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) {
    uint32_t bytes;
    if (!BulkSize(warp, inst.operands[2], lane, bytes)) return;
    const uint64_t source = warp.Address(inst.operands[1], lane) & ~kWindowMask;
    const uint8_t* from = warp.Shared(source, bytes, 16, lane, AccessKind::kRead, Proxy::kAsync);
    uint8_t* to = warp.Global(warp.Address(inst.operands[0], lane), bytes, 16, lane);
    if (!from || !to) return;
    warp.bulks.push_back({lane, warp.bulk_groups[lane], [=] { std::memcpy(to, from, bytes); }});
  });
}

void RunBulkCommit(Warp& warp, const Inst&, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) { ++warp.bulk_groups[lane]; });
}

void RunBulkWait(Warp& warp, const Inst& inst, LaneMask mask) {
  const auto allowed = static_cast<uint32_t>(inst.operands[0].value);
  std::erase_if(warp.bulks, [&](PendingBulk& bulk) {
    if (!((mask >> bulk.lane) & 1)) return false;
    const uint32_t groups = warp.bulk_groups[bulk.lane];
    if (bulk.group == groups || groups - bulk.group <= allowed) return false;
    bulk.run();
    return true;
  });
  ++warp.cluster().events;
}

std::string BindTensor(const Match& match, const Code& code, Inst& inst) {
  inst.data[kMulticast] = match.Has(".multicast::cluster");
  inst.data[kDims] = match.groups[0][1] - '0';
  for (int i : {0, 1})
    if (inst.operands[i].kind == Operand::Kind::kAddress && inst.operands[i].count > 0) {
      if (inst.operands[i].count != 1 ||
          code.elements[inst.operands[i].first].kind != Operand::Kind::kVector)
        return "expected {coordinates} behind the tensor map";
      return "";
    }
  return "expected {coordinates} behind the tensor map";
}

std::string BindBulk(const Match& match, const Code&, Inst& inst) {
  inst.data[kMulticast] = match.Has(".multicast::cluster");
  inst.data[1] = match.Has(".shared::cta") && !match.Has(".global");
  return "";
}

}  // namespace

std::span<const Row> TensorCopyRows() {
  static const Rows kRows = [] {
    const std::string dims = "(.1d|.2d|.3d|.4d|.5d)", hint = "[.L2::cache_hint]";
    const std::string done = ".mbarrier::complete_tx::bytes[.multicast::cluster]";
    Rows rows;
    rows.push_back({"cp.async.bulk.tensor" + dims +
                        "(.shared::cluster|.shared::cta).global[.tile]" + done + "[.cta_group::1]" +
                        hint,
                    "a a a x? l?", RunTensorLoad, BindTensor});
    rows.push_back({"cp.async.bulk.tensor" + dims + ".global.shared::cta[.tile].bulk_group" + hint,
                    "a a l?", RunTensorStore, BindTensor});
    rows.push_back({"cp.async.bulk.prefetch.tensor" + dims + ".L2.global[.tile]" + hint, "a l?",
                    Nothing, nullptr});
    rows.push_back({"cp.async.bulk(.shared::cluster|.shared::cta)(.global)" + done + hint,
                    "a a w a x? l?", RunBulkLoad, BindBulk});
    rows.push_back({"cp.async.bulk(.shared::cluster)(.shared::cta).mbarrier::complete_tx::bytes",
                    "a a w a", RunBulkLoad, BindBulk});
    rows.push_back(
        {"cp.async.bulk.global.shared::cta.bulk_group" + hint, "a a w l?", RunBulkStore, nullptr});
    rows.push_back({"cp.async.bulk.prefetch.L2.global" + hint, "a w l?", Nothing, nullptr});
    rows.push_back({"cp.async.bulk.commit_group", "", RunBulkCommit, nullptr});
    rows.push_back({"cp.async.bulk.wait_group[.read]", "i", RunBulkWait, nullptr});
    return rows;
  }();
  return kRows;
}

}  // namespace quern::ptx

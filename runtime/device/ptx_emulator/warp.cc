// Warps: operands, memory accesses and faults.
#include <algorithm>
#include <cstring>
#include <new>

#include "runtime/device/ptx_emulator/machine.h"
#include "runtime/device/ptx_emulator/special_registers.h"

namespace quern::ptx {
namespace {

constexpr uint8_t kPoison = 0xCD;

std::string Hex(uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

void Warp::AlignedDelete::operator()(uint64_t* p) const {
  ::operator delete[](p, std::align_val_t{64});
}

Warp::Warp(Cta& cta, uint32_t id)
    : cta_(&cta), id_(id), constants_(cta.context().constants.data()) {
  const LaunchContext& context = cta.context();
  const Code& code = *context.code;
  const size_t words = code.register_bytes / 8 + 8;
  registers_.reset(new (std::align_val_t{64}) uint64_t[words]);
  std::memset(registers_.get(), kPoison, words * 8);
  predicates_.assign(code.predicates, 0);
  predicates_[0] = kAllLanes;
  const auto& block = context.options.block;
  const uint32_t threads = block[0] * block[1] * block[2];
  const uint32_t count = std::min(threads - id * kLanes, kLanes);
  live = count == kLanes ? kAllLanes : (1u << count) - 1;
  stack_.push_back({0, UINT32_MAX, live});
  wgmma_dirty.assign(code.register_bytes / 128 + 1, 0);
  local_.assign(size_t{code.local_bytes} * kLanes, kPoison);
  SetSpecials();
}

Cluster& Warp::cluster() const { return cta_->cluster(); }
uint8_t* Warp::Local(uint32_t lane) {
  return local_.data() + size_t{cta_->context().code->local_bytes} * lane;
}

void Warp::SetSpecials() {
  for (const Code::Special& special : cta_->context().code->specials) {
    Operand operand;
    operand.slot = static_cast<int32_t>(special.slot);
    operand.bytes = special.wide ? 8 : 4;
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      SetValue(operand, lane, SpecialValue(special.which, special.axis, *cta_, id_, lane));
  }
}

// ---- Memory

Space Warp::SpaceOfGeneric(uint64_t& address) {
  const uint64_t window = address & kWindowMask;
  if (window == 0) return Space::kGlobal;
  const Space space = window == kSharedWindow  ? Space::kShared
                      : window == kLocalWindow ? Space::kLocal
                      : window == kParamWindow ? Space::kParam
                                               : Space::kGlobal;
  if (space != Space::kGlobal) address &= ~kWindowMask;
  return space;
}

uint8_t* Warp::Global(uint64_t address, uint32_t bytes, uint32_t alignment, uint32_t lane) {
  const auto& ranges = cta_->context().global.ranges;
  const auto inside = [&](const GlobalView::Range& range) {
    return address - range.address < range.bytes &&
           bytes <= range.bytes - (address - range.address);
  };
  if (address & (alignment - 1)) {
    Fault("misaligned access of " + std::to_string(bytes) + " bytes to global memory at " +
              Hex(address) + "; it must be a multiple of " + std::to_string(alignment),
          lane);
    return nullptr;
  }
  if (last_range_ >= ranges.size() || !inside(ranges[last_range_])) {
    auto after = std::upper_bound(
        ranges.begin(), ranges.end(), address,
        [](uint64_t value, const GlobalView::Range& range) { return value < range.address; });
    if (after == ranges.begin() || !inside(*std::prev(after))) {
      Fault("access of " + std::to_string(bytes) + " bytes to global memory at " + Hex(address) +
                ", which is " + cta_->context().global.memory->Describe(address),
            lane);
      return nullptr;
    }
    last_range_ = static_cast<size_t>(std::prev(after) - ranges.begin());
  }
  return ranges[last_range_].host + (address - ranges[last_range_].address);
}

uint8_t* Warp::Shared(uint64_t address, uint32_t bytes, uint32_t alignment, uint32_t lane,
                      AccessKind kind, RaceCheck::Proxy proxy) {
  if ((address & kWindowMask) == kSharedWindow) address &= ~kWindowMask;
  Cta* target = cta_;
  const uint64_t rank = address >> kSharedRankShift;
  if (rank > 0 && rank <= cluster().ctas.size()) {
    target = cluster().ctas[rank - 1].get();
    address &= (1u << kSharedRankShift) - 1;
  }
  if (address < kSharedBase || address + bytes > target->shared_end()) {
    Fault("access of " + std::to_string(bytes) + " bytes to shared memory at offset " +
              std::to_string(static_cast<int64_t>(address) - int64_t{kSharedBase}) + " of " +
              std::to_string(target->shared.size()) + " bytes",
          lane);
    return nullptr;
  }
  if (address & (alignment - 1)) {
    Fault("misaligned access of " + std::to_string(bytes) + " bytes to shared memory at offset " +
              std::to_string(address - kSharedBase) + "; it must be a multiple of " +
              std::to_string(alignment),
          lane);
    return nullptr;
  }
  const auto offset = static_cast<uint32_t>(address - kSharedBase);
  if (kind != AccessKind::kRead) ++cluster().events;
  if (target->races && target == cta_ && kind != AccessKind::kAtomic) {
    if (kind == AccessKind::kRead)
      target->races->Read(id_, offset, bytes, proxy);
    else
      target->races->Write(id_, offset, bytes, proxy);
  }
  return target->shared.data() + offset;
}

uint8_t* Warp::Access(Space space, uint64_t address, uint32_t bytes, uint32_t alignment,
                      uint32_t lane, AccessKind kind) {
  if (space == Space::kGeneric) space = SpaceOfGeneric(address);
  if (space == Space::kShared) return Shared(address, bytes, alignment, lane, kind);
  if (space == Space::kGlobal || space == Space::kConst) {
    if (kind != AccessKind::kRead) ++cluster().events;
    return Global(address, bytes, alignment, lane);
  }
  const bool local = space == Space::kLocal;
  auto& parameters = const_cast<std::vector<uint8_t>&>(cta_->context().parameters);
  const uint64_t size = local ? cta_->context().code->local_bytes : parameters.size();
  const char* what = local ? "local memory" : "the kernel's parameters";
  address &= ~kWindowMask;
  if (address > size || bytes > size - address || address % alignment) {
    Fault((address % alignment ? "misaligned access of " : "access of ") + std::to_string(bytes) +
              " bytes to " + what + " at offset " + std::to_string(address) + " of " +
              std::to_string(size),
          lane);
    return nullptr;
  }
  if (!local && kind != AccessKind::kRead) {
    Fault("store to the kernel's parameters", lane);
    return nullptr;
  }
  return (local ? Local(lane) : parameters.data()) + address;
}

// ---- Failures and waiting

bool Warp::Faulted() const { return !cta_->cluster().fault.ok(); }

void Warp::Fault(std::string message, uint32_t lane) {
  Cluster& cluster = cta_->cluster();
  if (!cluster.fault.ok()) return;
  const auto& index = cta_->index;
  std::string where;
  if (current_) {
    const Code& code = *cta_->context().code;
    const size_t number = static_cast<size_t>(current_ - code.insts.data());
    where = "PTX line " + std::to_string(current_->line) + ": " + code.names[number] + ": ";
  }
  where += message + " (CTA " + std::to_string(index[0]) + "," + std::to_string(index[1]) + "," +
           std::to_string(index[2]) + " warp " + std::to_string(id_);
  if (lane < kLanes) where += " lane " + std::to_string(lane);
  cluster.fault = Failure(where + ")");
}

bool Warp::NeedAll(LaneMask mask, const char* what) {
  if (mask == kAllLanes) return true;
  Fault(std::string(what) + " needs all 32 lanes, but only " +
        std::to_string(__builtin_popcount(mask)) + " are here");
  return false;
}

void Warp::Yield(const char* what, uint64_t detail) {
  yielded = true;
  wait = {Line(), what, detail};
}

void Warp::Block(LaneMask mask, const char* what, uint64_t detail) {
  blocked |= mask;
  wait = {Line(), what, detail};
}

}  // namespace quern::ptx

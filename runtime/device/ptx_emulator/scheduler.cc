// Which warp runs when: divergence inside a warp, turns between warps, asynchronous completion,
// deadlocks.
#include <algorithm>
#include <cstring>

#include "runtime/device/ptx_emulator/machine.h"

namespace quern::ptx {
namespace {

constexpr uint8_t kPoison = 0xCD;
constexpr uint64_t kQuantum = 20000;  // Turns of a warp that never waits.
constexpr int kStuckPasses = 300;  // Loops that count failed waits need some before they give up.

}  // namespace

// ---- Warps

bool Warp::StepLevel(Level level, uint64_t& budget) {
  const Code& code = *cta_->context().code;
  const auto size = static_cast<uint32_t>(code.insts.size());
  Cluster& owner = cta_->cluster();
  const bool count = !owner.counts.empty();
  LaneMask mask = level.mask;
  uint32_t pc = level.pc;
  while (pc != level.reconverge && pc < size && mask && budget > 0) {
    const Inst& inst = code.insts[pc];
    LaneMask active = mask;
    if (inst.guard >= 0)
      active &= inst.guard_negated ? ~predicates_[inst.guard] : predicates_[inst.guard];
    --budget;
    ++owner.steps;
    if (count) ++owner.counts[pc];
    if (inst.flow == Inst::Flow::kExit) {
      live &= ~active;
      mask &= ~active;
      ++pc;
      continue;
    }
    if (inst.flow == Inst::Flow::kBranch) {
      if (active == mask)
        pc = inst.target;
      else if (!active)
        ++pc;
      else {
        // Both sides run until they meet, the branch's target first.
        stack_.back() = {inst.reconverge, level.reconverge, mask};
        stack_.push_back({pc + 1, inst.reconverge, mask & ~active});
        stack_.push_back({inst.target, inst.reconverge, active});
        return true;
      }
      continue;
    }
    ++pc;
    if (!active) continue;
    Execute(inst, active);
    if (Faulted() || yielded || blocked) {
      stack_.back() = {retry ? pc - 1 : pc, level.reconverge, mask};
      retry = false;
      return false;
    }
  }
  stack_.back() = {pc, level.reconverge, mask};
  return budget > 0;
}

void Warp::Execute(const Inst& inst, LaneMask mask) {
  current_ = &inst;
  if (cta_->races) cta_->races->Step(inst.line);
  if (inst.touches_async) CheckAsyncRegisters(inst);
  inst.execute(*this, inst, mask);
}

/// wgmma and tcgen05.ld access their registers behind the program's back: nobody else may touch
/// them until they were waited for, and what was touched before a wgmma needs a wgmma.fence.
void Warp::CheckAsyncRegisters(const Inst& inst) {
  if (!cta_->races || inst.is_wgmma) return;
  const Code& code = *cta_->context().code;
  const auto each = [&](const Operand& operand, auto&& self, auto&& visit) -> void {
    if (operand.kind == Operand::Kind::kLanes && operand.slot >= 0) visit(operand.slot / 128);
    if (operand.kind != Operand::Kind::kVector) return;
    for (uint32_t i = 0; i < operand.count; ++i)
      self(code.elements[operand.first + i], self, visit);
  };
  const auto check = [&](const Inst& pending, const char* what, const char* wait) {
    for (const Operand& operand : inst.operands)
      each(operand, each, [&](int32_t slot) {
        each(pending.operands[0], each, [&](int32_t written) {
          if (written != slot) return;
          cta_->races->Report("race", inst.line, pending.line,
                              "register " + code.register_names[slot] + " is used at line " +
                                  std::to_string(inst.line) + " while the " + what + " of line " +
                                  std::to_string(pending.line) + " may still write it; wait with " +
                                  wait);
        });
      });
  };
  for (const PendingWgmma& pending : wgmmas) check(*pending.inst, "wgmma", "wgmma.wait_group");
  for (const PendingTensorMove& load : tensor_loads)
    check(*load.inst, "tcgen05.ld", "tcgen05.wait::ld");
  for (const Operand& operand : inst.operands)
    each(operand, each, [&](int32_t slot) { wgmma_dirty[slot] = inst.line; });
}

void Warp::Run(uint64_t quantum) {
  yielded = false;
  while (!stack_.empty() && quantum > 0) {
    Level& top = stack_.back();
    top.mask &= live;
    if (!top.mask || top.pc == top.reconverge || top.pc >= cta_->context().code->insts.size()) {
      if (top.pc >= cta_->context().code->insts.size()) live &= ~top.mask;
      stack_.pop_back();
      continue;
    }
    if (!StepLevel(top, quantum)) return;
  }
}

// ---- Clusters

uint64_t Cluster::Random() {
  if (context.options.seed == 0) return 0;
  random_ ^= random_ << 13;  // xorshift64
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

Cluster::Cluster(const LaunchContext& c, uint64_t number) : context(c) {
  const LaunchOptions& options = context.options;
  random_ = (options.seed + 1) * 0x9E3779B97F4A7C15u ^ (number + 1) * 0xD1B54A32D192ED03u;
  if (random_ == 0) random_ = 1;
  const auto& shape = options.cluster;
  std::array<uint32_t, 3> first;
  for (uint32_t axis = 0; axis < 3; ++axis) {
    const uint64_t clusters = options.grid[axis] / shape[axis];
    first[axis] = static_cast<uint32_t>(number % clusters) * shape[axis];
    number /= clusters;
  }
  const uint32_t size = shape[0] * shape[1] * shape[2];
  for (uint32_t rank = 0; rank < size; ++rank)
    ctas.push_back(std::make_unique<Cta>(
        *this, rank,
        std::array<uint32_t, 3>{first[0] + rank % shape[0], first[1] + rank / shape[0] % shape[1],
                                first[2] + rank / shape[0] / shape[1]}));
  cluster_gathered.resize(size);
  if (options.coverage) counts.assign(context.code->insts.size(), 0);
}

Cta::Cta(Cluster& cluster, uint32_t rank, std::array<uint32_t, 3> i)
    : index(i), cluster_(&cluster), rank_(rank) {
  const LaunchOptions& options = context().options;
  shared.assign(context().code->shared_bytes + options.shared_bytes, kPoison);
  const uint32_t threads = options.block[0] * options.block[1] * options.block[2];
  const uint32_t count = (threads + kLanes - 1) / kLanes;
  if (options.check_races)
    races = std::make_unique<RaceCheck>(count, static_cast<uint32_t>(shared.size()),
                                        context().code->uses_tensor_memory);
  for (uint32_t id = 0; id < count; ++id) warps.push_back(std::make_unique<Warp>(*this, id));
}

const LaunchContext& Cta::context() const { return cluster_->context; }

/// One turn for every warp. False when none could do more than wait.
bool Cluster::Pass(std::vector<Warp*>& order) {
  const uint64_t before = events;
  if (context.options.seed)
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[Random() % i]);
  bool progress = false;
  for (Warp* warp : order) {
    if (warp->Done() || warp->blocked) continue;
    warp->Run(context.options.seed ? 1 + Random() % 200 : kQuantum);
    if (!fault.ok()) return true;
    if (!warp->yielded) progress = true;
  }
  std::erase_if(order, [](Warp* warp) { return warp->Done(); });
  return progress || events != before;
}

/// Lets one asynchronous operation happen.
void Cluster::CompleteOne() {
  const size_t which = context.options.seed ? Random() % async.size() : 0;
  AsyncOperation operation = std::move(async[which]);
  async.erase(async.begin() + static_cast<std::ptrdiff_t>(which));
  ++events;
  operation.run();
}

Status Cluster::Deadlock() const {
  std::string message = "deadlock:";
  int shown = 0, more = 0;
  for (const auto& cta : ctas)
    for (const auto& warp : cta->warps) {
      if (warp->Done()) continue;
      if (shown == 8) {
        ++more;
        continue;
      }
      message += (shown++ ? "; warp " : " warp ") + std::to_string(warp->id()) +
                 " waits at PTX line " + std::to_string(warp->wait.line) + " for " +
                 warp->wait.what + " " + std::to_string(warp->wait.detail);
    }
  for (const auto& cta : ctas)
    for (uint32_t b = 0; b < kBarriers; ++b)
      if (cta->barriers[b].expected)
        message += "; barrier " + std::to_string(b) + " has " +
                   std::to_string(cta->barriers[b].arrived) + " of " +
                   std::to_string(cta->barriers[b].expected) + " threads";
  if (more) message += "; " + std::to_string(more) + " more warps wait";
  const auto& index = ctas[0]->index;
  return Failure(message + " (CTA " + std::to_string(index[0]) + "," + std::to_string(index[1]) +
                 "," + std::to_string(index[2]) + ")");
}

/// What a kernel must not leave behind when it ends.
void Cluster::CheckEnd() {
  for (const auto& cta : ctas) {
    for (const auto& warp : cta->warps) {
      if (!warp->bulks.empty() && cta->races)
        cta->races->Report("undefined", warp->Line(), 0,
                           "the CTA ends while a bulk copy may still read its shared memory; wait "
                           "with cp.async.bulk.wait_group.read");
      if (!warp->tensor_mmas.empty() && cta->races)
        cta->races->Report("undefined", warp->tensor_mmas.front().inst->line, 0,
                           "nothing waits for the tcgen05.mma of line " +
                               std::to_string(warp->tensor_mmas.front().inst->line) +
                               "; no tcgen05.commit of its thread follows it");
      for (PendingBulk& bulk : warp->bulks) bulk.run();
      warp->bulks.clear();
    }
    if (!cta->tensor_columns.empty() && fault.ok())
      fault = Failure("the CTA ends without tcgen05.dealloc of its tensor memory");
  }
}

Status Cluster::Run() {
  std::vector<Warp*> order;
  for (const auto& cta : ctas)
    for (const auto& warp : cta->warps) order.push_back(warp.get());
  int stuck = 0;
  while (!order.empty()) {
    const bool progress = Pass(order);
    if (!fault.ok()) return fault;
    if (steps > context.options.max_steps) {
      for (Warp* warp : order)
        if (!warp->blocked) {
          warp->Fault("no end after " + std::to_string(steps) + " instructions (max_steps)");
          return fault;
        }
    }
    if (progress) {
      stuck = 0;
      // A random schedule also lets operations complete early.
      if (context.options.seed && !async.empty() && Random() % 4 == 0) CompleteOne();
    } else if (!async.empty()) {
      stuck = 0;
      CompleteOne();
    } else if (++stuck > kStuckPasses || std::all_of(order.begin(), order.end(), [](Warp* warp) {
                 return warp->blocked != 0;
               })) {
      if (!order.empty()) return Deadlock();
    }
    if (!fault.ok()) return fault;
  }
  while (!async.empty() && fault.ok()) CompleteOne();
  CheckEnd();
  return fault;
}

}  // namespace quern::ptx

// tcgen05: the tensor cores and tensor memory of sm_100a. PTX ISA 9.7.16. Products happen when an
// mbarrier's waiter needs their tcgen05.commit, loads and stores when their warp waits for them.
//
// Executed are products of one CTA (.cta_group::1) of f16, bf16 or tf32 matrices in shared memory,
// summed in f32, and accesses of shape .32x32b. The rest has no row here and so is refused.
#include <algorithm>

#include "runtime/device/ptx_emulator/elements.h"
#include "runtime/device/ptx_emulator/matrix_descriptor.h"
#include "runtime/device/ptx_emulator/ops.h"
#include "runtime/device/ptx_emulator/sync.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;
using Proxy = RaceCheck::Proxy;

constexpr uint32_t kUnitColumns = 32;  ///< Of an allocation.
constexpr uint32_t kWindows = 4;       ///< Of 32 lanes, one for each warp of a warpgroup.
constexpr uint32_t kPoisonWord = 0xCDCDCDCD;

std::string ColumnsText(uint32_t first, uint32_t count) {
  return "columns " + std::to_string(first) + " to " + std::to_string(first + count - 1) +
         " of tensor memory";
}

// ---- Allocation

bool AllocationSize(Warp& warp, const Operand& operand, uint32_t& count) {
  count = static_cast<uint32_t>(warp.Value(operand, 0));
  if (count >= kUnitColumns && count <= kTensorColumns && (count & (count - 1)) == 0) return true;
  warp.Fault("an allocation of " + std::to_string(count) +
             " columns; 32, 64, 128, 256 and 512 are possible");
  return false;
}

/// The highest `count` columns that are free, or kTensorColumns. (Highest, so that a kernel which
/// takes it that its columns begin at 0 fails.)
uint32_t FindFree(const Cta& cta, uint32_t count) {
  uint32_t end = kTensorColumns;
  for (auto it = cta.tensor_columns.rbegin(); it != cta.tensor_columns.rend(); ++it) {
    if (end - (it->first + it->second.count) >= count) break;
    end = it->first;
  }
  return end >= count ? end - count : kTensorColumns;
}

/// [where the address goes], columns
void RunAlloc(Warp& warp, const Inst& inst, LaneMask mask) {
  Cta& cta = warp.cta();
  uint32_t count;
  if (!warp.NeedAll(mask, "tcgen05.alloc") || !AllocationSize(warp, inst.operands[1], count))
    return;
  if (!cta.tensor_permit) return warp.Fault("the CTA has relinquished its permit to allocate");
  if (count > cta.tensor_last_count)
    return warp.Fault("an allocation of " + std::to_string(count) + " columns behind one of " +
                      std::to_string(cta.tensor_last_count) + "; they must not grow");
  const uint32_t first = FindFree(cta, count);
  if (first == kTensorColumns) {
    warp.retry = true;
    return warp.Yield("free columns of tensor memory:", count);
  }
  uint64_t address = warp.Address(inst.operands[0], 0);
  uint8_t* to = warp.Shared(address, 4, 4, 0, AccessKind::kWrite);
  if (!to) return;
  __builtin_memcpy(to, &first, 4);
  cta.tensor_memory.resize(kTensorLanes * kTensorColumns, kPoisonWord);
  for (uint32_t lane = 0; lane < kTensorLanes; ++lane)
    std::fill_n(&cta.tensor_memory[lane * kTensorColumns + first], count, kPoisonWord);
  cta.tensor_columns[first] = {count, warp.id()};
  cta.tensor_last_count = count;
}

/// address, columns
void RunDealloc(Warp& warp, const Inst& inst, LaneMask mask) {
  Cta& cta = warp.cta();
  uint32_t count;
  if (!warp.NeedAll(mask, "tcgen05.dealloc") || !AllocationSize(warp, inst.operands[1], count))
    return;
  const auto first = static_cast<uint32_t>(warp.Value(inst.operands[0], 0));
  const auto found = cta.tensor_columns.find(first);
  if (found == cta.tensor_columns.end() || found->second.count != count)
    return warp.Fault("no allocation of " + std::to_string(count) +
                      " columns of tensor memory begins at address " + std::to_string(first));
  if (cta.races) {
    if (found->second.warp != warp.id())
      cta.races->Report("undefined", inst.line, 0,
                        "warp " + std::to_string(warp.id()) + " gives back " +
                            ColumnsText(first, count) + ", which warp " +
                            std::to_string(found->second.warp) + " allocated");
    cta.races->FreeTensor(warp.id(), first, count);
  }
  cta.tensor_columns.erase(found);
  ++warp.cluster().events;
}

void RunRelinquish(Warp& warp, const Inst&, LaneMask mask) {
  if (warp.NeedAll(mask, "tcgen05.relinquish_alloc_permit")) warp.cta().tensor_permit = false;
}

/// Faults unless [first, first + count) are allocated columns.
bool CheckColumns(Warp& warp, uint32_t first, uint32_t count) {
  const auto& allocated = warp.cta().tensor_columns;
  for (uint32_t column = first; column < first + count;) {
    auto after = allocated.upper_bound(column);
    if (after != allocated.begin()) --after;
    if (after == allocated.end() || column < after->first ||
        column >= after->first + after->second.count) {
      warp.Fault(ColumnsText(first, count) + ": column " + std::to_string(column) +
                 " is not allocated");
      return false;
    }
    column = after->first + after->second.count;
  }
  return true;
}

// ---- Products

enum MmaData { kTf32 };

/// Fields of an instruction descriptor. PTX ISA 9.7.16.4.2, table of .kind::tf32 and .kind::f16.
struct Products {
  uint32_t bits;
  bool tf32;
  uint32_t Field(uint32_t first, uint32_t count) const {
    return bits >> first & ((1u << count) - 1);
  }
  MatrixType Type(uint32_t first) const {
    return tf32 ? MatrixType::kTf32 : Field(first, 3) == 1 ? MatrixType::kBf16 : MatrixType::kF16;
  }
  MatrixType TypeA() const { return Type(7); }
  MatrixType TypeB() const { return Type(10); }
  bool Negate() const { return Field(13, 1) != Field(14, 1); }
  bool TransposeA() const { return Field(15, 1); }
  bool TransposeB() const { return Field(16, 1); }
  uint32_t Columns() const { return Field(17, 6) * 8; }
  uint32_t Rows() const { return Field(24, 5) * 16; }
  uint32_t Depth() const { return tf32 ? 8 : 16; }

  /// What is wrong, or "".
  std::string Problem() const {
    if (Field(0, 4) || Field(6, 1) || Field(23, 1) || Field(29, 3))
      return "an instruction descriptor with sparsity, saturation or reserved bits";
    if (Field(4, 2) != 1) return "only products summed in f32 are executed";
    for (const uint32_t type : {Field(7, 3), Field(10, 3)})
      if (tf32 ? type != 2 : type > 1)
        return "operands of type " + std::to_string(type) + " do not go with this kind";
    const uint32_t step = Rows() == 128 ? 16 : 8;
    if ((Rows() != 64 && Rows() != 128) || Columns() == 0 || Columns() > 256 || Columns() % step)
      return "no product is " + std::to_string(Rows()) + " rows high and " +
             std::to_string(Columns()) + " columns wide";
    return "";
  }
};

Products ProductsOf(const PendingTensorMma& mma) {
  return {mma.descriptor, mma.inst->data[kTf32] != 0};
}

/// The lane that holds row `row` of an accumulator: of 64 rows, each window has 16. PTX ISA
/// 9.7.16.10.5, layouts D and F.
uint32_t AccumulatorLane(uint32_t rows, uint32_t row) {
  return rows == 128 ? row : row / 16 * 32 + row % 16;
}

/// Faults unless the matrix lies in shared memory; notes what the products read.
bool CheckShared(Warp& warp, uint64_t descriptor, MatrixType type, bool transposed, uint32_t rows,
                 uint32_t depth) {
  const SharedMatrix matrix(descriptor, type, transposed, DescriptorKind::kTcgen05);
  if (!matrix.problem().empty()) return warp.Fault(matrix.problem()), false;
  Cta& cta = warp.cta();
  uint32_t outside = 0;
  matrix.ForEachUnit(0, rows, depth, [&](uint32_t address, uint32_t, uint32_t) {
    if (address < kSharedBase || address + 16 > cta.shared_end())
      outside = address;
    else if (cta.races)
      cta.races->Read(cta.races->AgentOf(warp.id()), address - kSharedBase, 16, Proxy::kAsync);
  });
  if (outside)
    warp.Fault("a matrix reaches shared memory at offset " +
               std::to_string(static_cast<int64_t>(outside) - int64_t{kSharedBase}) + " of " +
               std::to_string(cta.shared.size()) + " bytes");
  return outside == 0;
}

/// A store that is not over yet would be overtaken.
void CheckStores(Warp& warp, const Inst& inst, uint32_t first, uint32_t count) {
  for (const PendingTensorMove& store : warp.tensor_stores) {
    const auto columns = static_cast<uint32_t>(store.inst->data[0]);
    if (warp.cta().races && store.column < first + count && first < store.column + columns)
      warp.cta().races->Report("race", inst.line, store.inst->line,
                               ColumnsText(store.column, columns) + " are used at line " +
                                   std::to_string(inst.line) + " while the tcgen05.st of line " +
                                   std::to_string(store.inst->line) +
                                   " may still write them; wait with tcgen05.wait::st");
  }
}

/// [d], descriptor of a, of b, of the instruction, whether d is added
void RunMma(Warp& warp, const Inst& inst, LaneMask mask) {
  Cta& cta = warp.cta();
  ForLanes(mask, [&](uint32_t lane) {
    const auto d = static_cast<uint32_t>(warp.Address(inst.operands[0], lane));
    const Products products{static_cast<uint32_t>(warp.Value(inst.operands[3], lane)),
                            inst.data[kTf32] != 0};
    if (const std::string problem = products.Problem(); !problem.empty())
      return warp.Fault(problem, lane);
    if (d >> 16)
      return warp.Fault("an accumulator at lane " + std::to_string(d >> 16) +
                            "; those of .cta_group::1 begin at lane 0",
                        lane);
    const uint64_t a = warp.Value(inst.operands[1], lane), b = warp.Value(inst.operands[2], lane);
    const bool accumulate = (warp.Predicate(inst.operands[4]) >> lane) & 1;
    if (!CheckColumns(warp, d, products.Columns())) return;
    CheckStores(warp, inst, d, products.Columns());
    if (cta.races) cta.races->StartProduct(warp.id());
    if (!CheckShared(warp, a, products.TypeA(), products.TransposeA(), products.Rows(),
                     products.Depth()) ||
        !CheckShared(warp, b, products.TypeB(), products.TransposeB(), products.Columns(),
                     products.Depth()))
      return;
    if (cta.races) {
      const uint32_t agent = cta.races->AgentOf(warp.id());
      if (accumulate) cta.races->ReadTensor(agent, d, products.Columns(), (1 << kWindows) - 1);
      cta.races->WriteTensor(agent, d, products.Columns(), (1 << kWindows) - 1);
    }
    warp.tensor_mmas.push_back({&inst, lane, warp.tensor_mma_count++, a, b, d, products.Rows(),
                                products.Columns(), products.bits, accumulate});
  });
}

void Perform(Cta& cta, const PendingTensorMma& mma) {
  const Products products = ProductsOf(mma);
  const uint32_t depth = products.Depth();
  thread_local std::vector<float> a, b, c;
  a.resize(mma.rows * depth), b.resize(size_t{depth} * mma.columns);
  c.assign(size_t{mma.rows} * mma.columns, 0.0f);
  SharedMatrix(mma.a, products.TypeA(), products.TransposeA(), DescriptorKind::kTcgen05)
      .Read(cta.shared.data(), 0, mma.rows, depth, a.data(), depth, 1);
  SharedMatrix(mma.b, products.TypeB(), products.TransposeB(), DescriptorKind::kTcgen05)
      .Read(cta.shared.data(), 0, mma.columns, depth, b.data(), 1, mma.columns);
  if (products.Negate())
    for (float& x : a) x = -x;
  const auto memory = [&](uint32_t row) {
    return &cta.tensor_memory[AccumulatorLane(mma.rows, row) * kTensorColumns + mma.d];
  };
  if (mma.accumulate)
    for (uint32_t row = 0; row < mma.rows; ++row)
      __builtin_memcpy(&c[size_t{row} * mma.columns], memory(row), 4 * size_t{mma.columns});
  MultiplyAdd(a.data(), b.data(), c.data(), mma.rows, mma.columns, depth);
  for (uint32_t row = 0; row < mma.rows; ++row)
    __builtin_memcpy(memory(row), &c[size_t{row} * mma.columns], 4 * size_t{mma.columns});
}

/// [mbarrier]: an arrival there when the products that this thread has issued are over. Those of a
/// warp happen in their order.
void RunCommit(Warp& warp, const Inst& inst, LaneMask mask) {
  ForLanes(mask, [&](uint32_t lane) {
    Cta* owner = nullptr;
    const uint64_t address = warp.Address(inst.operands[0], lane);
    if (!MbarrierAt(warp, address, lane, &owner)) return;
    const auto place = static_cast<uint32_t>(address & ((uint64_t{1} << kSharedRankShift) - 1));
    uint64_t end = 0;
    for (const PendingTensorMma& mma : warp.tensor_mmas)
      if (mma.lane == lane) end = mma.number + 1;
    VectorClock clock;
    if (RaceCheck* races = warp.cta().races.get()) {
      races->Release(races->AgentOf(warp.id()), clock);
      if (end == 0 && !warp.tensor_mmas.empty())
        races->Report("undefined", inst.line, warp.tensor_mmas.front().inst->line,
                      "the tcgen05.commit of line " + std::to_string(inst.line) + " by lane " +
                          std::to_string(lane) + " does not wait for the products of lane " +
                          std::to_string(warp.tensor_mmas.front().lane));
    }
    warp.cluster().async.push_back({&warp, inst.line, [=, &warp, &inst] {
                                      auto& mmas = warp.tensor_mmas;
                                      while (!mmas.empty() && mmas.front().number < end) {
                                        Perform(warp.cta(), mmas.front());
                                        mmas.pop_front();
                                      }
                                      ArriveAsync(warp, *owner, place, clock, "tcgen05.commit",
                                                  inst.line);
                                    }});
  });
}

// ---- Loads and stores of shape .32x32b: register i of lane l is column i of lane l of the window

enum MoveData { kColumns, kStore };

const Operand& Register(Warp& warp, const Operand& operand, uint32_t i) {
  if (operand.kind == Operand::Kind::kLanes) return operand;
  return warp.cta().context().code->elements[operand.first + i];
}

/// First column of what `inst` accesses, or false after a fault.
bool MoveColumn(Warp& warp, const Inst& inst, LaneMask mask, uint32_t& column) {
  if (!warp.NeedAll(mask, inst.data[kStore] ? "tcgen05.st" : "tcgen05.ld")) return false;
  const Operand& operand = inst.operands[inst.data[kStore] ? 0 : 1];
  const auto address = static_cast<uint32_t>(warp.Address(operand, 0));
  for (uint32_t lane = 1; lane < kLanes; ++lane)
    if (static_cast<uint32_t>(warp.Address(operand, lane)) != address)
      return warp.Fault("the lanes of a warp name different addresses of tensor memory", lane),
             false;
  const uint32_t lane = address >> 16, window = warp.id() % kWindows * kLanes;
  if (lane != window)
    return warp.Fault("lane " + std::to_string(lane) + " of tensor memory; this warp has lanes " +
                      std::to_string(window) + " to " + std::to_string(window + kLanes - 1)),
           false;
  column = address & 0xffff;
  return CheckColumns(warp, column, static_cast<uint32_t>(inst.data[kColumns]));
}

uint32_t* TensorWord(Warp& warp, uint32_t lane, uint32_t column) {
  const uint32_t window = warp.id() % kWindows * kLanes;
  return &warp.cta().tensor_memory[(window + lane) * kTensorColumns + column];
}

void NoteMove(Warp& warp, const PendingTensorMove& move) {
  RaceCheck* races = warp.cta().races.get();
  if (!races) return;
  const auto columns = static_cast<uint32_t>(move.inst->data[kColumns]);
  const auto window = static_cast<uint8_t>(1 << warp.id() % kWindows);
  if (move.inst->data[kStore])
    races->WriteTensor(warp.id(), move.column, columns, window);
  else
    races->ReadTensor(warp.id(), move.column, columns, window);
}

void RunLoad(Warp& warp, const Inst& inst, LaneMask mask) {
  uint32_t column;
  if (!MoveColumn(warp, inst, mask, column)) return;
  const auto columns = static_cast<uint32_t>(inst.data[kColumns]);
  CheckStores(warp, inst, column, columns);
  for (uint32_t i = 0; i < columns; ++i)
    std::fill_n(warp.Lanes<uint32_t>(Register(warp, inst.operands[0], i)), kLanes, kPoisonWord);
  warp.tensor_loads.push_back({&inst, column, {}});
  NoteMove(warp, warp.tensor_loads.back());
}

void RunStore(Warp& warp, const Inst& inst, LaneMask mask) {
  PendingTensorMove store{&inst, 0, {}};
  if (!MoveColumn(warp, inst, mask, store.column)) return;
  for (uint32_t i = 0; i < static_cast<uint32_t>(inst.data[kColumns]); ++i) {
    const uint32_t* from = warp.Lanes<uint32_t>(Register(warp, inst.operands[1], i));
    store.values.insert(store.values.end(), from, from + kLanes);
  }
  NoteMove(warp, store);
  warp.tensor_stores.push_back(std::move(store));
}

/// Until here the memory may be read, or written: whoever is told before is told too early.
void RunWaitLoad(Warp& warp, const Inst&, LaneMask mask) {
  if (!warp.NeedAll(mask, "tcgen05.wait::ld")) return;
  for (const PendingTensorMove& load : warp.tensor_loads) {
    NoteMove(warp, load);
    for (uint32_t i = 0; i < static_cast<uint32_t>(load.inst->data[kColumns]); ++i) {
      uint32_t* to = warp.Lanes<uint32_t>(Register(warp, load.inst->operands[0], i));
      for (uint32_t lane = 0; lane < kLanes; ++lane)
        to[lane] = *TensorWord(warp, lane, load.column + i);
    }
  }
  warp.tensor_loads.clear();
}

void RunWaitStore(Warp& warp, const Inst&, LaneMask mask) {
  if (!warp.NeedAll(mask, "tcgen05.wait::st")) return;
  for (const PendingTensorMove& store : warp.tensor_stores) {
    NoteMove(warp, store);
    for (size_t i = 0; i < store.values.size(); ++i)
      *TensorWord(warp, i % kLanes, store.column + static_cast<uint32_t>(i / kLanes)) =
          store.values[i];
  }
  warp.tensor_stores.clear();
}

void RunFence(Warp& warp, const Inst&, LaneMask) {
  if (warp.cta().races) warp.cta().races->TensorFence(warp.id());
}

// ---- Binding

std::string BindMma(const Match& match, const Code&, Inst& inst) {
  inst.data[kTf32] = match.Has(".kind::tf32");
  return "";
}

std::string BindMove(const Match& match, const Code& code, Inst& inst) {
  inst.data[kStore] = match.Has(".st");
  const auto columns = static_cast<uint32_t>(std::stoi(std::string(match.Last().substr(2))));
  inst.data[kColumns] = static_cast<int32_t>(columns);
  const Operand& registers = inst.operands[inst.data[kStore] ? 1 : 0];
  const bool one = registers.kind == Operand::Kind::kLanes;
  if ((one ? 1 : registers.count) != columns)
    return "expected a vector of " + std::to_string(columns) + " registers";
  for (uint32_t i = 0; i < columns; ++i)
    if ((one ? registers : code.elements[registers.first + i]).bytes != 4)
      return "expected 32-bit registers";
  return "";
}

}  // namespace

std::span<const Row> Tcgen05Rows() {
  static const Rows kRows = [] {
    const std::string count = "(.x1|.x2|.x4|.x8|.x16|.x32|.x64|.x128)";
    Rows rows;
    rows.push_back(
        {"tcgen05.alloc.cta_group::1.sync.aligned[.shared::cta].b32", "a w", RunAlloc, nullptr});
    rows.push_back({"tcgen05.dealloc.cta_group::1.sync.aligned.b32", "w w", RunDealloc, nullptr});
    rows.push_back(
        {"tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned", "", RunRelinquish, nullptr});
    rows.push_back({"tcgen05.mma.cta_group::1(.kind::f16|.kind::tf32)[.collector::a::discard]",
                    "a l l w p", RunMma, BindMma});
    rows.push_back({"tcgen05.commit.cta_group::1.mbarrier::arrive::one[.shared::cluster].b64", "a",
                    RunCommit, nullptr});
    rows.push_back(
        {"tcgen05(.ld).sync.aligned.32x32b" + count + ".b32", "=m a", RunLoad, BindMove});
    rows.push_back(
        {"tcgen05(.st).sync.aligned.32x32b" + count + ".b32", "a m", RunStore, BindMove});
    rows.push_back({"tcgen05.wait::ld.sync.aligned", "", RunWaitLoad, nullptr});
    rows.push_back({"tcgen05.wait::st.sync.aligned", "", RunWaitStore, nullptr});
    rows.push_back({"tcgen05.fence::after_thread_sync", "", RunFence, nullptr});
    // Loads and stores are over where their warp waited, products where they were committed: the
    // fence in front of a barrier orders nothing that these have not.
    rows.push_back({"tcgen05.fence::before_thread_sync", "", Nothing, nullptr});
    return rows;
  }();
  return kRows;
}

}  // namespace quern::ptx

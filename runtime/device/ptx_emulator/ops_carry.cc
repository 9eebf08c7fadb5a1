// Arithmetic with a carry. PTX ISA 9.7.2. The carry is a bit of each lane.
#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {
namespace {

using Rows = std::vector<Row>;

enum Data { kOperation, kReads, kWrites, kHigh };
enum Operation { kAdd, kSub, kMad };

template <class U, class Wide>
void RunCarry(Warp& warp, const Inst& inst, LaneMask mask) {
  const auto operation = static_cast<Operation>(inst.data[kOperation]);
  constexpr int kBits = sizeof(U) * 8;
  LaneMask out = warp.carry;
  ForLanes(mask, [&](uint32_t lane) {
    Wide a = static_cast<U>(warp.Value(inst.operands[1], lane));
    Wide b = static_cast<U>(warp.Value(inst.operands[2], lane));
    if (operation == kMad) {
      const Wide product = a * b;
      a = static_cast<U>(inst.data[kHigh] ? product >> kBits : product);
      b = static_cast<U>(warp.Value(inst.operands[3], lane));
    }
    const Wide carry = inst.data[kReads] ? (warp.carry >> lane) & 1 : 0;
    const Wide sum = operation == kSub ? a - b - carry : a + b + carry;
    warp.SetValue(inst.operands[0], lane, static_cast<U>(sum));
    const bool bit = (sum >> kBits) != 0;  // A borrow leaves all ones there.
    out = (out & ~(LaneMask{1} << lane)) | LaneMask{bit} << lane;
  });
  if (inst.data[kWrites]) warp.carry = out;
}

template <Operation kWhich, bool kReadsCarry>
std::string Bind(const Match& match, const Code&, Inst& inst) {
  inst.data[kOperation] = kWhich;
  inst.data[kReads] = kReadsCarry;
  inst.data[kWrites] = match.Has(".cc");
  inst.data[kHigh] = match.Has(".hi");
  return "";
}

template <class U, class Wide>
void AddType(Rows& rows, const std::string& types, const std::string& width) {
  const Executor run = RunCarry<U, Wide>;
  const std::string two = "=" + width + " " + width + " " + width, three = two + " " + width;
  rows.push_back({"add(.cc)" + types, two, run, Bind<kAdd, false>});
  rows.push_back({"addc[.cc]" + types, two, run, Bind<kAdd, true>});
  rows.push_back({"sub(.cc)" + types, two, run, Bind<kSub, false>});
  rows.push_back({"subc[.cc]" + types, two, run, Bind<kSub, true>});
  rows.push_back({"mad(.lo|.hi)(.cc)" + types, three, run, Bind<kMad, false>});
  rows.push_back({"madc(.lo|.hi)[.cc]" + types, three, run, Bind<kMad, true>});
}

}  // namespace

std::span<const Row> CarryRows() {
  static const Rows kRows = [] {
    Rows rows;
    AddType<uint32_t, uint64_t>(rows, "(.u32|.s32)", "w");
    AddType<uint64_t, unsigned __int128>(rows, "(.u64|.s64)", "l");
    return rows;
  }();
  return kRows;
}

}  // namespace quern::ptx

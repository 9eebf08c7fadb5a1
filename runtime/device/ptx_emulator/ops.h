// The instruction tables: one row a family, a pattern of its name and how to execute it.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "runtime/device/ptx_emulator/machine.h"
#include "runtime/device/ptx_emulator/numeric.h"
#include "runtime/device/ptx_emulator/program.h"

namespace quern::ptx {

/// The modifiers that the groups of a pattern matched, in order; empty where an optional one is
/// absent.
struct Match {
  std::vector<std::string_view> groups;
  bool Has(std::string_view modifier) const {
    for (auto group : groups)
      if (group == modifier) return true;
    return false;
  }
  /// The last group that was present: the type, in most rows.
  std::string_view Last() const {
    for (size_t i = groups.size(); i-- > 0;)
      if (!groups[i].empty()) return groups[i];
    return {};
  }
};

/// Fills Inst::data from the modifiers and operands. Returns what is wrong, or "".
using Binder = std::string (*)(const Match& match, const Code& code, Inst& inst);

/// One row. `pattern`: the opcode, then modifiers: .x must stand there, (.x|.y) is a choice,
/// [.x|.y] an optional one. `signature`: the operands, a word each:
///   p predicate   h, w, l register or constant of 16, 32, 64 bits   x of any width
///   i constant    a address   m vector or scalar of lanes     y predicate or lanes
/// A leading = marks a destination, a trailing ? an operand that may be absent, and p| in front of
/// a destination's word ("=w|p") a second destination behind a bar that may be absent. Addresses
/// may bring more operands along, such as coordinates.
struct Row {
  std::string pattern;
  std::string signature;
  Executor execute = nullptr;
  Binder bind = nullptr;
};

// The tables.
std::span<const Row> IntegerRows();
std::span<const Row> CarryRows();
std::span<const Row> FloatRows();
std::span<const Row> HalfRows();
std::span<const Row> CompareRows();
std::span<const Row> ConvertRows();
std::span<const Row> MoveRows();
std::span<const Row> MemoryRows();
std::span<const Row> AtomicRows();
std::span<const Row> WarpRows();
std::span<const Row> BarrierRows();
std::span<const Row> MbarrierRows();
std::span<const Row> AsyncCopyRows();
std::span<const Row> TensorCopyRows();
std::span<const Row> MatrixRows();
std::span<const Row> WgmmaRows();
std::span<const Row> Tcgen05Rows();

// ---- Rows made from a function on one lane ------------------------------------------------------

template <class T>
inline constexpr bool kIsPredicate = std::is_same_v<T, bool>;

/// Lanes of up to 32 bits take 4 bytes, others 8.
template <class T>
using Storage = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
inline T FromStorage(Storage<T> bits) {
  if constexpr (sizeof(T) == 2)
    return std::bit_cast<T>(static_cast<uint16_t>(bits));
  else
    return std::bit_cast<T>(bits);
}
template <class T>
inline Storage<T> ToStorage(T value) {
  if constexpr (sizeof(T) == 2)
    return std::bit_cast<uint16_t>(value);
  else
    return std::bit_cast<Storage<T>>(value);
}

/// One operand of a lane function, ready to be read or written at a lane.
template <class T>
struct LaneView {
  using S = Storage<T>;
  S* lanes;
  LaneView(Warp& warp, const Operand& operand) : lanes(warp.Lanes<S>(operand)) {}
  T Get(uint32_t lane) const { return FromStorage<T>(lanes[lane]); }
  void Set(uint32_t lane, T value) { lanes[lane] = ToStorage<T>(value); }
  void Finish() {}
};
template <>
struct LaneView<bool> {
  Warp& warp;
  const Operand& operand;
  LaneMask bits, written = 0;
  LaneView(Warp& w, const Operand& o) : warp(w), operand(o), bits(w.Predicate(o)) {}
  bool Get(uint32_t lane) const { return (bits >> lane) & 1; }
  void Set(uint32_t lane, bool value) {
    const LaneMask bit = LaneMask{1} << lane;
    written |= bit;
    bits = value ? bits | bit : bits & ~bit;
  }
  void Finish() { warp.SetPredicate(operand, bits, written); }
};

template <class T>
constexpr char ClassOf() {
  if constexpr (kIsPredicate<T>)
    return 'p';
  else if constexpr (sizeof(T) == 2)
    return 'h';
  else
    return sizeof(T) == 8 ? 'l' : 'w';
}

template <class F, class R, class... Args>
struct LaneFunction {
  template <size_t... I>
  static void RunOn(Warp& warp, const Inst& inst, LaneMask mask, std::index_sequence<I...>) {
    LaneView<R> result(warp, inst.operands[0]);
    std::tuple<LaneView<Args>...> sources{LaneView<Args>(warp, inst.operands[1 + I])...};
    if (mask == kAllLanes) {
      // A destination may be a source too, but only lane by lane.
#if defined(__clang__)
#pragma clang loop vectorize(assume_safety)
#else
#pragma GCC ivdep
#endif
      for (uint32_t lane = 0; lane < kLanes; ++lane)
        result.Set(lane, F{}(std::get<I>(sources).Get(lane)...));
    } else {
      ForLanes(mask,
               [&](uint32_t lane) { result.Set(lane, F{}(std::get<I>(sources).Get(lane)...)); });
    }
    result.Finish();
  }
  static void Run(Warp& warp, const Inst& inst, LaneMask mask) {
    RunOn(warp, inst, mask, std::index_sequence_for<Args...>{});
  }
  static std::string Signature() {
    std::string text = std::string("=") + ClassOf<R>();
    ((text += ' ', text += ClassOf<Args>()), ...);
    return text;
  }
};

template <class F, class R, class... Args>
LaneFunction<F, R, Args...> DeduceLaneFunction(R (F::*)(Args...) const);

/// A row that applies a captureless lambda to every lane; its parameter types give the operands.
template <class F>
Row Lane(std::string pattern, F) {
  using Function = decltype(DeduceLaneFunction(&F::operator()));
  return {std::move(pattern), Function::Signature(), &Function::Run, nullptr};
}

/// Nothing to execute: hints, and orders that the machine keeps anyway.
inline void Nothing(Warp&, const Inst&, LaneMask) {}

}  // namespace quern::ptx

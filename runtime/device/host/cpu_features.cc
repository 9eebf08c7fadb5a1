#include "runtime/device/host/cpu_features.h"

#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace quern {
namespace {

enum class Register : uint8_t { kEax, kEbx, kEcx, kEdx };

/// Register state that the operating system must save: bits of XCR0 (Intel SDM, volume 1, 13.1).
enum class State : uint8_t { kNone, kAvx, kAvx512, kAmx };
constexpr uint64_t kXcr0Avx = 0x6;
constexpr uint64_t kXcr0Avx512 = kXcr0Avx | 0xe0;
constexpr uint64_t kXcr0Amx = kXcr0Avx | 0x60000;

struct Feature {
  std::string_view name;
  uint32_t leaf;
  uint32_t subleaf;
  Register reg;
  uint8_t bit;
  State state;
};

// Intel SDM, volume 2, CPUID.
constexpr Feature kFeatures[] = {
    {"sse4.2", 1, 0, Register::kEcx, 20, State::kNone},
    {"movbe", 1, 0, Register::kEcx, 22, State::kNone},
    {"lzcnt", 0x80000001, 0, Register::kEcx, 5, State::kNone},
    {"avx", 1, 0, Register::kEcx, 28, State::kAvx},
    {"fma", 1, 0, Register::kEcx, 12, State::kAvx},
    {"f16c", 1, 0, Register::kEcx, 29, State::kAvx},
    {"bmi", 7, 0, Register::kEbx, 3, State::kNone},
    {"avx2", 7, 0, Register::kEbx, 5, State::kAvx},
    {"bmi2", 7, 0, Register::kEbx, 8, State::kNone},
    {"avx512f", 7, 0, Register::kEbx, 16, State::kAvx512},
    {"avx512dq", 7, 0, Register::kEbx, 17, State::kAvx512},
    {"avx512cd", 7, 0, Register::kEbx, 28, State::kAvx512},
    {"avx512bw", 7, 0, Register::kEbx, 30, State::kAvx512},
    {"avx512vl", 7, 0, Register::kEbx, 31, State::kAvx512},
    {"avx512vbmi", 7, 0, Register::kEcx, 1, State::kAvx512},
    {"avx512vbmi2", 7, 0, Register::kEcx, 6, State::kAvx512},
    {"avx512vnni", 7, 0, Register::kEcx, 11, State::kAvx512},
    {"avx512fp16", 7, 0, Register::kEdx, 23, State::kAvx512},
    {"amx-bf16", 7, 0, Register::kEdx, 22, State::kAmx},
    {"amx-tile", 7, 0, Register::kEdx, 24, State::kAmx},
    {"amx-int8", 7, 0, Register::kEdx, 25, State::kAmx},
    {"avxvnni", 7, 1, Register::kEax, 4, State::kAvx},
    {"avx512bf16", 7, 1, Register::kEax, 5, State::kAvx512},
    {"amx-fp16", 7, 1, Register::kEax, 21, State::kAmx},
};
static_assert(std::size(kFeatures) <= 64, "a set is one 64-bit word");

int IndexOf(std::string_view name) {
  for (size_t i = 0; i < std::size(kFeatures); ++i) {
    if (kFeatures[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

/// XCR0, or 0 where the operating system does not use XSAVE. Spelt as instruction bytes so that the
/// file needs no -mxsave.
uint64_t ReadXcr0() {
  std::array<uint32_t, 4> r{};
  if (!__get_cpuid(1, &r[0], &r[1], &r[2], &r[3])) return 0;
  if (!(r[2] & (1u << 27))) return 0;  // OSXSAVE
  uint32_t low = 0, high = 0;
  __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

/// Asks Linux for the use of AMX tile data (Documentation/arch/x86/xstate.rst). Threads created
/// later inherit it.
bool RequestAmx() {
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureXtiledata = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtiledata) == 0;
}

bool StateEnabled(State state, uint64_t xcr0) {
  auto has = [xcr0](uint64_t mask) { return (xcr0 & mask) == mask; };
  switch (state) {
    case State::kNone:
      return true;
    case State::kAvx:
      return has(kXcr0Avx);
    case State::kAvx512:
      return has(kXcr0Avx512);
    case State::kAmx:
      return has(kXcr0Amx);
  }
  return false;
}

uint64_t DetectBits() {
  const uint64_t xcr0 = ReadXcr0();
  uint64_t bits = 0;
  bool any_amx = false;
  for (size_t i = 0; i < std::size(kFeatures); ++i) {
    const Feature& f = kFeatures[i];
    std::array<uint32_t, 4> r{};
    if (!__get_cpuid_count(f.leaf, f.subleaf, &r[0], &r[1], &r[2], &r[3])) continue;
    if (!((r[static_cast<size_t>(f.reg)] >> f.bit) & 1) || !StateEnabled(f.state, xcr0)) continue;
    bits |= uint64_t{1} << i;
    any_amx |= f.state == State::kAmx;
  }
  if (any_amx && !RequestAmx()) {
    for (size_t i = 0; i < std::size(kFeatures); ++i) {
      if (kFeatures[i].state == State::kAmx) bits &= ~(uint64_t{1} << i);
    }
  }
  return bits;
}

}  // namespace

CpuFeatures::CpuFeatures(std::span<const std::string_view> names) {
  for (std::string_view name : names) {
    const int index = IndexOf(name);
    if (index >= 0) bits_ |= uint64_t{1} << index;
  }
}

const CpuFeatures& CpuFeatures::Host() {
  static const CpuFeatures host = [] {
    CpuFeatures features;
    features.bits_ = DetectBits();
    return features;
  }();
  return host;
}

bool CpuFeatures::Has(std::string_view name) const {
  const int index = IndexOf(name);
  return index >= 0 && ((bits_ >> index) & 1);
}

std::vector<std::string_view> CpuFeatures::Names() const {
  std::vector<std::string_view> names;
  for (size_t i = 0; i < std::size(kFeatures); ++i) {
    if ((bits_ >> i) & 1) names.push_back(kFeatures[i].name);
  }
  return names;
}

bool CpuFeatures::IsKnown(std::string_view name) { return IndexOf(name) >= 0; }

bool CpuFeatures::IsAmx(std::string_view name) {
  const int index = IndexOf(name);
  return index >= 0 && kFeatures[index].state == State::kAmx;
}

std::string CpuBrand() {
  std::array<uint32_t, 12> r{};
  for (uint32_t i = 0; i < 3; ++i) {
    uint32_t* part = &r[4 * i];
    if (!__get_cpuid(0x80000002 + i, &part[0], &part[1], &part[2], &part[3])) return {};
  }
  char text[sizeof(r) + 1] = {};
  std::memcpy(text, r.data(), sizeof(r));
  std::string_view brand = text;
  while (!brand.empty() && brand.front() == ' ') brand.remove_prefix(1);
  while (!brand.empty() && brand.back() == ' ') brand.remove_suffix(1);
  return std::string(brand);
}

int UsableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    return std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  }
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace quern

// What the CPU can do, by the feature names that artifacts use.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace quern {

/// A set of CPU features, each named as LLVM names it ("avx512vnni", "amx-int8").
class CpuFeatures {
 public:
  /// No feature at all.
  CpuFeatures() = default;
  /// Features by name; names that this runtime does not know are ignored. For tests.
  explicit CpuFeatures(std::span<const std::string_view> names);

  /// The features of this machine that the operating system lets this process use: the CPUID bit
  /// is set, XGETBV shows that the register state is saved, and for AMX the kernel has granted the
  /// process its tiles (which this call asks for). Detected once.
  static const CpuFeatures& Host();

  /// False for a name that this runtime does not know.
  bool Has(std::string_view name) const;
  /// The names of all features in the set, in the table's order.
  std::vector<std::string_view> Names() const;

  /// Whether the runtime knows `name` at all.
  static bool IsKnown(std::string_view name);
  /// Whether `name` is one of the AMX features, which an emulator can stand in for (target.h).
  static bool IsAmx(std::string_view name);

 private:
  uint64_t bits_ = 0;  // by index of the feature table
};

/// The CPU's brand string, such as "Intel(R) Xeon(R) Platinum 8481C"; empty where there is none.
std::string CpuBrand();

/// Number of CPUs that this process may run on, at least 1.
int UsableCpus();

}  // namespace quern

// What this machine can do at most: how fast it reads memory, and how fast it multiplies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace quern::tools {

/// Threads that read `bytes` bytes over and over, each its own contiguous part. They live only
/// while they are measured.
class ReadLoop {
 public:
  ReadLoop(uint64_t bytes, int threads);
  ~ReadLoop();
  ReadLoop(const ReadLoop&) = delete;
  ReadLoop& operator=(const ReadLoop&) = delete;

  /// Bytes a second that all reach together, of each pass that begins within `seconds`, some at
  /// least; ascending. Empty where there is no memory for them.
  std::vector<double> Rates(double seconds) const;
  /// The best of some tenths of a second; 0 where there is no memory for it.
  double BestRate() const;

 private:
  uint64_t lines_, mapped_;
  int threads_;
  std::byte* memory_;
};

/// Loops of products in registers; one of a table.
struct ProductUnit;

/// The unit that a kernel of `arithmetic` ("F32", "Int8", "Int16", "Bf16") uses on target `target`
/// when `generator` made it. Null when none is known: nothing is measured for it.
const ProductUnit* FindProductUnit(std::string_view target, std::string_view generator,
                                   std::string_view arithmetic);

/// "512-bit FMA".
std::string_view UnitName(const ProductUnit& unit);

/// Operations a second (a product and its addition are two) that `threads` threads reach together
/// when they do nothing else. Precondition: the machine has the target's features.
double MeasureProductRate(const ProductUnit& unit, int threads);

}  // namespace quern::tools

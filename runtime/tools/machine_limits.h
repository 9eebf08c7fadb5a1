// What this machine can do at most: how fast it reads memory, and how fast it multiplies.
#pragma once

#include <cstdint>
#include <string_view>

namespace quern::tools {

/// Bytes a second that `threads` threads reach together when they read `bytes` bytes over and over,
/// each its own contiguous part: the best pass of some tenths of a second. 0 where there is no
/// memory for it.
double MeasureReadRate(uint64_t bytes, int threads);

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

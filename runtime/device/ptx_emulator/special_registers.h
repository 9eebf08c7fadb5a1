// Registers that the machine fills: %tid.x, %laneid and the like.
#pragma once

#include <optional>
#include <string_view>

#include "runtime/device/ptx_emulator/program.h"

namespace quern::ptx {

class Cta;

struct SpecialName {
  SpecialRegister which;
  uint32_t axis;  ///< 0 to 2: x to z; 0 where there are none.
  bool wide;      ///< 64 bits.
};

/// What "%ctaid.y" means, if it is a special register.
std::optional<SpecialName> FindSpecialRegister(std::string_view name);

/// Its value in lane `lane` of warp `warp`.
uint64_t SpecialValue(SpecialRegister which, uint32_t axis, const Cta& cta, uint32_t warp,
                      uint32_t lane);

}  // namespace quern::ptx

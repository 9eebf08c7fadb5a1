// What a device says of the best logits of a row.
#pragma once

#include <cstdint>

namespace quern {

/// A token and its logit.
struct Candidate {
  float logit;
  int32_t token;
};

}  // namespace quern

// tcgen05: the tensor cores and tensor memory of sm_100a. PTX ISA 9.7.16.
#include "runtime/device/ptx_emulator/ops.h"

namespace quern::ptx {

std::span<const Row> Tcgen05Rows() { return {}; }

}  // namespace quern::ptx

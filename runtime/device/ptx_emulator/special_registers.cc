#include "runtime/device/ptx_emulator/special_registers.h"

#include "runtime/device/ptx_emulator/machine.h"

namespace quern::ptx {
namespace {

struct TableRow {
  std::string_view name;
  SpecialRegister which;
  bool axes;
  bool wide;
};
constexpr TableRow kNames[] = {
    {"%tid", SpecialRegister::kTid, true, false},
    {"%ntid", SpecialRegister::kNtid, true, false},
    {"%ctaid", SpecialRegister::kCtaid, true, false},
    {"%nctaid", SpecialRegister::kNctaid, true, false},
    {"%clusterid", SpecialRegister::kClusterid, true, false},
    {"%nclusterid", SpecialRegister::kNclusterid, true, false},
    {"%cluster_ctaid", SpecialRegister::kClusterCtaid, true, false},
    {"%cluster_nctaid", SpecialRegister::kClusterNctaid, true, false},
    {"%laneid", SpecialRegister::kLaneid, false, false},
    {"%warpid", SpecialRegister::kWarpid, false, false},
    {"%nwarpid", SpecialRegister::kNwarpid, false, false},
    {"%gridid", SpecialRegister::kGridid, false, true},
    {"%smid", SpecialRegister::kSmid, false, false},
    {"%nsmid", SpecialRegister::kNsmid, false, false},
    {"%cluster_ctarank", SpecialRegister::kClusterCtarank, false, false},
    {"%cluster_nctarank", SpecialRegister::kClusterNctarank, false, false},
    {"%is_explicit_cluster", SpecialRegister::kIsExplicitCluster, false, false},
    {"%lanemask_eq", SpecialRegister::kLanemaskEq, false, false},
    {"%lanemask_le", SpecialRegister::kLanemaskLe, false, false},
    {"%lanemask_lt", SpecialRegister::kLanemaskLt, false, false},
    {"%lanemask_ge", SpecialRegister::kLanemaskGe, false, false},
    {"%lanemask_gt", SpecialRegister::kLanemaskGt, false, false},
    {"%dynamic_smem_size", SpecialRegister::kDynamicSmemSize, false, false},
    {"%total_smem_size", SpecialRegister::kTotalSmemSize, false, false},
    {"%clock", SpecialRegister::kClock, false, false},
    {"%clock64", SpecialRegister::kClock, false, true},
    {"%globaltimer", SpecialRegister::kClock, false, true},
};

}  // namespace

std::optional<SpecialName> FindSpecialRegister(std::string_view name) {
  const size_t dot = name.find('.');
  for (const TableRow& row : kNames) {
    if (row.name != name.substr(0, dot) || row.axes != (dot != std::string_view::npos)) continue;
    if (!row.axes) return SpecialName{row.which, 0, row.wide};
    const std::string_view axis = name.substr(dot + 1);
    if (axis.size() != 1 || axis[0] < 'x' || axis[0] > 'z') return std::nullopt;
    return SpecialName{row.which, static_cast<uint32_t>(axis[0] - 'x'), row.wide};
  }
  return std::nullopt;
}

uint64_t SpecialValue(SpecialRegister which, uint32_t axis, const Cta& cta, uint32_t warp,
                      uint32_t lane) {
  const LaunchOptions& options = cta.context().options;
  const auto& block = options.block;
  const auto& cluster = options.cluster;
  const uint32_t thread = warp * kLanes + lane, bit = 1u << lane;
  const uint32_t threads = block[0] * block[1] * block[2];
  switch (which) {
    case SpecialRegister::kTid:
      return axis == 0   ? thread % block[0]
             : axis == 1 ? thread / block[0] % block[1]
                         : thread / block[0] / block[1];
    case SpecialRegister::kNtid:
      return block[axis];
    case SpecialRegister::kCtaid:
      return cta.index[axis];
    case SpecialRegister::kNctaid:
      return options.grid[axis];
    case SpecialRegister::kClusterid:
      return cta.index[axis] / cluster[axis];
    case SpecialRegister::kNclusterid:
      return options.grid[axis] / cluster[axis];
    case SpecialRegister::kClusterCtaid:
      return cta.index[axis] % cluster[axis];
    case SpecialRegister::kClusterNctaid:
      return cluster[axis];
    case SpecialRegister::kLaneid:
      return lane;
    case SpecialRegister::kWarpid:
      return warp;
    case SpecialRegister::kNwarpid:
      return (threads + kLanes - 1) / kLanes;
    case SpecialRegister::kGridid:
      return 1;
    case SpecialRegister::kSmid:
      return 0;
    case SpecialRegister::kNsmid:
      return 1;
    case SpecialRegister::kClusterCtarank:
      return cta.rank();
    case SpecialRegister::kClusterNctarank:
      return cluster[0] * cluster[1] * cluster[2];
    case SpecialRegister::kIsExplicitCluster:
      return cluster[0] * cluster[1] * cluster[2] > 1;
    case SpecialRegister::kLanemaskEq:
      return bit;
    case SpecialRegister::kLanemaskLt:
      return bit - 1;
    case SpecialRegister::kLanemaskLe:
      return bit | (bit - 1);
    case SpecialRegister::kLanemaskGt:
      return ~(bit | (bit - 1));
    case SpecialRegister::kLanemaskGe:
      return ~(bit - 1);
    case SpecialRegister::kDynamicSmemSize:
      return options.shared_bytes;
    case SpecialRegister::kTotalSmemSize:
      return cta.shared.size();
    case SpecialRegister::kClock:
      return 0;
  }
  return 0;
}

}  // namespace quern::ptx

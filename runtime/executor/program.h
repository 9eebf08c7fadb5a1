// The runtime program, ready to walk: kernels as addresses, weights as pointers.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/device/host/code_image.h"
#include "runtime/schema/artifact_generated.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {

inline constexpr int kRoleCount = 2;

/// One target's kernels, by the manifest's kernel index.
struct KernelTable {
  struct Kernel {
    /// By schema::Role.
    std::array<KernelEntry, kRoleCount> entries{};
  };
  std::vector<Kernel> kernels;
  /// The most that any of them needs, per thread.
  uint64_t scratch_bytes = 0;

  /// The kernels of target `target`, entered in `image`.
  static KernelTable FromImage(const schema::Manifest& manifest, size_t target,
                               const CodeImage& image);
};

/// An instruction: a join, or one kernel's dispatch.
struct Instruction {
  schema::Op op = schema::Op::Join;
  schema::JoinWhen when = schema::JoinWhen::Always;

  uint32_t kernel = 0;
  std::array<KernelEntry, kRoleCount> entries{};
  schema::Split split = schema::Split::Rows;
  schema::RowClass row_class = schema::RowClass::Tokens;
  std::vector<schema::Arg> args;
  /// (shares, segments, 2)
  std::vector<int64_t> ranges;
  size_t segments = 0;
};

/// One call of a body.
struct BodyCall {
  uint32_t body = 0;
  /// (weight slots, shares)
  std::vector<const uint8_t*> weights;
};

struct BufferPlan {
  uint64_t bytes_per_row = 0;
  uint64_t offset = 0;
  uint64_t private_offset = 0;
  schema::RowClass row_class = schema::RowClass::Tokens;
  bool per_thread = false;
};

/// Everything that the executor reads while it runs. Points into the artifact's weights and the
/// code image, which must outlive it.
struct Program {
  uint32_t shares = 1;
  uint32_t vocab = 0;
  std::vector<std::string> kernel_names;
  std::vector<BufferPlan> buffers;
  std::vector<std::vector<Instruction>> bodies;
  BodyCall prologue;
  std::vector<BodyCall> layers;
  BodyCall epilogue;
  /// (layers)
  std::vector<schema::KvLayer> kv;
  /// By schema::RowClass.
  std::array<uint64_t, 2> arena_bytes_per_row{};
  uint64_t private_bytes_per_row = 0;
  uint64_t scratch_bytes = 0;

  /// Precondition: the loader checked `manifest` and `weights`, and `kernels` has all its kernels.
  static Program Build(const schema::Manifest& manifest, const KernelTable& kernels,
                       std::span<const uint8_t> weights);
};

}  // namespace quern

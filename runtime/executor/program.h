// The runtime program, ready to walk on any device.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/executor/attention_work.h"
#include "runtime/schema/artifact_generated.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {

inline constexpr int kRoleCount = 2;

/// What a dispatch computes and moves over all shares: schema::KernelWork, and the weights.
struct DispatchWork {
  uint64_t flops_per_row = 0;
  uint64_t flops_per_pair = 0;
  uint64_t bytes_per_row = 0;
  uint64_t bytes_per_key = 0;
  uint64_t window = 0;
  /// Weights that are read whole, whatever the number of rows.
  uint64_t weight_bytes = 0;
};

/// An instruction: a join, or one kernel's dispatch.
struct Instruction {
  schema::Op op = schema::Op::Join;
  schema::JoinWhen when = schema::JoinWhen::Always;

  uint32_t kernel = 0;
  schema::Split split = schema::Split::Rows;
  schema::RowClass row_class = schema::RowClass::Tokens;
  std::vector<schema::Arg> args;
  /// (shares, segments, 2)
  std::vector<int64_t> ranges;
  size_t segments = 0;
  /// The second of an attention kernel's dispatches: it merges parts (AttentionWork).
  bool merge = false;
  /// Index in Program::attention of a dispatch that reads the layer's pages; -1 of others.
  int32_t attention = -1;
  DispatchWork work;
};

/// One call of a body.
struct BodyCall {
  uint32_t body = 0;
  /// (weight slots, shares) offsets in the weights segment.
  std::vector<uint64_t> weight_offsets;
};

struct BufferPlan {
  uint64_t bytes_per_row = 0;
  uint64_t offset = 0;
  uint64_t private_offset = 0;
  schema::RowClass row_class = schema::RowClass::Tokens;
  bool per_thread = false;
};

/// Everything that an executor reads while it runs, but for code and weights.
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
  /// The different cuts of its attention kernels.
  std::vector<AttentionCut> attention;
  /// Of them, AttentionCut::state_bytes() at most.
  uint64_t state_bytes = 0;
  /// By schema::RowClass.
  std::array<uint64_t, 2> arena_bytes_per_row{};
  uint64_t private_bytes_per_row = 0;

  /// Precondition: the loader checked `manifest`.
  static Program Build(const schema::Manifest& manifest);

  /// Lets no attention be cut in parts of contexts, nor need memory for their states: one thread
  /// would do them one after the other.
  void KeepContextsWhole();

  /// Lets the work of dispatches count keys and values as HostKvPageBytes has them; the manifest
  /// counts a GPU's pages. Called once.
  void CountHostPages();
};

}  // namespace quern

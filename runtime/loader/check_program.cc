// The program of a manifest: bodies, their instructions, and the calls that give them weights.
#include <algorithm>
#include <functional>
#include <vector>

#include "runtime/loader/manifest_check.h"
#include "runtime/schema/file_header.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {
namespace {

using schema::Access;
using schema::Arg;
using schema::ArgKind;
using schema::Instruction;

/// The parts of a program, in order.
enum class Section { kPrologue, kLayer, kEpilogue };

/// Widths that a range may run over: no range of a sound artifact ends beyond the widest.
uint64_t WidestDimension(const ManifestCheck& check) {
  const schema::ModelInfo& model = *check.manifest.model();
  uint64_t widest = std::max<uint64_t>(
      {model.vocab(), model.hidden(), model.ffn(), uint64_t{model.heads()} * model.head_dim()});
  for (const schema::Body* body : *check.manifest.bodies()) {
    for (const schema::WeightSlot* slot : *body->weights()) {
      widest = std::max({widest, slot->n(), slot->k()});
    }
  }
  return (widest + 15) / 16 * 16;  // weights are padded to 16 rows
}

/// Checks one body; what depends on where it is called is left to the calls.
class BodyCheck {
 public:
  BodyCheck(const ManifestCheck& check, size_t index, uint64_t widest)
      : check_(check),
        body_(*check.manifest.bodies()->Get(static_cast<uint32_t>(index))),
        name_(Item("bodies", index)),
        widest_(widest) {}

  Status Run() {
    for (size_t i = 0; i < body_.weights()->size(); ++i) QUERN_RETURN_IF_ERROR(CheckSlot(i));
    for (size_t i = 0; i < body_.instructions()->size(); ++i) {
      const Instruction& instruction = *body_.instructions()->Get(i);
      item_ = name_ + "." + Item("instructions", i);
      if (!IsKnown(instruction.op())) return BadEnum(".op", instruction, instruction.op());
      if (instruction.op() == schema::Op::Join) {
        if (!IsKnown(instruction.when())) return BadEnum(".when", instruction, instruction.when());
        shares_meet_ |= instruction.when() != schema::JoinWhen::Rows;
        continue;
      }
      QUERN_RETURN_IF_ERROR(CheckDispatch(instruction));
      if (instruction.merge()) QUERN_RETURN_IF_ERROR(CheckMerge(instruction));
      previous_ = &instruction;
      shares_meet_ = false;
    }
    return {};
  }

 private:
  template <typename Enum>
  Status BadEnum(const char* field, const Instruction& at, Enum value) const {
    return check_.Bad(item_ + field, &at, static_cast<uint64_t>(value), "a known value");
  }

  Status CheckSlot(size_t index) const {
    const schema::WeightSlot& slot = *body_.weights()->Get(static_cast<uint32_t>(index));
    const std::string name = name_ + "." + Item("weights", index);
    constexpr uint64_t kMaxDimension = uint64_t{1} << 32;
    if (slot.n() == 0 || slot.n() > kMaxDimension) {
      return check_.Bad(name + ".n", &slot, slot.n(), "1 to 2^32");
    }
    if (slot.k() == 0 || slot.k() > kMaxDimension) {
      return check_.Bad(name + ".k", &slot, slot.k(), "1 to 2^32");
    }
    if (!IsKnown(slot.split())) {
      return check_.Bad(name + ".split", &slot, static_cast<uint64_t>(slot.split()), "0 to 2");
    }
    if (slot.sizes()->size() != check_.manifest.shares()) {
      return check_.Bad(name + ".sizes", &slot, std::to_string(slot.sizes()->size()) + " entries",
                        "one a share");
    }
    return {};
  }

  Status CheckDispatch(const Instruction& d) {
    if (d.kernel() >= check_.manifest.kernels()->size()) {
      return check_.Bad(item_ + ".kernel", &d, d.kernel(), "the index of a kernel");
    }
    if (!IsKnown(d.split())) return BadEnum(".split", d, d.split());
    if (!IsKnown(d.row_class())) return BadEnum(".row_class", d, d.row_class());
    const schema::Kernel& kernel = *check_.manifest.kernels()->Get(d.kernel());
    const size_t args = d.args() ? d.args()->size() : 0;
    if (args != kernel.argument_count()) {
      return check_.Bad(item_ + ".args", &d, std::to_string(args) + " entries",
                        std::to_string(kernel.argument_count()) + " as kernel " +
                            kernel.name()->str() + " takes");
    }
    QUERN_RETURN_IF_ERROR(CheckRanges(d, kernel));
    QUERN_RETURN_IF_ERROR(CheckGpuGrids(check_, d, item_));
    for (size_t i = 0; i < args; ++i) {
      QUERN_RETURN_IF_ERROR(CheckArg(d, *d.args()->Get(i), item_ + "." + Item("args", i)));
    }
    return {};
  }

  /// A merge repeats the dispatch before it, in which shares read pages and leave states, behind a
  /// join that steps with states have.
  Status CheckMerge(const Instruction& d) const {
    if (previous_ && !previous_->merge() && Repeats(d, *previous_) && Attends(d)) {
      if (shares_meet_) return {};
      return check_.Bad(item_ + ".merge", &d, "true",
                        "a join of kind split or always before the merge");
    }
    return check_.Bad(item_ + ".merge", &d, "true",
                      "false, or the dispatch of attention over shares before it once more");
  }

  /// The same dispatch twice.
  static bool Repeats(const Instruction& a, const Instruction& b) {
    const auto same_arg = [](const Arg* x, const Arg* y) {
      return x->kind() == y->kind() && x->access() == y->access() && x->index() == y->index();
    };
    return a.kernel() == b.kernel() && a.split() == b.split() && a.row_class() == b.row_class() &&
           AreEqual(a.args(), b.args(), same_arg) &&
           AreEqual(a.ranges(), b.ranges(), std::equal_to<>());
  }

  /// Null is an empty vector.
  template <typename Vector, typename Same>
  static bool AreEqual(const Vector* a, const Vector* b, Same same) {
    const bool a_empty = !a || a->size() == 0, b_empty = !b || b->size() == 0;
    if (a_empty || b_empty) return a_empty && b_empty;
    return std::equal(a->begin(), a->end(), b->begin(), b->end(), same);
  }

  /// Shares read pages and have a place for states.
  static bool Attends(const Instruction& d) {
    bool pages = false, states = false;
    for (uint32_t i = 0; d.args() && i < d.args()->size(); ++i) {
      const Arg& arg = *d.args()->Get(i);
      pages |= arg.kind() == ArgKind::Kv && arg.access() == Access::Read;
      states |= arg.kind() == ArgKind::Step &&
                arg.index() == static_cast<uint32_t>(schema::StepInput::AttentionStates);
    }
    return pages && states && d.split() == schema::Split::Shares;
  }

  Status CheckRanges(const Instruction& d, const schema::Kernel& kernel) const {
    const uint32_t shares = check_.manifest.shares();
    const uint32_t segments = kernel.range_count();
    const size_t count = d.ranges() ? d.ranges()->size() : 0;
    const size_t wanted = d.split() == schema::Split::Rows ? 0 : size_t{2} * shares * segments;
    if (count != wanted) {
      return check_.Bad(item_ + ".ranges", &d, std::to_string(count) + " entries",
                        std::to_string(wanted));
    }
    if (wanted == 0) return {};
    for (uint32_t segment = 0; segment < segments; ++segment) {
      int64_t previous_end = 0;
      for (uint32_t share = 0; share < shares; ++share) {
        const uint32_t at = 2 * (share * segments + segment);
        const int64_t begin = d.ranges()->Get(at), end = d.ranges()->Get(at + 1);
        if (begin < previous_end || end < begin || end > static_cast<int64_t>(widest_)) {
          return check_.Bad(item_ + "." + Item("ranges", at), &d,
                            "[" + std::to_string(begin) + ", " + std::to_string(end) + ")",
                            "a range from " + std::to_string(previous_end) + " up to at most " +
                                std::to_string(widest_));
        }
        previous_end = end;
      }
    }
    return {};
  }

  Status CheckArg(const Instruction& d, const Arg& arg, const std::string& name) const {
    if (!IsKnown(arg.kind())) {
      return check_.Bad(name + ".kind", &arg, static_cast<uint64_t>(arg.kind()), "0 to 5");
    }
    if (!IsKnown(arg.access())) {
      return check_.Bad(name + ".access", &arg, static_cast<uint64_t>(arg.access()), "0 to 2");
    }
    switch (arg.kind()) {
      case ArgKind::Activation:
      case ArgKind::Partial:
        QUERN_RETURN_IF_ERROR(CheckBufferArg(d, arg, name));
        break;
      case ArgKind::Step:
        if (arg.index() > static_cast<uint32_t>(schema::StepInput::MAX)) {
          return check_.Bad(name + ".index", &arg, arg.index(), "a known step input");
        }
        if (arg.index() == static_cast<uint32_t>(schema::StepInput::AttentionStates)) break;
        QUERN_RETURN_IF_ERROR(CheckReadOnly(arg, name));
        break;
      case ArgKind::Weight:
        if (arg.index() >= body_.weights()->size()) {
          return check_.Bad(name + ".index", &arg, arg.index(), "the index of a weight slot");
        }
        QUERN_RETURN_IF_ERROR(CheckReadOnly(arg, name));
        break;
      case ArgKind::Kv:
      case ArgKind::Logits:
        if (arg.index() != 0) return check_.Bad(name + ".index", &arg, arg.index(), "0");
        if (arg.access() != Access::Read && d.split() == schema::Split::Rows) {
          return check_.Bad(name + ".access", &arg, "Write",
                            "Read in a dispatch that is split over rows");
        }
        break;
    }
    return {};
  }

  Status CheckReadOnly(const Arg& arg, const std::string& name) const {
    if (arg.access() == Access::Read) return {};
    return check_.Bad(name + ".access", &arg, "Write", "Read for weights and step inputs");
  }

  Status CheckBufferArg(const Instruction& d, const Arg& arg, const std::string& name) const {
    if (arg.index() >= check_.manifest.buffers()->size()) {
      return check_.Bad(name + ".index", &arg, arg.index(), "the index of a buffer");
    }
    const schema::Buffer& buffer = *check_.manifest.buffers()->Get(arg.index());
    if (arg.kind() == ArgKind::Partial &&
        (buffer.copies() != check_.manifest.shares() || d.split() != schema::Split::Shares)) {
      return check_.Bad(name + ".kind", &arg, "Partial",
                        "Activation but for a buffer with a copy a share in a split over shares");
    }
    if (arg.access() == Access::Read) return {};
    if (buffer.row_class() != d.row_class()) {
      return check_.Bad(name + ".index", &arg, buffer.name()->str(),
                        "a written buffer of the dispatch's row class");
    }
    if (buffer.per_thread() != (d.split() == schema::Split::Rows)) {
      return check_.Bad(name + ".index", &arg, buffer.name()->str(),
                        buffer.per_thread() ? "no per_thread buffer written by a split over shares"
                                            : "a per_thread buffer written by a split over rows");
    }
    return {};
  }

  const ManifestCheck& check_;
  const schema::Body& body_;
  const std::string name_;
  const uint64_t widest_;
  std::string item_;                       // the instruction at hand
  const Instruction* previous_ = nullptr;  // dispatch
  bool shares_meet_ = false;               // since the previous dispatch, wherever they must
};

/// What only some sections may use: pages in layers, the caller's logits and the rows that need
/// them in the epilogue.
Status CheckSection(const ManifestCheck& check, const schema::BodyCall& call, Section section,
                    const std::string& name) {
  const schema::Body& body = *check.manifest.bodies()->Get(call.body());
  for (const Instruction* d : *body.instructions()) {
    if (d->op() != schema::Op::Dispatch) continue;
    bool logits = d->row_class() == schema::RowClass::Logits;
    bool kv = false;
    for (uint32_t i = 0; d->args() && i < d->args()->size(); ++i) {
      const Arg& arg = *d->args()->Get(i);
      kv |= arg.kind() == ArgKind::Kv;
      logits |= arg.kind() == ArgKind::Logits;
      logits |= arg.kind() == ArgKind::Step &&
                arg.index() == static_cast<uint32_t>(schema::StepInput::LogitRows);
    }
    if (kv && section != Section::kLayer) {
      return check.Bad(name + ".body", &call, body.name()->str(), "a body without Kv arguments");
    }
    if (logits && section != Section::kEpilogue) {
      return check.Bad(name + ".body", &call, body.name()->str(),
                       "a body that leaves logits to the epilogue");
    }
  }
  return {};
}

Status CheckCall(const ManifestCheck& check, const schema::BodyCall& call, Section section,
                 const std::string& name) {
  if (call.body() >= check.manifest.bodies()->size()) {
    return check.Bad(name + ".body", &call, call.body(), "the index of a body");
  }
  const schema::Body& body = *check.manifest.bodies()->Get(call.body());
  const uint32_t shares = check.manifest.shares();
  const size_t wanted = size_t{body.weights()->size()} * shares;
  if (call.weight_offsets()->size() != wanted) {
    return check.Bad(name + ".weight_offsets", &call,
                     std::to_string(call.weight_offsets()->size()) + " entries",
                     std::to_string(wanted));
  }
  const uint64_t weight_bytes = check.WeightBytes();
  for (uint32_t slot = 0; slot < body.weights()->size(); ++slot) {
    for (uint32_t share = 0; share < shares; ++share) {
      const uint64_t offset = call.weight_offsets()->Get(slot * shares + share);
      const uint64_t size = body.weights()->Get(slot)->sizes()->Get(share);
      if (offset % kBufferAlignment != 0 || SaturatingAdd(offset, size) > weight_bytes) {
        return check.Bad(name + "." + Item("weight_offsets", slot * shares + share), &call, offset,
                         "a multiple of 64 such that " + std::to_string(size) +
                             " bytes end within the weights' " + std::to_string(weight_bytes));
      }
    }
  }
  return CheckSection(check, call, section, name);
}

}  // namespace

Status CheckProgram(const ManifestCheck& check) {
  const schema::Manifest& m = check.manifest;
  const uint64_t widest = WidestDimension(check);
  for (size_t i = 0; i < m.bodies()->size(); ++i) {
    QUERN_RETURN_IF_ERROR(BodyCheck(check, i, widest).Run());
  }
  QUERN_RETURN_IF_ERROR(CheckCall(check, *m.prologue(), Section::kPrologue, "prologue"));
  for (size_t i = 0; i < m.layers()->size(); ++i) {
    QUERN_RETURN_IF_ERROR(
        CheckCall(check, *m.layers()->Get(i), Section::kLayer, Item("layers", i)));
  }
  return CheckCall(check, *m.epilogue(), Section::kEpilogue, "epilogue");
}

}  // namespace quern

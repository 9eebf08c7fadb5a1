// The tables of a manifest: model, segments, targets, kernels, buffers, KV.
#include <algorithm>
#include <vector>

#include "runtime/loader/manifest_check.h"
#include "runtime/schema/file_header.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {
namespace {

/// Bounds far above any model, low enough that products of two fit 64 bits.
constexpr uint64_t kMaxDimension = uint64_t{1} << 24;
constexpr uint64_t kMaxBytesPerRow = uint64_t{1} << 32;
constexpr uint64_t kMaxScratch = uint64_t{1} << 32;
constexpr uint32_t kMaxLayers = 1u << 16;

Status CheckModel(const ManifestCheck& check) {
  const schema::ModelInfo& model = *check.manifest.model();
  const struct {
    const char* name;
    uint64_t value;
    uint64_t limit;
  } dimensions[] = {
      {"vocab", model.vocab(), kMaxDimension},       {"hidden", model.hidden(), kMaxDimension},
      {"layers", model.layers(), kMaxLayers},        {"heads", model.heads(), kMaxDimension},
      {"kv_heads", model.kv_heads(), kMaxDimension}, {"head_dim", model.head_dim(), 1u << 16},
      {"ffn", model.ffn(), kMaxDimension},           {"context", model.context(), 1u << 30},
  };
  for (const auto& d : dimensions) {
    if (d.value == 0 || d.value > d.limit) {
      return check.Bad(std::string("model.") + d.name, &model, d.value,
                       "1 to " + std::to_string(d.limit));
    }
  }
  if (check.manifest.layers()->size() != model.layers()) {
    return check.Bad("layers", check.manifest.layers(),
                     std::to_string(check.manifest.layers()->size()) + " entries",
                     std::to_string(model.layers()));
  }
  const uint32_t shares = check.manifest.shares();
  if (shares == 0 || shares > kMaxShares) {
    return check.Bad("shares", &check.manifest, shares, "1 to " + std::to_string(kMaxShares));
  }
  return {};
}

/// Segments lie in the file behind the header and do not overlap.
Status CheckSegments(const ManifestCheck& check) {
  const auto& segments = *check.manifest.segments();
  size_t weights = 0, tokenizers = 0;
  std::vector<const schema::Segment*> in_order;
  for (size_t i = 0; i < segments.size(); ++i) {
    const schema::Segment& s = *segments.Get(i);
    const std::string name = Item("segments", i);
    if (!IsKnown(s.kind())) {
      return check.Bad(name + ".kind", &s, static_cast<uint64_t>(s.kind()), "a known kind");
    }
    if (s.offset() % kSegmentAlignment != 0 || s.offset() == 0 || s.offset() > check.file.size()) {
      return check.Bad(name + ".offset", &s, s.offset(),
                       "a multiple of 4096 within the file's " + std::to_string(check.file.size()));
    }
    if (s.size() > check.file.size() - s.offset()) {
      return check.Bad(name + ".size", &s, s.size(),
                       "at most the " + std::to_string(check.file.size() - s.offset()) +
                           " bytes up to the file's end (a shorter file was cut off)");
    }
    weights += s.kind() == schema::SegmentKind::Weights;
    tokenizers += s.kind() == schema::SegmentKind::Tokenizer;
    in_order.push_back(&s);
  }
  if (weights != 1 || tokenizers > 1) {
    return check.Bad(
        "segments", check.manifest.segments(),
        std::to_string(weights) + " weights and " + std::to_string(tokenizers) + " tokenizers",
        "1 and at most 1");
  }
  std::sort(in_order.begin(), in_order.end(),
            [](const auto* a, const auto* b) { return a->offset() < b->offset(); });
  for (size_t i = 1; i < in_order.size(); ++i) {
    const schema::Segment& before = *in_order[i - 1];
    if (before.offset() + before.size() > in_order[i]->offset()) {
      return check.Bad("segments (" + in_order[i]->name()->str() + ").offset", in_order[i],
                       in_order[i]->offset(), "beyond the end of " + before.name()->str());
    }
  }
  return {};
}

Status CheckTargets(const ManifestCheck& check) {
  const auto& targets = *check.manifest.targets();
  if (targets.size() == 0 || targets.size() > 64) {
    return check.Bad("targets", &targets, std::to_string(targets.size()) + " entries", "1 to 64");
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    const schema::Target& t = *targets.Get(i);
    const std::string name = Item("targets", i);
    if (!IsKnown(t.kind())) {
      return check.Bad(name + ".kind", &t, static_cast<uint64_t>(t.kind()), "0 or 1");
    }
    const bool gpu = t.kind() == schema::TargetKind::Gpu;
    const schema::SegmentKind wanted =
        gpu ? schema::SegmentKind::Ptx : schema::SegmentKind::HostCode;
    const uint32_t code = t.code_segment();
    if (code >= check.manifest.segments()->size() ||
        check.manifest.segments()->Get(code)->kind() != wanted) {
      return check.Bad(
          name + ".code_segment", &t, code,
          std::string("the index of a ") + schema::EnumNameSegmentKind(wanted) + " segment");
    }
    if (gpu) QUERN_RETURN_IF_ERROR(CheckGpuTarget(check, t, name));
    for (size_t j = 0; j < i; ++j) {
      if (targets.Get(j)->name()->string_view() == t.name()->string_view()) {
        return check.Bad(name + ".name", &t, t.name()->str(), "a name of its own");
      }
    }
  }
  return {};
}

/// A kernel has exactly one code for each host target and role.
Status CheckCodes(const ManifestCheck& check, const schema::Kernel& kernel,
                  const std::string& name) {
  const auto& codes = *kernel.codes();
  const size_t wanted = 2 * check.CountTargets(schema::TargetKind::Host);
  if (codes.size() != wanted) {
    return check.Bad(name + ".codes", &codes, std::to_string(codes.size()) + " entries",
                     std::to_string(wanted) + ", one a host target and role");
  }
  std::vector<bool> seen(size_t{2} * check.manifest.targets()->size(), false);
  for (size_t i = 0; i < codes.size(); ++i) {
    const schema::KernelCode& code = *codes.Get(i);
    const std::string item = name + "." + Item("codes", i);
    if (!check.IsTarget(code.target(), schema::TargetKind::Host)) {
      return check.Bad(item + ".target", &code, code.target(), "the index of a host target");
    }
    if (!IsKnown(code.role())) {
      return check.Bad(item + ".role", &code, static_cast<uint64_t>(code.role()), "0 or 1");
    }
    const size_t index = 2 * code.target() + static_cast<size_t>(code.role());
    if (seen[index]) return check.Bad(item, &code, "a second one", "one a target and role");
    seen[index] = true;
    const uint32_t segment = check.manifest.targets()->Get(code.target())->code_segment();
    const uint64_t bytes = check.manifest.segments()->Get(segment)->size();
    if (code.offset() % kKernelAlignment != 0 || code.offset() >= bytes) {
      return check.Bad(item + ".offset", &code, code.offset(),
                       "a multiple of 64 below the segment's " + std::to_string(bytes));
    }
    if (code.scratch_bytes() > kMaxScratch) {
      return check.Bad(item + ".scratch_bytes", &code, code.scratch_bytes(),
                       "at most " + std::to_string(kMaxScratch));
    }
  }
  return {};
}

/// Nothing is executed by a form, but reports look its target up.
Status CheckForms(const ManifestCheck& check, const schema::Kernel& kernel,
                  const std::string& name) {
  std::vector<bool> seen(size_t{2} * check.manifest.targets()->size(), false);
  for (uint32_t i = 0; kernel.forms() && i < kernel.forms()->size(); ++i) {
    const schema::KernelForm& form = *kernel.forms()->Get(i);
    const std::string item = name + "." + Item("forms", i);
    if (form.target() >= check.manifest.targets()->size()) {
      return check.Bad(item + ".target", &form, form.target(), "the index of a target");
    }
    if (!IsKnown(form.role())) {
      return check.Bad(item + ".role", &form, static_cast<uint64_t>(form.role()), "0 or 1");
    }
    if (!IsKnown(form.arithmetic())) {
      return check.Bad(item + ".arithmetic", &form, static_cast<uint64_t>(form.arithmetic()),
                       "a known arithmetic");
    }
    const size_t index = 2 * form.target() + static_cast<size_t>(form.role());
    if (seen[index]) return check.Bad(item, &form, "a second one", "one a target and role");
    seen[index] = true;
  }
  return {};
}

Status CheckKernels(const ManifestCheck& check) {
  const auto& kernels = *check.manifest.kernels();
  for (size_t i = 0; i < kernels.size(); ++i) {
    const schema::Kernel& kernel = *kernels.Get(i);
    const std::string name = Item("kernels", i);
    if (kernel.argument_count() > kMaxKernelArgs) {
      return check.Bad(name + ".argument_count", &kernel, kernel.argument_count(),
                       "at most " + std::to_string(kMaxKernelArgs));
    }
    if (kernel.range_count() > kMaxRangeSegments) {
      return check.Bad(name + ".range_count", &kernel, kernel.range_count(),
                       "at most " + std::to_string(kMaxRangeSegments));
    }
    QUERN_RETURN_IF_ERROR(CheckCodes(check, kernel, name));
    QUERN_RETURN_IF_ERROR(CheckGpuCodes(check, kernel, name));
    QUERN_RETURN_IF_ERROR(CheckForms(check, kernel, name));
  }
  return {};
}

Status CheckArena(const ManifestCheck& check) {
  const schema::Manifest& m = check.manifest;
  for (const auto& [name, bytes] :
       {std::pair("token_bytes_per_row", m.token_bytes_per_row()),
        std::pair("logit_bytes_per_row", m.logit_bytes_per_row()),
        std::pair("private_bytes_per_row", m.private_bytes_per_row())}) {
    if (bytes > kMaxBytesPerRow || bytes % kBufferAlignment != 0) {
      return check.Bad(name, &m, bytes,
                       "a multiple of 64 up to " + std::to_string(kMaxBytesPerRow));
    }
  }
  return {};
}

Status CheckBuffer(const ManifestCheck& check, const schema::Buffer& b, const std::string& name) {
  const schema::Manifest& m = check.manifest;
  if (!IsKnown(b.row_class())) {
    return check.Bad(name + ".row_class", &b, static_cast<uint64_t>(b.row_class()), "0 or 1");
  }
  if (b.copies() != 1 && b.copies() != m.shares()) {
    return check.Bad(name + ".copies", &b, b.copies(), "1 or one a share");
  }
  if (b.per_thread() && b.copies() != 1) {
    return check.Bad(name + ".per_thread", &b, "true", "false where there are copies");
  }
  if (b.bytes_per_row() == 0 || b.bytes_per_row() % 4 != 0 || b.bytes_per_row() > kMaxBytesPerRow) {
    return check.Bad(name + ".bytes_per_row", &b, b.bytes_per_row(),
                     "a multiple of 4 up to " + std::to_string(kMaxBytesPerRow));
  }
  const uint64_t arena =
      b.row_class() == schema::RowClass::Tokens ? m.token_bytes_per_row() : m.logit_bytes_per_row();
  const uint64_t end = SaturatingAdd(b.offset(), SaturatingMul(b.copies(), b.bytes_per_row()));
  if (b.offset() % kBufferAlignment != 0 || end > arena) {
    return check.Bad(name + ".offset", &b, b.offset(),
                     "a multiple of 64 such that the buffer ends within " + std::to_string(arena));
  }
  if (!b.per_thread()) return {};
  if (b.private_offset() % kBufferAlignment != 0 ||
      SaturatingAdd(b.private_offset(), b.bytes_per_row()) > m.private_bytes_per_row()) {
    return check.Bad(name + ".private_offset", &b, b.private_offset(),
                     "a multiple of 64 such that the buffer ends within " +
                         std::to_string(m.private_bytes_per_row()));
  }
  return {};
}

Status CheckKv(const ManifestCheck& check) {
  const auto& kv = *check.manifest.kv();
  if (kv.size() != check.manifest.layers()->size()) {
    return check.Bad("kv", &kv, std::to_string(kv.size()) + " entries", "one a layer");
  }
  for (size_t i = 0; i < kv.size(); ++i) {
    const schema::KvLayer& layer = *kv.Get(i);
    const std::string name = Item("kv", i);
    if (!IsKnown(layer.element())) {
      return check.Bad(name + ".element", &layer, static_cast<uint64_t>(layer.element()), "0 to 2");
    }
    if (layer.page_tokens() == 0 || layer.page_tokens() % 32 != 0 || layer.page_tokens() > 4096 ||
        layer.page_tokens() != kv.Get(0)->page_tokens()) {
      return check.Bad(name + ".page_tokens", &layer, layer.page_tokens(),
                       "a multiple of 32 up to 4096, the same in every layer");
    }
    if (layer.kv_heads() == 0 || layer.kv_heads() > kMaxDimension || layer.head_dim() == 0 ||
        layer.head_dim() > 1u << 16) {
      return check.Bad(
          name, &layer,
          std::to_string(layer.kv_heads()) + " heads of " + std::to_string(layer.head_dim()),
          "heads with elements");
    }
    const bool int8 = layer.element() == schema::KvElement::Int8;
    if (int8 && layer.head_dim() % 32) {
      return check.Bad(name + ".head_dim", &layer, layer.head_dim(), "a multiple of 32");
    }
    // Of a head's key: 32 codes of int8 have a scale of 4 bytes.
    const uint64_t head =
        int8 ? layer.head_dim() / 32 * 36
             : layer.head_dim() * (layer.element() == schema::KvElement::F16 ? 2u : 4u);
    const uint64_t row = uint64_t{2} * layer.kv_heads() * head;
    const uint64_t bytes = SaturatingMul(row, layer.page_tokens());
    if (layer.page_bytes() != bytes || bytes > kMaxBytesPerRow) {
      return check.Bad(name + ".page_bytes", &layer, layer.page_bytes(), std::to_string(bytes));
    }
  }
  return {};
}

}  // namespace

Status CheckTables(const ManifestCheck& check) {
  QUERN_RETURN_IF_ERROR(CheckModel(check));
  QUERN_RETURN_IF_ERROR(CheckSegments(check));
  QUERN_RETURN_IF_ERROR(CheckTargets(check));
  QUERN_RETURN_IF_ERROR(CheckKernels(check));
  QUERN_RETURN_IF_ERROR(CheckGpuSamplers(check));
  QUERN_RETURN_IF_ERROR(CheckArena(check));
  for (size_t i = 0; i < check.manifest.buffers()->size(); ++i) {
    QUERN_RETURN_IF_ERROR(
        CheckBuffer(check, *check.manifest.buffers()->Get(i), Item("buffers", i)));
  }
  return CheckKv(check);
}

}  // namespace quern

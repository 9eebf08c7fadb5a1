// What a manifest says of GPUs: targets, kernels, grids, and whether the PTX agrees.
#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "runtime/loader/manifest_check.h"
#include "runtime/schema/gpu_grid.h"
#include "runtime/schema/kernel_abi.h"

namespace quern {
namespace {

constexpr char kDimensions[] = "xyz";

bool IsIdentifier(std::string_view name) {
  constexpr std::string_view kLetters =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_$0123456789";
  return !name.empty() && name.size() <= 1024 && !(name[0] >= '0' && name[0] <= '9') &&
         name.find_first_not_of(kLetters) == std::string_view::npos;
}

/// `has_columns`: the kernel has range segments.
Status CheckGrid(const ManifestCheck& check, bool has_columns, const schema::GpuKernelCode& code,
                 const std::string& item) {
  if (!code.grid()) return {};
  if (code.grid()->size() > 3) {
    return check.Bad(item + ".grid", &code, std::to_string(code.grid()->size()) + " factors",
                     "at most 3");
  }
  for (uint32_t i = 0; i < code.grid()->size(); ++i) {
    const schema::GridFactor& factor = *code.grid()->Get(i);
    const std::string name = item + "." + Item("grid", i);
    if (factor.per() == 0) return check.Bad(name + ".per", &factor, "0", "at least 1");
    if (!IsKnown(factor.count())) {
      return check.Bad(name + ".count", &factor, static_cast<uint64_t>(factor.count()), "0 to 5");
    }
    const bool columns = factor.count() == schema::GridCount::Columns ||
                         factor.count() == schema::GridCount::Columns0;
    if (columns && !has_columns) {
      return check.Bad(name + ".count", &factor, schema::EnumNameGridCount(factor.count()),
                       "no columns in a kernel without range segments");
    }
  }
  return {};
}

Status CheckLaunch(const ManifestCheck& check, const schema::GpuKernelCode& code,
                   const std::string& item) {
  if (!IsIdentifier(code.entry()->string_view())) {
    // The name is not repeated: it may hold anything, line ends too.
    return check.Bad(item + ".entry", &code, std::to_string(code.entry()->size()) + " bytes",
                     "a PTX identifier");
  }
  if (code.block_threads() == 0 || code.block_threads() > kMaxBlockThreads) {
    return check.Bad(item + ".block_threads", &code, code.block_threads(),
                     "1 to " + std::to_string(kMaxBlockThreads));
  }
  const struct {
    const char* name;
    uint32_t value, most;
  } limits[] = {
      {".shared_bytes", code.shared_bytes(), kMaxBlockSharedBytes},
      {".workspace_bytes_per_row", code.workspace_bytes_per_row(), kMaxWorkspaceBytesPerRow},
      {".counters_per_row", code.counters_per_row(), kMaxCountersPerRow},
  };
  for (const auto& limit : limits) {
    if (limit.value <= limit.most) continue;
    return check.Bad(item + limit.name, &code, limit.value,
                     "at most " + std::to_string(limit.most));
  }
  return {};
}

/// What the text of a PTX module says of itself.
struct PtxFacts {
  /// 10 * major + minor.
  std::optional<uint32_t> version;
  std::string_view target;
  std::set<std::string_view> entries;
};

/// Splits PTX into words, leaving out comments and punctuation; words keep their leading dot.
class PtxWords {
 public:
  explicit PtxWords(std::string_view text) : text_(text) {}

  /// The next word; empty at the end.
  std::string_view Next() {
    constexpr std::string_view kSeparators = " \t\r\n\v\f,;(){}[]<>+-*=!&|^~?:\"@";
    while (true) {
      const size_t begin = text_.find_first_not_of(kSeparators);
      if (begin == std::string_view::npos) return {};
      text_.remove_prefix(begin);
      if (text_.starts_with("//")) {
        Skip(text_.find('\n'), 1);
      } else if (text_.starts_with("/*")) {
        Skip(text_.find("*/", 2), 2);
      } else if (text_[0] == '/') {
        text_.remove_prefix(1);
      } else {
        const size_t end = std::min(text_.find_first_of(kSeparators), text_.find('/'));
        const std::string_view word = text_.substr(0, end);
        text_.remove_prefix(word.size());
        return word;
      }
    }
  }

 private:
  void Skip(size_t position, size_t length) {
    text_.remove_prefix(position == std::string_view::npos ? text_.size() : position + length);
  }

  std::string_view text_;
};

PtxFacts ReadPtx(std::string_view text) {
  PtxFacts facts;
  PtxWords words(text);
  for (std::string_view word = words.Next(); !word.empty(); word = words.Next()) {
    if (word == ".version") {
      const std::string_view number = words.Next();  // "8.3"
      if (number.size() == 3 && number[1] == '.') {
        facts.version = static_cast<uint32_t>(10 * (number[0] - '0') + (number[2] - '0'));
      }
    } else if (word == ".target") {
      facts.target = words.Next();
    } else if (word == ".entry") {
      facts.entries.insert(words.Next());
    }
  }
  return facts;
}

/// A version of PTX as its text writes it.
std::string Version(uint32_t version) {
  return std::to_string(version / 10) + "." + std::to_string(version % 10);
}

}  // namespace

Status CheckGpuTarget(const ManifestCheck& check, const schema::Target& t,
                      const std::string& name) {
  if (t.gpu_sm() < 50 || t.gpu_sm() > 999) {
    return check.Bad(name + ".gpu_sm", &t, t.gpu_sm(), "50 to 999");
  }
  const std::string plain = "sm_" + std::to_string(t.gpu_sm());
  if (t.name()->str() != plain + (t.gpu_exact() ? "a" : "")) {
    return check.Bad(name + ".name", &t, "'" + t.name()->str().substr(0, 64) + "'",
                     "'" + plain + (t.gpu_exact() ? "a" : "") + "' as gpu_sm and gpu_exact say");
  }
  if (t.ptx_version() < 60 || t.ptx_version() > 999) {
    return check.Bad(name + ".ptx_version", &t, t.ptx_version(), "60 to 999");
  }
  if (t.attention_tile_rows() < 1 || t.attention_tile_rows() > kMaxAttentionTileRows) {
    return check.Bad(name + ".attention_tile_rows", &t, t.attention_tile_rows(),
                     "1 to " + std::to_string(kMaxAttentionTileRows));
  }
  return {};
}

Status CheckGpuCodes(const ManifestCheck& check, const schema::Kernel& kernel,
                     const std::string& name) {
  const size_t wanted = 2 * check.CountTargets(schema::TargetKind::Gpu);
  const size_t count = kernel.gpu_codes() ? kernel.gpu_codes()->size() : 0;
  if (count != wanted) {
    return check.Bad(name + ".gpu_codes", &kernel, std::to_string(count) + " entries",
                     std::to_string(wanted) + ", one a GPU target and role");
  }
  std::vector<bool> seen(size_t{2} * check.manifest.targets()->size(), false);
  for (uint32_t i = 0; i < count; ++i) {
    const schema::GpuKernelCode& code = *kernel.gpu_codes()->Get(i);
    const std::string item = name + "." + Item("gpu_codes", i);
    if (!check.IsTarget(code.target(), schema::TargetKind::Gpu)) {
      return check.Bad(item + ".target", &code, code.target(), "the index of a GPU target");
    }
    if (!IsKnown(code.role())) {
      return check.Bad(item + ".role", &code, static_cast<uint64_t>(code.role()), "0 or 1");
    }
    const size_t index = 2 * code.target() + static_cast<size_t>(code.role());
    if (seen[index]) return check.Bad(item, &code, "a second one", "one a target and role");
    seen[index] = true;
    QUERN_RETURN_IF_ERROR(CheckLaunch(check, code, item));
    QUERN_RETURN_IF_ERROR(CheckGrid(check, kernel.range_count() > 0, code, item));
  }
  return {};
}

Status CheckGpuSamplers(const ManifestCheck& check) {
  const auto* samplers = check.manifest.samplers();
  const size_t targets = check.CountTargets(schema::TargetKind::Gpu);
  uint32_t before = 0;
  for (uint32_t i = 0; samplers && i < samplers->size(); ++i) {
    const schema::GpuSampler& sampler = *samplers->Get(i);
    const std::string name = Item("samplers", i);
    const uint32_t most = std::min(kMaxCandidates, check.manifest.model()->vocab());
    if (sampler.candidates() <= before || sampler.candidates() > most) {
      return check.Bad(
          name + ".candidates", &sampler, sampler.candidates(),
          "more than before, " + std::to_string(before) + ", and at most " + std::to_string(most));
    }
    before = sampler.candidates();
    if (sampler.codes()->size() != targets) {
      return check.Bad(name + ".codes", &sampler,
                       std::to_string(sampler.codes()->size()) + " entries",
                       std::to_string(targets) + ", one a GPU target");
    }
    std::set<uint32_t> seen;
    for (uint32_t j = 0; j < targets; ++j) {
      const schema::GpuKernelCode& code = *sampler.codes()->Get(j);
      const std::string item = name + "." + Item("codes", j);
      if (!check.IsTarget(code.target(), schema::TargetKind::Gpu) ||
          !seen.insert(code.target()).second) {
        return check.Bad(item + ".target", &code, code.target(),
                         "the index of a GPU target, another one in each");
      }
      QUERN_RETURN_IF_ERROR(CheckLaunch(check, code, item));
      QUERN_RETURN_IF_ERROR(CheckGrid(check, /*has_columns=*/false, code, item));
    }
  }
  return {};
}

Status CheckGpuGrids(const ManifestCheck& check, const schema::Instruction& d,
                     const std::string& name) {
  const schema::Kernel& kernel = *check.manifest.kernels()->Get(d.kernel());
  if (!kernel.gpu_codes()) return {};
  const size_t share_ranges = d.split() == schema::Split::Rows ? 0 : 2 * kernel.range_count();
  for (const schema::GpuKernelCode* code : *kernel.gpu_codes()) {
    for (uint32_t i = 0; code->grid() && i < code->grid()->size(); ++i) {
      for (size_t share = 0; share < check.manifest.shares(); ++share) {
        // Rows, tiles and pages are the session's to choose and the executor's to check.
        GridCounts counts;
        if (share_ranges > 0)
          counts.ranges = {d.ranges()->data() + share * share_ranges, share_ranges};
        const uint64_t blocks = GridBlocks(*code->grid()->Get(i), counts);
        if (blocks <= kMaxGridBlocks[i]) continue;
        return check.Bad(name + ".kernel", &d,
                         kernel.name()->str() + " with " + std::to_string(blocks) + " blocks in " +
                             kDimensions[i],
                         "at most " + std::to_string(kMaxGridBlocks[i]));
      }
    }
  }
  return {};
}

namespace {

/// Calls `visit` with every code of GPU target `target`, and the name of what it is for.
template <typename Visit>
Status ForGpuCodes(const schema::Manifest& manifest, uint32_t target, Visit visit) {
  auto all = [&](const std::string& name, const auto& codes) -> Status {
    for (const schema::GpuKernelCode* code : codes) {
      if (code->target() == target) QUERN_RETURN_IF_ERROR(visit(name, *code));
    }
    return {};
  };
  for (const schema::Kernel* kernel : *manifest.kernels()) {
    QUERN_RETURN_IF_ERROR(
        all("kernels (" + kernel->name()->str() + ").gpu_codes", *kernel->gpu_codes()));
  }
  for (uint32_t i = 0; manifest.samplers() && i < manifest.samplers()->size(); ++i) {
    QUERN_RETURN_IF_ERROR(
        all(Item("samplers", i) + ".codes", *manifest.samplers()->Get(i)->codes()));
  }
  return {};
}

}  // namespace

Status CheckPtxSegments(const schema::Manifest& manifest, std::span<const uint8_t> file) {
  const ManifestCheck check{manifest, file};
  for (uint32_t i = 0; i < manifest.targets()->size(); ++i) {
    const schema::Target& target = *manifest.targets()->Get(i);
    if (target.kind() != schema::TargetKind::Gpu) continue;
    const schema::Segment& segment = *manifest.segments()->Get(target.code_segment());
    const auto bytes = file.subspan(segment.offset(), segment.size());
    const PtxFacts facts = ReadPtx({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    const std::string name = Item("targets", i);
    if (facts.version != target.ptx_version()) {
      return check.Bad(
          name + ".ptx_version", &target, Version(target.ptx_version()),
          facts.version ? Version(*facts.version) + " as its PTX says" : "PTX with a version");
    }
    if (facts.target != target.name()->string_view()) {
      return check.Bad(name + ".name", &target, target.name()->str(),
                       "'" + std::string(facts.target.substr(0, 64)) + "' as its PTX says");
    }
    QUERN_RETURN_IF_ERROR(ForGpuCodes(
        manifest, i, [&](const std::string& item, const schema::GpuKernelCode& code) -> Status {
          if (facts.entries.contains(code.entry()->string_view())) return {};
          return check.Bad(item + ".entry", &code, "'" + code.entry()->str() + "'",
                           "an entry of the PTX segment " + segment.name()->str());
        }));
  }
  return {};
}

}  // namespace quern

// quern_verify and quern_doctor: lists of checks.

#include "quern.h"
#include "runtime/api/describe.h"
#include "runtime/api/json_text.h"
#include "runtime/device/gpu_target.h"
#include "runtime/device/host/code_image.h"
#include "runtime/device/host/cpu_features.h"
#include "runtime/device/host/host_memory.h"
#include "runtime/device/host/target.h"
#include "runtime/device/open_gpu.h"

namespace quern::api {
namespace {

/// Checks in order; the first failure is the verdict.
class Checklist {
 public:
  void Add(const char* name, const Status& status, const std::string& detail = {}) {
    items_.Add({{"name", name},
                {"ok", status.ok()},
                {"code", static_cast<int>(status.code())},
                {"detail", status.ok() ? detail : status.message()}});
    if (verdict_.ok()) verdict_ = status;
  }
  const Status& verdict() const { return verdict_; }
  const Json& items() const { return items_; }

 private:
  Json items_ = Json::Array();
  Status verdict_;
};

/// How much of the file was hashed.
std::string CountText(const Artifact& artifact) {
  return std::to_string(artifact.file_size() - artifact.weights().size()) + " of " +
         std::to_string(artifact.file_size()) + " bytes: structure and hashes";
}

/// Everything but the weights; null when it cannot be opened.
std::shared_ptr<const Model> CheckStructure(const std::string& path, LoadOptions options,
                                            Checklist& list) {
  options.check_weights = false;  // a check of its own
  options.trusted_keys.clear();
  Result<std::unique_ptr<const Artifact>> artifact = Artifact::Load(path, options);
  list.Add("header, manifest, code", artifact.status(),
           artifact.ok() ? CountText(**artifact) : std::string());
  if (!artifact.ok()) return nullptr;
  Result<std::shared_ptr<const Model>> model = Model::FromArtifact(std::move(artifact).value());
  list.Add("tokenizer", model.status(),
           model.ok() && !(*model)->tokenizer() ? "none in this artifact" : "");
  return model.ok() ? std::move(model).value() : nullptr;
}

void CheckWeights(const Artifact& artifact, Checklist& list) {
  const auto& segments = *artifact.manifest().segments();
  for (uint32_t i = 0; i < segments.size(); ++i) {
    if (segments.Get(i)->kind() != schema::SegmentKind::Weights) continue;
    list.Add("weights", artifact.CheckHash(i), std::to_string(segments.Get(i)->size()) + " bytes");
  }
}

/// Who signed it, and whether that is enough.
void CheckSigners(const Artifact& artifact, const LoadOptions& options, Checklist& list) {
  std::string signers;
  for (const PublicKey& key : artifact.signers()) {
    signers += (signers.empty() ? "by " : ", ") + PublicKeyText(key);
  }
  const bool wanted = !options.trusted_keys.empty();
  if (signers.empty() && !wanted) return;
  list.Add("signature", wanted ? RequireSigner(artifact.signers(), options.trusted_keys) : Status(),
           signers);
}

/// Whether the artifact runs on this machine; not part of the verdict on the file.
Json Here(const Artifact& artifact) {
  const auto targets = artifact.HostTargets();
  const Result<size_t> target = SelectTarget(targets, {}, CpuFeatures::Host(), false);
  if (!target.ok()) return {{"runs", false}, {"detail", target.status().message()}};
  return {{"runs", true}, {"target", targets[*target].name}};
}

/// Makes a page executable and enters it: a lone `ret`.
Status CheckExecutableMemory() {
  constexpr uint8_t kReturn[] = {0xc3};
  QUERN_ASSIGN_OR_RETURN(const CodeImage image, CodeImage::Create(kReturn));
  image.Entry(0)(nullptr, nullptr, nullptr);
  return {};
}

/// The CUDA devices, or why there are none.
void DescribeGpus(Json& report) {
  const Result<std::vector<GpuInfo>> gpus = ListGpus();
  Json list = Json::Array();
  for (const GpuInfo& gpu : gpus.ok() ? *gpus : std::vector<GpuInfo>()) {
    list.Add({{"name", gpu.name},
              {"description", gpu.description},
              {"compute_capability", DottedVersion(gpu.limits.sm)},
              {"memory_bytes", gpu.limits.memory_bytes},
              {"driver_version", DriverVersionText(gpu.limits.driver_version)},
              {"ptx_version", DottedVersion(gpu.limits.ptx_version)}});
  }
  report.Set("gpus", list);
  report.Set("gpu_detail", gpus.status().message());
}

}  // namespace

Status VerifyFile(const std::string& path, const LoadOptions& options, std::string& json) {
  const bool full = options.check_weights || !options.trusted_keys.empty();
  Checklist list;
  const std::shared_ptr<const Model> model = CheckStructure(path, options, list);
  if (model) CheckSigners(model->artifact(), options, list);
  if (model && full) CheckWeights(model->artifact(), list);
  Json report = Json::Object();
  report.Set("path", path);
  report.Set("ok", list.verdict().ok());
  report.Set("full", full);
  report.Set("checks", list.items());
  if (model) report.Set("machine", Here(model->artifact()));
  json = report.text();
  return list.verdict();
}

std::string DescribeMachine() {
  Checklist list;
  list.Add("executable memory", CheckExecutableMemory());
  list.Add("avx2",
           CpuFeatures::Host().Has("avx2")
               ? Status()
               : Incompatible("the CPU or the operating system has no AVX2, the least that Quern's "
                              "kernels need"));
  Json report = Json::Object();
  report.Set("version", quern_version());
  report.Set("api_version", quern_api_version());
  report.Set("ok", list.verdict().ok());
  report.Set("cpu", CpuBrand());
  report.Set("cpus", UsableCpus());
  report.Set("features", CpuFeatures::Host().Names());
  report.Set("memory_bytes", MemoryLimit());
  report.Set("amx_emulator", AmxEmulatorDeclared());
  DescribeGpus(report);
  report.Set("checks", list.items());
  return report.text();
}

}  // namespace quern::api

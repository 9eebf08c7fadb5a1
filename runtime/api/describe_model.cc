#include <algorithm>
#include <map>

#include "runtime/api/describe.h"
#include "runtime/api/json_text.h"
#include "runtime/device/host/cpu_features.h"
#include "runtime/executor/host_executor.h"
#include "runtime/executor/kv_cache.h"
#include "runtime/loader/hash.h"

namespace quern::api {
namespace {

std::string Text(const flatbuffers::String* text) { return text ? text->str() : std::string(); }

std::string Hash(const schema::Hash256* hash) {
  return hash ? DigestText({hash->bytes()->data(), hash->bytes()->size()}) : std::string();
}

Json ModelFacts(const schema::ModelInfo& m) {
  return {{"name", Text(m.name())},
          {"family", Text(m.family())},
          {"parameters", m.parameters()},
          {"vocab", m.vocab()},
          {"hidden", m.hidden()},
          {"layers", m.layers()},
          {"heads", m.heads()},
          {"kv_heads", m.kv_heads()},
          {"head_dim", m.head_dim()},
          {"ffn", m.ffn()},
          {"context", m.context()},
          {"licence", Text(m.licence())},
          {"source_hash", Hash(m.source_hash())}};
}

Json Segments(const schema::Manifest& manifest) {
  Json list = Json::Array();
  for (const schema::Segment* s : *manifest.segments()) {
    list.Add({{"kind", schema::EnumNameSegmentKind(s->kind())},
              {"name", Text(s->name())},
              {"offset", s->offset()},
              {"size", s->size()},
              {"hash", Hash(s->hash())}});
  }
  return list;
}

Json Targets(const Artifact& artifact) {
  const auto code_bytes = [&artifact](size_t index) {
    const schema::Target& target =
        *artifact.manifest().targets()->Get(static_cast<uint32_t>(index));
    return artifact.SegmentBytes(target.code_segment()).size();
  };
  Json list = Json::Array();
  for (const TargetRequirement& target : artifact.HostTargets()) {
    const auto missing = MissingFeatures(target, CpuFeatures::Host());
    list.Add({{"name", target.name},
              {"kind", "host"},
              {"features", target.features},
              {"code_bytes", code_bytes(target.index)},
              {"supported", missing.empty()},
              {"missing", missing}});
  }
  // Whether a GPU target runs is a device's matter: `quern doctor` lists those.
  for (const GpuTargetRequirement& target : artifact.GpuTargets()) {
    list.Add({{"name", target.name},
              {"kind", "gpu"},
              {"compute_capability", DottedVersion(target.sm)},
              {"ptx_version", DottedVersion(target.ptx_version)},
              {"code_bytes", code_bytes(target.index)}});
  }
  return list;
}

const char* RoleName(schema::Role role) {
  return role == schema::Role::Decode ? "decode" : "prefill";
}

Json Forms(const schema::Manifest& manifest, const schema::Kernel& kernel) {
  Json list = Json::Array();
  for (uint32_t i = 0; kernel.forms() && i < kernel.forms()->size(); ++i) {
    const schema::KernelForm& form = *kernel.forms()->Get(i);
    list.Add({{"target", Text(manifest.targets()->Get(form.target())->name())},
              {"role", RoleName(form.role())},
              {"generator", Text(form.generator())},
              {"arithmetic", schema::EnumNameArithmetic(form.arithmetic())},
              {"rows", form.rows()},
              {"blocks", form.blocks()},
              {"keys", form.keys()},
              {"prefetch", form.prefetch()}});
  }
  return list;
}

/// Null when the manifest does not say.
Json Work(const schema::Kernel& kernel) {
  const schema::KernelWork* work = kernel.work();
  if (!work) return nullptr;
  return {{"flops_per_row", work->flops_per_row()},
          {"flops_per_pair", work->flops_per_pair()},
          {"bytes_per_row", work->bytes_per_row()},
          {"bytes_per_key", work->bytes_per_key()},
          {"window", work->window()},
          {"gathers_weights", work->gathers_weights()}};
}

Json Kernels(const schema::Manifest& manifest) {
  Json list = Json::Array();
  for (const schema::Kernel* kernel : *manifest.kernels()) {
    Json codes = Json::Array();
    for (const schema::KernelCode* code : *kernel->codes()) {
      codes.Add({{"target", Text(manifest.targets()->Get(code->target())->name())},
                 {"role", RoleName(code->role())},
                 {"offset", code->offset()},
                 {"scratch_bytes", code->scratch_bytes()}});
    }
    for (uint32_t i = 0; kernel->gpu_codes() && i < kernel->gpu_codes()->size(); ++i) {
      const schema::GpuKernelCode& code = *kernel->gpu_codes()->Get(i);
      codes.Add({{"target", Text(manifest.targets()->Get(code.target())->name())},
                 {"role", RoleName(code.role())},
                 {"entry", Text(code.entry())},
                 {"block_threads", code.block_threads()},
                 {"shared_bytes", code.shared_bytes()}});
    }
    list.Add(
        {{"name", Text(kernel->name())},
         {"arguments", kernel->argument_count()},
         {"ranges", kernel->range_count()},
         {"codes", codes},
         {"forms", Forms(manifest, *kernel)},
         {"work", Work(*kernel)},
         {"signature", kernel->signature() ? Json(Text(kernel->signature())) : Json(nullptr)}});
  }
  return list;
}

Json Tuning(const schema::Manifest& manifest) {
  Json list = Json::Array();
  for (uint32_t i = 0; manifest.tuning() && i < manifest.tuning()->size(); ++i) {
    list.Add(Text(manifest.tuning()->Get(i)));
  }
  return list;
}

Json Buffers(const schema::Manifest& manifest) {
  Json list = Json::Array();
  for (const schema::Buffer* b : *manifest.buffers()) {
    list.Add({{"name", Text(b->name())},
              {"bytes_per_row", b->bytes_per_row()},
              {"rows", b->row_class() == schema::RowClass::Tokens ? "tokens" : "logits"},
              {"copies", b->copies()},
              {"per_thread", b->per_thread()},
              {"offset", b->offset()}});
  }
  return list;
}

/// All shares' bytes of a weight.
uint64_t Bytes(const schema::WeightSlot& slot) {
  if (slot.split() == schema::WeightSplit::Whole) return slot.sizes()->Get(0);
  uint64_t bytes = 0;
  for (const uint64_t size : *slot.sizes()) bytes += size;
  return bytes;
}

/// What an argument points at, by the name that buffers and weights have in this report.
std::string ArgumentName(const schema::Manifest& manifest, const schema::Body& body,
                         const schema::Arg& arg) {
  switch (arg.kind()) {
    case schema::ArgKind::Activation:
    case schema::ArgKind::Partial:
      return Text(manifest.buffers()->Get(arg.index())->name());
    case schema::ArgKind::Weight:
      return Text(body.weights()->Get(arg.index())->name());
    case schema::ArgKind::Step:
      return schema::EnumNameStepInput(static_cast<schema::StepInput>(arg.index()));
    case schema::ArgKind::Kv:
      return "kv";
    case schema::ArgKind::Logits:
      return "logits";
  }
  return {};
}

Json Dispatch(const schema::Manifest& manifest, const schema::Body& body,
              const schema::Instruction& instruction) {
  Json reads = Json::Array(), writes = Json::Array();
  for (const schema::Arg* arg : *instruction.args()) {
    const std::string name = ArgumentName(manifest, body, *arg);
    if (arg->access() != schema::Access::Write) reads.Add(name);
    if (arg->access() != schema::Access::Read) writes.Add(name);
  }
  const bool tokens = instruction.row_class() == schema::RowClass::Tokens;
  return {{"kernel", Text(manifest.kernels()->Get(instruction.kernel())->name())},
          {"split", instruction.split() == schema::Split::Rows ? "rows" : "shares"},
          {"rows", tokens ? "tokens" : "logits"},
          {"reads", reads},
          {"writes", writes}};
}

Json Bodies(const schema::Manifest& manifest) {
  Json list = Json::Array();
  for (const schema::Body* body : *manifest.bodies()) {
    Json weights = Json::Array();
    for (const schema::WeightSlot* slot : *body->weights()) {
      weights.Add({{"name", Text(slot->name())},
                   {"format", Text(slot->format())},
                   {"n", slot->n()},
                   {"k", slot->k()},
                   {"split", schema::EnumNameWeightSplit(slot->split())},
                   {"bytes", Bytes(*slot)}});
    }
    Json dispatches = Json::Array();
    size_t joins = 0;
    for (const schema::Instruction* i : *body->instructions()) {
      if (i->op() == schema::Op::Join) {
        ++joins;
      } else {
        dispatches.Add(Dispatch(manifest, *body, *i));
      }
    }
    list.Add({{"name", Text(body->name())},
              {"dispatches", dispatches},
              {"joins", joins},
              {"weights", weights}});
  }
  return list;
}

/// Bytes of the weights by format, each piece once however many calls use it.
Json WeightFormats(const schema::Manifest& manifest) {
  std::map<std::pair<uint64_t, uint64_t>, std::string> pieces;  // (offset, size) -> format
  auto add = [&](const schema::BodyCall& call) {
    const schema::Body& body = *manifest.bodies()->Get(call.body());
    for (uint32_t slot = 0; slot < body.weights()->size(); ++slot) {
      for (uint32_t share = 0; share < manifest.shares(); ++share) {
        const uint64_t size = body.weights()->Get(slot)->sizes()->Get(share);
        pieces[{call.weight_offsets()->Get(slot * manifest.shares() + share), size}] =
            Text(body.weights()->Get(slot)->format());
      }
    }
  };
  add(*manifest.prologue());
  for (const schema::BodyCall* layer : *manifest.layers()) add(*layer);
  add(*manifest.epilogue());
  std::map<std::string, uint64_t> bytes;
  uint64_t end = 0;  // a tied embedding overlaps the head's pieces: count what is new
  for (const auto& [piece, format] : pieces) {
    const uint64_t begin = std::max(piece.first, end);
    end = std::max(end, piece.first + piece.second);
    if (end > begin) bytes[format] += end - begin;
  }
  return bytes;
}

Json Layers(const schema::Manifest& manifest) {
  Json list = Json::Array();
  for (const schema::BodyCall* layer : *manifest.layers()) {
    list.Add(Text(manifest.bodies()->Get(layer->body())->name()));
  }
  return list;
}

Json Kv(const schema::Manifest& manifest) {
  constexpr const char* kElements[] = {"f16", "f32", "int8"};  // KvElement
  Json list = Json::Array();
  for (const schema::KvLayer* layer : *manifest.kv()) {
    list.Add({{"kv_heads", layer->kv_heads()},
              {"head_dim", layer->head_dim()},
              {"page_tokens", layer->page_tokens()},
              {"page_bytes", layer->page_bytes()},
              {"element", kElements[static_cast<size_t>(layer->element())]}});
  }
  return list;
}

/// Bytes that a thread needs, by the name of the host target.
Json ThreadBytes(const schema::Manifest& manifest) {
  std::map<std::string, uint64_t> scratch;  // a target's greatest
  for (uint32_t i = 0; i < manifest.targets()->size(); ++i) {
    const schema::Target& target = *manifest.targets()->Get(i);
    if (target.kind() == schema::TargetKind::Host) scratch[Text(target.name())] = 0;
  }
  for (const schema::Kernel* kernel : *manifest.kernels()) {
    for (const schema::KernelCode* code : *kernel->codes()) {
      uint64_t& most = scratch[Text(manifest.targets()->Get(code->target())->name())];
      most = std::max<uint64_t>(most, code->scratch_bytes());
    }
  }
  Program sizes;
  sizes.vocab = manifest.model()->vocab();
  sizes.private_bytes_per_row = manifest.private_bytes_per_row();
  sizes.arena_bytes_per_row = {manifest.token_bytes_per_row(), manifest.logit_bytes_per_row()};
  std::map<std::string, uint64_t> bytes;
  for (const auto& [target, most] : scratch) bytes[target] = HostExecutor::ThreadBytes(sizes, most);
  return bytes;
}

bool ServesHosts(const schema::Manifest& manifest) {
  return std::any_of(
      manifest.targets()->begin(), manifest.targets()->end(),
      [](const schema::Target* target) { return target->kind() == schema::TargetKind::Host; });
}

/// What a session takes, on a CPU where the artifact has code for one.
Json Memory(const schema::Manifest& manifest) {
  const bool on_host = ServesHosts(manifest);
  uint64_t page_bytes = 0;
  for (const schema::KvLayer* layer : *manifest.kv()) {
    page_bytes += on_host ? HostKvPageBytes(*layer) : layer->page_bytes();
  }
  const uint64_t page_tokens = manifest.kv()->Get(0)->page_tokens();
  return {{"token_bytes_per_row", manifest.token_bytes_per_row()},
          {"logit_bytes_per_row", manifest.logit_bytes_per_row()},
          {"private_bytes_per_row", manifest.private_bytes_per_row()},
          {"thread_bytes", ThreadBytes(manifest)},
          {"block_tokens", kAttentionBlock},
          {"thread_bytes_per_block", HostExecutor::StateBytesPerBlock(Program::Build(manifest))},
          {"kv_page_tokens", page_tokens},
          {"kv_bytes_per_page", page_bytes},
          {"kv_bytes_per_token", page_bytes / page_tokens}};
}

Json Signers(const Artifact& artifact) {
  Json list = Json::Array();
  for (const PublicKey& key : artifact.signers()) list.Add(PublicKeyText(key));
  return list;
}

Json RecordList(const Artifact& artifact) {
  const auto name = [](RecordKind kind) -> std::string {
    switch (kind) {
      case RecordKind::kSignature:
        return "signature";
      case RecordKind::kReference:
        return "reference";
      case RecordKind::kAccuracy:
        return "accuracy";
    }
    return "unknown " + std::to_string(static_cast<uint32_t>(kind));
  };
  Json list = Json::Array();
  for (const Record& record : artifact.records()) {
    list.Add(
        {{"kind", name(record.kind)}, {"offset", record.offset}, {"size", record.bytes.size()}});
  }
  return list;
}

Json TokenizerFacts(const Model& model) {
  const Tokenizer* t = model.tokenizer();
  if (!t) return nullptr;
  return {{"tokens", t->vocab_size()},
          {"pre_tokenizer", std::string(t->pre_tokenizer_name())},
          {"bos", t->bos()},
          {"eos", t->eos()},
          {"eot", t->eot()},
          {"add_bos", t->add_bos()},
          {"chat_template", !t->chat_template().empty()}};
}

}  // namespace

std::string DescribeModel(const Model& model) {
  const schema::Manifest& manifest = model.manifest();
  Json json = Json::Object();
  json.Set("file_bytes", model.artifact().file_size());
  json.Set("hash", DigestText(model.artifact().hash()));
  json.Set("manifest_version", manifest.version());
  json.Set("producer", Text(manifest.producer()));
  json.Set("model", ModelFacts(*manifest.model()));
  json.Set("shares", manifest.shares());
  json.Set("precise", manifest.precise());
  json.Set("targets", Targets(model.artifact()));
  json.Set("segments", Segments(manifest));
  json.Set("weight_bytes", WeightFormats(manifest));
  json.Set("memory", Memory(manifest));
  json.Set("tokenizer", TokenizerFacts(model));
  json.Set("signers", Signers(model.artifact()));
  json.Set("records", RecordList(model.artifact()));
  json.Set("prologue", Text(manifest.bodies()->Get(manifest.prologue()->body())->name()));
  json.Set("layers", Layers(manifest));
  json.Set("epilogue", Text(manifest.bodies()->Get(manifest.epilogue()->body())->name()));
  json.Set("bodies", Bodies(manifest));
  json.Set("kernels", Kernels(manifest));
  json.Set("buffers", Buffers(manifest));
  json.Set("kv", Kv(manifest));
  json.Set("tuning", Tuning(manifest));
  return json.text();
}

std::string DescribeSession(const Session& session) {
  const Executor& executor = session.executor();
  Json json = Json::Object();
  json.Set("device", session.device());
  json.Set("target", session.target());
  json.Set("threads", executor.threads());
  json.Set("shares", executor.program().shares);
  json.Set("context", session.context());
  json.Set("max_rows", executor.max_rows());
  json.Set("kv_pages", executor.kv().pages());
  json.Set("kv_page_tokens", executor.kv().page_tokens());
  json.Set("bytes", executor.bytes());
  return json.text();
}

namespace {

/// What each thread did in the last step, [thread][dispatch or join]; times from its beginning.
Json Timeline(const Executor& executor) {
  const Profile& profile = executor.profile();
  uint64_t start = UINT64_MAX;
  for (const auto& thread : profile.timeline) {
    if (!thread.empty()) start = std::min(start, thread.front().begin);
  }
  Json threads = Json::Array();
  for (const auto& thread : profile.timeline) {
    Json spans = Json::Array();
    for (const ProfileSpan& span : thread) {
      const bool join = span.kernel == ProfileSpan::kJoin;
      const auto kernel = static_cast<size_t>(span.kernel);
      spans.Add({{"kernel", join ? Json(nullptr) : Json(executor.program().kernel_names[kernel])},
                 {"layer", span.layer},
                 {"begin_ns", span.begin - start},
                 {"end_ns", span.end - start}});
    }
    threads.Add(spans);
  }
  return threads;
}

Json LastStep(const Executor& executor) {
  const Profile& profile = executor.profile();
  Json kernels = Json::Array();
  for (size_t kernel = 0; kernel < profile.work.size(); ++kernel) {
    const ProfileWork& work = profile.work[kernel];
    if (work.dispatches == 0) continue;
    kernels.Add({{"name", executor.program().kernel_names[kernel]},
                 {"dispatches", work.dispatches},
                 {"bytes", work.bytes},
                 {"flops", work.flops}});
  }
  return {{"role", RoleName(profile.last_role)},
          {"rows", executor.last_rows()[0]},
          {"logit_rows", executor.last_rows()[1]},
          {"kernels", kernels},
          {"threads", Timeline(executor)}};
}

}  // namespace

std::string DescribeProfile(const Executor& executor) {
  const Profile& profile = executor.profile();
  auto seconds = [](const Profile::Entry& entry) {
    return static_cast<double>(entry.nanoseconds) * 1e-9;
  };
  Json kernels = Json::Array();
  for (size_t kernel = 0; kernel < profile.kernels.size(); ++kernel) {
    for (size_t role = 0; role < kRoleCount; ++role) {
      const Profile::Entry& entry = profile.kernels[kernel][role];
      if (entry.calls == 0) continue;
      kernels.Add({{"name", executor.program().kernel_names[kernel]},
                   {"role", role == 0 ? "decode" : "prefill"},
                   {"calls", entry.calls},
                   {"seconds", seconds(entry)}});
    }
  }
  Json json = Json::Object();
  json.Set("steps", profile.steps.calls);
  json.Set("seconds", seconds(profile.steps));
  json.Set("joins", profile.joins.calls);
  json.Set("join_seconds", seconds(profile.joins));
  json.Set("kernels", kernels);
  json.Set("last_step", profile.steps.calls > 0 ? LastStep(executor) : Json(nullptr));
  return json.text();
}

}  // namespace quern::api

#include "runtime/executor/program.h"

#include <algorithm>

#include "runtime/executor/kv_cache.h"

namespace quern {
namespace {

uint64_t AllShares(const schema::WeightSlot& slot) {
  if (slot.split() == schema::WeightSplit::Whole) return slot.sizes()->Get(0);
  uint64_t bytes = 0;
  for (const uint64_t size : *slot.sizes()) bytes += size;
  return bytes;
}

DispatchWork BuildWork(const schema::Instruction& source, const schema::Body& body,
                       const schema::Manifest& manifest) {
  const schema::KernelWork* work = manifest.kernels()->Get(source.kernel())->work();
  DispatchWork built;
  if (work) {
    built = {work->flops_per_row(), work->flops_per_pair(), work->bytes_per_row(),
             work->bytes_per_key(), work->window()};
  }
  if (work && work->gathers_weights()) return built;
  for (uint32_t i = 0; source.args() && i < source.args()->size(); ++i) {
    const schema::Arg& arg = *source.args()->Get(i);
    if (arg.kind() != schema::ArgKind::Weight) continue;
    built.weight_bytes += AllShares(*body.weights()->Get(arg.index()));
  }
  return built;
}

Instruction BuildInstruction(const schema::Instruction& source, const schema::Body& body,
                             const schema::Manifest& manifest) {
  Instruction instruction;
  instruction.op = source.op();
  instruction.when = source.when();
  if (source.op() == schema::Op::Join) return instruction;
  instruction.kernel = source.kernel();
  instruction.split = source.split();
  instruction.row_class = source.row_class();
  instruction.merge = source.merge();
  instruction.segments = manifest.kernels()->Get(source.kernel())->range_count();
  for (uint32_t i = 0; source.args() && i < source.args()->size(); ++i) {
    instruction.args.push_back(*source.args()->Get(i));
  }
  if (source.ranges()) {
    instruction.ranges.assign(source.ranges()->begin(), source.ranges()->end());
  }
  instruction.work = BuildWork(source, body, manifest);
  return instruction;
}

BodyCall BuildCall(const schema::BodyCall& source) {
  const auto& offsets = *source.weight_offsets();
  return {source.body(), {offsets.begin(), offsets.end()}};
}

bool ReadsPages(const Instruction& d) {
  return std::any_of(d.args.begin(), d.args.end(), [](const schema::Arg& arg) {
    return arg.kind() == schema::ArgKind::Kv && arg.access() == schema::Access::Read;
  });
}

/// Adds `bytes` to what `d` moves of each token of a page, where that is known.
void AddPageBytes(uint64_t bytes, Instruction* d) {
  const auto is_kv = [](const schema::Arg& arg) { return arg.kind() == schema::ArgKind::Kv; };
  if (std::none_of(d->args.begin(), d->args.end(), is_kv)) return;
  uint64_t& moved = ReadsPages(*d) ? d->work.bytes_per_key : d->work.bytes_per_row;
  if (moved > 0) moved += bytes;
}

/// Whether the dispatch at `index` takes parts of a context: it is a merge, or the next one is,
/// which the loader checked to be its own.
bool TakesParts(const std::vector<Instruction>& body, size_t index) {
  if (body[index].merge) return true;
  const auto next = std::find_if(body.begin() + static_cast<std::ptrdiff_t>(index) + 1, body.end(),
                                 [](const Instruction& i) { return i.op == schema::Op::Dispatch; });
  return next != body.end() && next->merge;
}

/// Without ranges all of the `heads` query heads are everybody's; a dispatch that is split over
/// rows has them for one share.
AttentionCut CutOf(const Instruction& d, const schema::KvLayer& kv, int64_t heads,
                   uint32_t shares) {
  AttentionCut cut;
  for (size_t at = 0; d.segments > 0 && at < d.ranges.size(); at += 2 * d.segments) {
    cut.heads.push_back({d.ranges[at] / kv.head_dim(), d.ranges[at + 1] / kv.head_dim()});
  }
  if (cut.heads.empty()) {
    cut.heads.assign(d.split == schema::Split::Shares ? shares : 1, {0, heads});
  }
  cut.head_dim = kv.head_dim();
  cut.group = std::max<int64_t>(1, cut.head_count() / kv.kv_heads());
  return cut;
}

/// Finds how attention is cut in the layers' bodies.
void FindAttention(int64_t heads, Program* program) {
  for (size_t layer = 0; layer < program->layers.size(); ++layer) {
    std::vector<Instruction>& body = program->bodies[program->layers[layer].body];
    for (size_t index = 0; index < body.size(); ++index) {
      Instruction& instruction = body[index];
      if (!ReadsPages(instruction) || instruction.attention >= 0) continue;
      std::vector<AttentionCut>& cuts = program->attention;
      AttentionCut cut = CutOf(instruction, program->kv[layer], heads, program->shares);
      cut.takes_parts =
          program->kv[layer].page_tokens() == kHostPageTokens && TakesParts(body, index);
      program->state_bytes = std::max(program->state_bytes, cut.state_bytes());
      const auto known = std::find(cuts.begin(), cuts.end(), cut);
      instruction.attention = static_cast<int32_t>(known - cuts.begin());
      if (known == cuts.end()) cuts.push_back(std::move(cut));
    }
  }
}

}  // namespace

Program Program::Build(const schema::Manifest& manifest) {
  Program program;
  program.shares = manifest.shares();
  program.vocab = manifest.model()->vocab();
  for (const schema::Kernel* kernel : *manifest.kernels()) {
    program.kernel_names.push_back(kernel->name()->str());
  }
  for (const schema::Buffer* b : *manifest.buffers()) {
    program.buffers.push_back(
        {b->bytes_per_row(), b->offset(), b->private_offset(), b->row_class(), b->per_thread()});
  }
  for (const schema::Body* body : *manifest.bodies()) {
    std::vector<Instruction>& instructions = program.bodies.emplace_back();
    for (const schema::Instruction* source : *body->instructions()) {
      instructions.push_back(BuildInstruction(*source, *body, manifest));
    }
  }
  program.prologue = BuildCall(*manifest.prologue());
  for (const schema::BodyCall* layer : *manifest.layers()) {
    program.layers.push_back(BuildCall(*layer));
  }
  program.epilogue = BuildCall(*manifest.epilogue());
  for (const schema::KvLayer* layer : *manifest.kv()) program.kv.push_back(*layer);
  program.arena_bytes_per_row = {manifest.token_bytes_per_row(), manifest.logit_bytes_per_row()};
  program.private_bytes_per_row = manifest.private_bytes_per_row();
  FindAttention(manifest.model()->heads(), &program);
  return program;
}

void Program::KeepContextsWhole() {
  for (AttentionCut& cut : attention) cut.takes_parts = false;
  state_bytes = 0;
}

void Program::CountHostPages() {
  std::vector<bool> counted(bodies.size());
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const uint32_t body = layers[layer].body;
    if (counted[body]) continue;
    counted[body] = true;
    const uint64_t more = HostKvPageBytes(kv[layer]) - kv[layer].page_bytes();
    for (Instruction& d : bodies[body]) AddPageBytes(more / kv[layer].page_tokens(), &d);
  }
}

}  // namespace quern

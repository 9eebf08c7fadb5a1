#include "runtime/executor/program.h"

#include <algorithm>

namespace quern {
namespace {

Instruction BuildInstruction(const schema::Instruction& source, const KernelTable& kernels,
                             const schema::Manifest& manifest) {
  Instruction instruction;
  instruction.op = source.op();
  instruction.when = source.when();
  if (source.op() == schema::Op::Join) return instruction;
  instruction.kernel = source.kernel();
  instruction.entries = kernels.kernels[source.kernel()].entries;
  instruction.split = source.split();
  instruction.row_class = source.row_class();
  instruction.segments = manifest.kernels()->Get(source.kernel())->range_count();
  for (uint32_t i = 0; source.args() && i < source.args()->size(); ++i) {
    instruction.args.push_back(*source.args()->Get(i));
  }
  if (source.ranges()) {
    instruction.ranges.assign(source.ranges()->begin(), source.ranges()->end());
  }
  return instruction;
}

BodyCall BuildCall(const schema::BodyCall& source, std::span<const uint8_t> weights) {
  BodyCall call;
  call.body = source.body();
  for (uint64_t offset : *source.weight_offsets()) call.weights.push_back(weights.data() + offset);
  return call;
}

}  // namespace

KernelTable KernelTable::FromImage(const schema::Manifest& manifest, size_t target,
                                   const CodeImage& image) {
  KernelTable table;
  for (const schema::Kernel* kernel : *manifest.kernels()) {
    Kernel entry;
    for (const schema::KernelCode* code : *kernel->codes()) {
      if (code->target() != target) continue;
      entry.entries[static_cast<size_t>(code->role())] = image.Entry(code->offset());
      table.scratch_bytes = std::max(table.scratch_bytes, code->scratch_bytes());
    }
    table.kernels.push_back(entry);
  }
  return table;
}

Program Program::Build(const schema::Manifest& manifest, const KernelTable& kernels,
                       std::span<const uint8_t> weights) {
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
      instructions.push_back(BuildInstruction(*source, kernels, manifest));
    }
  }
  program.prologue = BuildCall(*manifest.prologue(), weights);
  for (const schema::BodyCall* layer : *manifest.layers()) {
    program.layers.push_back(BuildCall(*layer, weights));
  }
  program.epilogue = BuildCall(*manifest.epilogue(), weights);
  for (const schema::KvLayer* layer : *manifest.kv()) program.kv.push_back(*layer);
  program.arena_bytes_per_row = {manifest.token_bytes_per_row(), manifest.logit_bytes_per_row()};
  program.private_bytes_per_row = manifest.private_bytes_per_row();
  program.scratch_bytes = kernels.scratch_bytes;
  return program;
}

}  // namespace quern

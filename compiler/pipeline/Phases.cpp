#include "compiler/pipeline/Phases.h"

using namespace quern;

static constexpr PhaseInfo kPhases[] = {
    {Phase::Import, "import",
     "Reads the model file into the lm dialect, one body per distinct layer."},
    {Phase::Normalize, "normalize",
     "Brings operands and constants to the one form that later passes match."},
    {Phase::Quantize, "quantize",
     "Chooses the formats of weights and activations."},
    {Phase::Fuse, "fuse",
     "Joins ops that one kernel computes with less memory traffic."},
    {Phase::Tile, "tile",
     "Cuts work into shares and gives every op its tiles, by target and role."},
    {Phase::Kernels, "kernels",
     "Groups ops into lm.kernel regions, the units of code generation."},
    {Phase::Lower, "lower",
     "Turns kernels and values into the rt dialect's dispatches and buffers."},
    {Phase::Memory, "memory", "Gives every buffer its place in the arena."},
    {Phase::Codegen, "codegen",
     "Generates machine code of every kernel for every target."},
    {Phase::Artifact, "artifact",
     "Packs weights, code, tokenizer and manifest into one file."},
};

llvm::ArrayRef<PhaseInfo> quern::phases() { return kPhases; }

const PhaseInfo &quern::phaseInfo(Phase phase) {
  return kPhases[static_cast<size_t>(phase)];
}

std::optional<Phase> quern::parsePhase(llvm::StringRef name) {
  for (const PhaseInfo &info : kPhases)
    if (info.name == name)
      return info.phase;
  return std::nullopt;
}

std::string quern::dumpFileName(Phase phase) {
  const int number = static_cast<int>(phase) + 1;
  return (number < 10 ? "0" : "") + std::to_string(number) + "-" +
         phaseInfo(phase).name.str() + ".mlir";
}

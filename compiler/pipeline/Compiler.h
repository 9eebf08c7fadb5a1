//===- Compiler.h - One compilation, from file to file ----------*- C++ -*-===//
//
// Runs the phases in order, reports each, and stops where it is told to. The
// command line (compiler/tools/quern-compile.cpp) is a thin shell around it.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_PIPELINE_COMPILER_H
#define QUERN_COMPILER_PIPELINE_COMPILER_H

#include "codegen/artifact/ArtifactWriter.h"
#include "compiler/pipeline/Pipeline.h"

#include <optional>
#include <string>
#include <vector>

namespace quern {

/// What is to be compiled, and how.
struct CompileOptions : PipelineOptions {
  /// MODEL.gguf; or X.mlir: an lm module, or a dump with compileFrom; or
  /// M.quern, whose program goes on behind the kernels phase.
  std::string input;
  /// The model file with the weights that X.mlir names.
  std::string weights;
  /// The artifact, or the module's text when compileTo is an IR phase; "-" or
  /// empty is then standard output.
  std::string output;
  /// The last phase to run.
  Phase compileTo = Phase::Artifact;
  /// The input is the module after this phase: go on with the next.
  std::optional<Phase> compileFrom;
  /// The tuning database (docs/tuning.md) whose tiles are taken; empty: none.
  std::string tuning;
  /// Folder that gets the module after every IR phase; empty: none.
  std::string dumpIrTo;
  /// Folder that gets every kernel of every target; empty: none.
  std::string dumpKernelsTo;
  /// Collect what fused and what did not, and why.
  bool explain = false;
  /// Verify the module after every pass, not only after every phase.
  bool verifyEach = false;
  /// The secret key file that signs the artifact; empty: nobody signs.
  std::string signKey;
};

/// Hears of a compilation while it runs. Nothing is called from other threads.
class CompileObserver {
public:
  virtual ~CompileObserver() = default;
  virtual void phaseBegun(Phase phase) {}
  virtual void phaseDone(Phase phase, double seconds) {}
  /// Bytes of packed weights so far, and in all.
  virtual void packed(uint64_t done, uint64_t total) {}
  /// A line of `--explain`: what `phase` did, or did not and why.
  virtual void explained(Phase phase, const std::string &line) {}
};

/// Code of one target.
struct TargetSummary {
  std::string target;
  uint64_t codeBytes;
};

/// What a compilation made.
struct CompileSummary {
  /// Seconds of every phase that ran.
  std::vector<std::pair<Phase, double>> phases;
  std::vector<TargetSummary> targets;
  /// Set when an artifact was written.
  std::optional<ArtifactSummary> artifact;
  /// Targets, shares and numerics as they were used.
  PipelineOptions used;
};

/// Compiles. Errors carry an exit code (CompileError.h); nothing is printed
/// but the module's text when that is the output.
llvm::Expected<CompileSummary> compileModel(const CompileOptions &options,
                                            CompileObserver &observer);

} // namespace quern

#endif // QUERN_COMPILER_PIPELINE_COMPILER_H

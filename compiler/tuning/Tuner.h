//===- Tuner.h - The search for tiles ---------------------------*- C++ -*-===//
//
// Compiles the model with other tiles, all kernels at a time, and measures each
// beside the default in turn: first rows, then prefetch distances of the best
// tile, then row blocks, then once more what would be adopted.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_TUNING_TUNER_H
#define QUERN_COMPILER_TUNING_TUNER_H

#include "compiler/pipeline/Compiler.h"
#include "compiler/tuning/TuningDatabase.h"

namespace quern {

struct TuneOptions {
  /// How the model is compiled; `targets` holds the one host target to tune
  /// for. Its output is not used.
  CompileOptions compile;
  /// Seconds that the search may take behind the first compilation.
  double budget = 60;
};

/// Hears of a search while it runs.
class TuneObserver {
public:
  virtual ~TuneObserver() = default;
  /// Round `round` (from 1) measured `records` records; `seconds` of the budget
  /// are gone.
  virtual void roundDone(size_t round, size_t records, double seconds) {}
};

/// What a search found for one kernel of the model.
struct TunedResult {
  std::string name;
  TunedKernel tuned;
};

struct TuneSummary {
  std::string target, cpu;
  int64_t threads = 1;
  size_t rounds = 0, records = 0;
  /// Kernels of the model whose tile the database adopts.
  std::vector<TunedResult> adopted;
};

/// Searches, and adds every timing to `database`. At least one round is run,
/// whatever the budget. Errors: those of compileModel() and of the runtime,
/// such as Incompatible for a target that this machine cannot run.
llvm::Expected<TuneSummary> tuneModel(const TuneOptions &options,
                                      TuningDatabase &database,
                                      TuneObserver &observer);

} // namespace quern

#endif // QUERN_COMPILER_TUNING_TUNER_H

//===- KernelTimer.h - Times of an artifact's kernels -----------*- C++ -*-===//
//
// Runs an artifact through quern.h, as its users do, and reads what each kernel
// took: tiles are measured in the model, with its caches and its neighbours.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_TUNING_KERNELTIMER_H
#define QUERN_COMPILER_TUNING_KERNELTIMER_H

#include "codegen/target/Target.h"
#include "compiler/pipeline/RuntimeHandles.h"
#include "llvm/ADT/StringMap.h"

#include <set>
#include <string>
#include <vector>

namespace quern {

/// A kernel of an artifact, as one target and role run it.
struct TunableKernel {
  std::string name, signature;
  Role role;
  std::string generator;
  Tile tile;
  /// The weights it reads, for people: "q4_1[1536x576]+q4_1[1536x576]".
  std::string types;
};

/// Nanoseconds of a dispatch, by the kernel's name.
using KernelTimes = llvm::StringMap<double>;

/// An artifact with a session.
class KernelTimer {
public:
  /// Opens the artifact for `target`, with room for steps of up to `rows` rows
  /// or as many as the model's context allows. Errors: the runtime's.
  static llvm::Expected<KernelTimer>
  open(const std::string &path, const std::string &target, size_t rows);

  /// Kernels of both roles. Error: Failure when the runtime's description lacks
  /// what it should have.
  llvm::Expected<std::vector<TunableKernel>> kernels() const;

  /// Runs `steps` steps of `rows` rows, the first time after one to warm up.
  /// Prefill: rows of
  /// one sequence from its beginning. Decode: a row each of so many sequences,
  /// 4 at most, behind half of the context. Errors: the runtime's.
  llvm::Expected<KernelTimes> measure(Role role, size_t rows, size_t steps);

  size_t mostRows() const { return rows; }
  int64_t threads() const { return threadCount; }

private:
  KernelTimer() = default;
  llvm::Error addSequences();
  llvm::Error prefill(quern_sequence *sequence, size_t rows);
  llvm::Error step(Role role, size_t rows);

  Handle<quern_model> model;
  Handle<quern_session> session;
  Handle<quern_sequence> prompt;
  std::vector<Handle<quern_sequence>> generated;
  std::set<std::pair<Role, size_t>> warm; ///< what ran before
  std::string target;
  size_t rows = 0;
  int64_t threadCount = 1;
};

} // namespace quern

#endif // QUERN_COMPILER_TUNING_KERNELTIMER_H

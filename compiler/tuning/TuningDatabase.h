//===- TuningDatabase.h - What was measured of tiles ------------*- C++ -*-===//
//
// A text file, one record a line, sorted: `sort -u` of two files merges them,
// and so does merge(). docs/tuning.md describes the format. Which tiles a
// compilation takes follows from the records alone, never from the machine that
// compiles, so that the same file gives the same bytes everywhere.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_COMPILER_TUNING_TUNINGDATABASE_H
#define QUERN_COMPILER_TUNING_TUNINGDATABASE_H

#include "codegen/target/Target.h"
#include "llvm/Support/Error.h"

#include <map>
#include <string>
#include <vector>

namespace quern {

/// One tile of one kernel at one number of rows on one machine, beside the
/// default tile measured in turn with it.
struct TuningRecord {
  /// Signature of the kernel (dialects/rt/KernelSignature.h).
  std::string kernel;
  /// "avx512-vnni/prefill".
  std::string target;
  /// LLVM's name of the CPU, and the threads that worked: "znver4", 2.
  std::string cpu;
  int64_t threads = 1;
  /// The tile, and the default that it was compared with.
  Tile tile, over;
  /// Rows of a step.
  int64_t rows = 1;
  /// Nanoseconds of a dispatch with the tile and with the default.
  int64_t nanoseconds = 0, overNanoseconds = 0;
  /// How much slower the default's middle turn was than its best, in
  /// thousandths.
  int64_t noise = 0;
  /// How often both were measured.
  int64_t turns = 1;
  /// The weights that the kernel reads, for people: "q4_1[1536x576]".
  std::string types;

  /// The line, without its end.
  std::string str() const;
};

/// A tile that was adopted, and the records that say why.
struct TunedKernel {
  std::string kernel, target;
  Tile tile;
  std::vector<TuningRecord> records;
  /// Mean of the logarithms of default over tile; positive is faster.
  double gain = 0;

  /// As rt-apply-tuning takes it.
  std::string str() const;
};

class TuningDatabase {
public:
  /// Reads the text of a database. Errors: Malformed, with the line, what was
  /// seen and what was wanted; Incompatible for a version that is newer.
  static llvm::Expected<TuningDatabase> parse(llvm::StringRef text,
                                              llvm::StringRef path);
  /// Reads a file. Errors: Failure; those of parse().
  static llvm::Expected<TuningDatabase> read(const std::string &path);

  /// Turns that a tile must have been measured for before it is adopted: the
  /// best of many that were measured briefly may have been lucky.
  static constexpr int64_t kTurns = 5;

  /// Adds a record. Of two of the same tile, rows and machine the one of more
  /// turns stays, of these the one with less noise, then the faster one:
  /// merging knows no order.
  void add(const TuningRecord &record);
  /// Takes what was measured now in place of what was known, unless that was
  /// measured for longer.
  void replace(const TuningRecord &record);
  void merge(const TuningDatabase &other);

  std::string str() const;
  size_t size() const { return records.size(); }

  /// The tiles to adopt, for every kernel and target that has one: all its
  /// records have `turns` turns or more, on every
  /// machine and at every number of rows that the kernel and target were
  /// measured at, the tile is no slower than the default beyond the noise (2 %
  /// at most), and over all of them it is faster by more than the noise.
  /// Records over a tile that is no default any more are history.
  /// With 0 turns: those that are worth being measured for longer, where gains
  /// may be noise.
  std::vector<TunedKernel> adopt(int64_t turns = kTurns) const;

private:
  /// Kernel, target, cpu, threads, tile, rows.
  using Key = std::tuple<std::string, std::string, std::string, int64_t,
                         std::array<int64_t, 4>, int64_t>;
  static Key keyOf(const TuningRecord &record);

  std::map<Key, TuningRecord> records;
};

} // namespace quern

#endif // QUERN_COMPILER_TUNING_TUNINGDATABASE_H

#include "compiler/tuning/Tuner.h"

#include "compiler/tuning/KernelTimer.h"
#include "compiler/tuning/TileSpace.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/TargetParser/Host.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>

using namespace quern;

//===----------------------------------------------------------------------===//
// What is measured
//===----------------------------------------------------------------------===//

namespace {
/// Rows of a step that tiles are measured at, and how many steps make a turn.
struct Point {
  Role role;
  size_t rows, steps;
};

/// A kernel's tile in one round.
struct Trial {
  const TunableKernel *kernel;
  Tile tile;
};

/// What remains to be tried of one kernel: tiles, and then stages.
struct Candidates {
  TunableKernel kernel;
  std::deque<Tile> next;
  size_t stage = 0;
};

/// Makes the tiles of a stage from the kernel's default or from the best tile
/// so far.
struct Stage {
  std::vector<Tile> (*tiles)(llvm::StringRef generator, const Tile &base);
  bool fromBest;
};
} // namespace

static constexpr Point kPoints[] = {{Role::Decode, 1, 24},
                                    {Role::Decode, 4, 12},
                                    {Role::Prefill, 64, 2},
                                    {Role::Prefill, 512, 1}};
static constexpr size_t kMostRows = 512;
static constexpr Stage kStages[] = {
    {rowsToTry, false}, {prefetchesToTry, true}, {blocksToTry, false}};
/// Turns of default and tile in a round of the search.
static constexpr size_t kTurns = 2;

static std::string targetOf(const TunableKernel &kernel,
                            const std::string &target) {
  return target + "/" + std::string(roleName(kernel.role));
}

//===----------------------------------------------------------------------===//
// The search
//===----------------------------------------------------------------------===//

namespace {
class Tuner {
public:
  Tuner(const TuneOptions &options, TuningDatabase &database,
        TuneObserver &observer)
      : options(options), database(database), observer(observer),
        target(options.compile.targets.front()),
        cpu(llvm::sys::getHostCPUName()) {}

  llvm::Expected<TuneSummary> run();

private:
  using Clock = std::chrono::steady_clock;

  llvm::Expected<KernelTimer> compileFor(llvm::ArrayRef<Trial> trials,
                                         const std::string &path);
  llvm::Error round(llvm::ArrayRef<Trial> trials, size_t turns);
  llvm::Error measurePoint(const Point &point, KernelTimer &timer,
                           llvm::ArrayRef<Trial> trials, size_t turns);
  void keep(const Point &point, const Trial &trial,
            llvm::ArrayRef<KernelTimes> defaults,
            llvm::ArrayRef<KernelTimes> tiled);
  std::vector<Trial> nextTrials();
  const TuningRecord *bestTile(const TunableKernel &kernel);
  llvm::Error confirm();
  bool isKernel(const TunableKernel &kernel, const TunedKernel &tuned) const {
    return kernel.signature == tuned.kernel &&
           targetOf(kernel, target) == tuned.target;
  }
  std::vector<Trial> unconfirmed();

  double seconds() const {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }
  /// Whether a round as long as the longest so far still fits.
  bool hasTime(size_t rounds = 1) const {
    return seconds() + static_cast<double>(rounds) * longestRound <=
           options.budget;
  }

  const TuneOptions &options;
  TuningDatabase &database;
  TuneObserver &observer;
  const std::string target, cpu;
  std::optional<TemporaryFile> defaultFile;
  std::optional<KernelTimer> defaults;
  std::vector<Candidates> candidates;
  /// Of this search.
  std::vector<TuningRecord> measured;
  Clock::time_point start;
  double longestRound = 0;
  TuneSummary summary;
};
} // namespace

llvm::Expected<KernelTimer> Tuner::compileFor(llvm::ArrayRef<Trial> trials,
                                              const std::string &path) {
  CompileOptions compile = options.compile;
  compile.output = path;
  compile.compileTo = Phase::Artifact;
  compile.tuning.clear();
  compile.tunedTiles.clear();
  for (const Trial &trial : trials)
    compile.tunedTiles.push_back(TunedKernel{trial.kernel->signature,
                                             targetOf(*trial.kernel, target),
                                             trial.tile,
                                             {},
                                             0}
                                     .str());
  CompileObserver silent;
  llvm::Expected<CompileSummary> compiled = compileModel(compile, silent);
  if (!compiled)
    return compiled.takeError();
  return KernelTimer::open(path, target, kMostRows);
}

/// A name for a temporary artifact.
static std::string temporaryPath() {
  llvm::SmallString<128> folder, path;
  llvm::sys::path::system_temp_directory(/*ErasedOnReboot=*/true, folder);
  llvm::sys::fs::createUniquePath(folder + "/quern-tune-%%%%%%%%.quern", path,
                                  /*MakeAbsolute=*/false);
  return path.str().str();
}

/// The times of a trial's kernel in each turn.
static std::vector<double> timesOf(const Trial &trial,
                                   llvm::ArrayRef<KernelTimes> turns) {
  std::vector<double> times;
  for (const KernelTimes &turn : turns)
    if (const double time = turn.lookup(trial.kernel->name); time > 0)
      times.push_back(time);
  return times;
}

/// Keeps what the turns of one point say of one trial.
void Tuner::keep(const Point &point, const Trial &trial,
                 llvm::ArrayRef<KernelTimes> defaultTurns,
                 llvm::ArrayRef<KernelTimes> tiledTurns) {
  std::vector<double> over = timesOf(trial, defaultTurns);
  const std::vector<double> with = timesOf(trial, tiledTurns);
  if (over.empty() || with.empty())
    return;
  llvm::sort(over);
  const double best = over.front(), middle = over[over.size() / 2];
  auto nanoseconds = [](double time) {
    return std::max<int64_t>(1, std::llround(time));
  };
  TuningRecord record;
  record.kernel = trial.kernel->signature;
  record.target = targetOf(*trial.kernel, target);
  record.cpu = cpu;
  record.threads = defaults->threads();
  record.tile = trial.tile;
  record.over = trial.kernel->tile;
  record.rows = static_cast<int64_t>(point.rows);
  record.nanoseconds = nanoseconds(*std::min_element(with.begin(), with.end()));
  record.overNanoseconds = nanoseconds(best);
  record.noise = std::llround(1000 * (middle / best - 1));
  record.turns = static_cast<int64_t>(defaultTurns.size());
  record.types = trial.kernel->types;
  database.replace(record);
  measured.push_back(record);
  ++summary.records;
}

llvm::Error Tuner::measurePoint(const Point &point, KernelTimer &timer,
                                llvm::ArrayRef<Trial> trials, size_t turns) {
  std::vector<KernelTimes> defaultTurns, tiledTurns;
  for (size_t turn = 0; turn < turns; ++turn)
    for (auto [runner, times] : {std::pair(&*defaults, &defaultTurns),
                                 std::pair(&timer, &tiledTurns)}) {
      llvm::Expected<KernelTimes> measured =
          runner->measure(point.role, point.rows, point.steps);
      if (!measured)
        return measured.takeError();
      times->push_back(std::move(*measured));
    }
  for (const Trial &trial : trials)
    if (trial.kernel->role == point.role)
      keep(point, trial, defaultTurns, tiledTurns);
  return llvm::Error::success();
}

/// Compiles the trials' tiles and measures them at every point.
llvm::Error Tuner::round(llvm::ArrayRef<Trial> trials, size_t turns) {
  const double begin = seconds();
  const TemporaryFile file(temporaryPath());
  llvm::Expected<KernelTimer> timer = compileFor(trials, file.path);
  if (!timer)
    return timer.takeError();
  for (const Point &point : kPoints) {
    const bool wanted = llvm::any_of(trials, [&](const Trial &trial) {
      return trial.kernel->role == point.role;
    });
    if (!wanted || point.rows > defaults->mostRows())
      continue;
    if (llvm::Error error = measurePoint(point, *timer, trials, turns))
      return error;
  }
  longestRound = std::max(longestRound, seconds() - begin);
  observer.roundDone(++summary.rounds, summary.records, seconds());
  return llvm::Error::success();
}

/// A record of the tile with the greatest gain at its worst point; null when
/// none is faster than the default everywhere.
const TuningRecord *Tuner::bestTile(const TunableKernel &kernel) {
  const std::string subject = targetOf(kernel, target);
  std::map<std::string, std::pair<double, const TuningRecord *>> tiles;
  for (const TuningRecord &record : measured) {
    if (record.kernel != kernel.signature || record.target != subject)
      continue;
    const double ratio = static_cast<double>(record.overNanoseconds) /
                         static_cast<double>(record.nanoseconds);
    TunedKernel tuned;
    tuned.tile = record.tile;
    auto [entry, isNew] = tiles.try_emplace(tuned.str(), ratio, &record);
    if (!isNew && ratio < entry->second.first)
      entry->second.first = ratio;
  }
  const TuningRecord *best = nullptr;
  double ratio = 1;
  for (const auto &[tile, found] : tiles)
    if (found.first > ratio) {
      ratio = found.first;
      best = found.second;
    }
  return best;
}

/// One tile of every kernel that has any left.
std::vector<Trial> Tuner::nextTrials() {
  std::vector<Trial> trials;
  for (Candidates &each : candidates) {
    while (each.next.empty() && each.stage < std::size(kStages)) {
      const Stage &stage = kStages[each.stage++];
      const TuningRecord *best =
          stage.fromBest ? bestTile(each.kernel) : nullptr;
      const std::vector<Tile> more = stage.tiles(
          each.kernel.generator, best ? best->tile : each.kernel.tile);
      each.next.assign(more.begin(), more.end());
    }
    if (each.next.empty())
      continue;
    trials.push_back({&each.kernel, each.next.front()});
    each.next.pop_front();
  }
  return trials;
}

/// Tiles that would be adopted if they had been measured for longer here.
std::vector<Trial> Tuner::unconfirmed() {
  std::vector<Trial> trials;
  for (const TunedKernel &tuned : database.adopt(/*turns=*/0)) {
    const bool brief =
        llvm::any_of(tuned.records, [&](const TuningRecord &record) {
          return record.cpu == cpu && record.threads == defaults->threads() &&
                 record.turns < TuningDatabase::kTurns;
        });
    if (!brief)
      continue;
    for (const Candidates &each : candidates)
      if (isKernel(each.kernel, tuned))
        trials.push_back({&each.kernel, tuned.tile});
  }
  return trials;
}

/// Measures what would be adopted for longer; when that shows that a tile is no
/// better, the next one, as long as there is time.
llvm::Error Tuner::confirm() {
  for (std::vector<Trial> trials = unconfirmed(); !trials.empty() && hasTime();
       trials = unconfirmed())
    if (llvm::Error error = round(trials, TuningDatabase::kTurns))
      return error;
  return llvm::Error::success();
}

llvm::Expected<TuneSummary> Tuner::run() {
  defaultFile.emplace(temporaryPath());
  llvm::Expected<KernelTimer> opened = compileFor({}, defaultFile->path);
  if (!opened)
    return opened.takeError();
  defaults.emplace(std::move(*opened));
  llvm::Expected<std::vector<TunableKernel>> kernels = defaults->kernels();
  if (!kernels)
    return kernels.takeError();
  for (TunableKernel &kernel : *kernels) {
    if (!rowsToTry(kernel.generator, kernel.tile).empty())
      candidates.push_back({std::move(kernel), {}});
  }
  start = Clock::now();
  // A round is left for measuring once more what would be adopted.
  for (std::vector<Trial> trials = nextTrials();
       !trials.empty() && (summary.rounds == 0 || hasTime(2));
       trials = nextTrials())
    if (llvm::Error error = round(trials, kTurns))
      return std::move(error);
  if (llvm::Error error = confirm())
    return std::move(error);

  summary.target = target;
  summary.cpu = cpu;
  summary.threads = defaults->threads();
  for (const TunedKernel &tuned : database.adopt())
    for (const Candidates &each : candidates)
      if (isKernel(each.kernel, tuned))
        summary.adopted.push_back({each.kernel.name, tuned});
  return std::move(summary);
}

llvm::Expected<TuneSummary> quern::tuneModel(const TuneOptions &options,
                                             TuningDatabase &database,
                                             TuneObserver &observer) {
  return Tuner(options, database, observer).run();
}

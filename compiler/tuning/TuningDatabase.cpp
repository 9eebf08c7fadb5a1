#include "compiler/tuning/TuningDatabase.h"

#include "codegen/artifact/CompileError.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cmath>
#include <set>

using namespace quern;
using llvm::StringRef;

/// The first line. `#` sorts before every record.
static constexpr llvm::StringLiteral kHeader = "# quern tuning 1";
static constexpr llvm::StringLiteral kHeaderStart = "# quern tuning ";
static constexpr size_t kMostBytes = size_t{64} << 20;
/// Slower than the default by more than this is slower, however noisy.
static constexpr double kMostNoise = 0.02;
/// Less is no gain, however quiet the machine.
static constexpr double kLeastGain = 1e-3;

//===----------------------------------------------------------------------===//
// Text
//===----------------------------------------------------------------------===//

static std::string tileText(const Tile &tile) {
  return llvm::formatv("{0}/{1}/{2}/{3}", tile.rows, tile.blocks, tile.keys,
                       tile.prefetch);
}

static bool parseTile(StringRef text, Tile &tile) {
  llvm::SmallVector<StringRef, 4> parts;
  text.split(parts, '/');
  int64_t *numbers[] = {&tile.rows, &tile.blocks, &tile.keys, &tile.prefetch};
  if (parts.size() != std::size(numbers))
    return false;
  for (auto [part, number] : llvm::zip_equal(parts, numbers))
    if (part.getAsInteger(10, *number) || *number < 0 || *number > 1 << 20)
      return false;
  return tile.rows > 0 && tile.blocks > 0 && tile.keys > 0;
}

/// A decimal number of at least `least`.
static bool parseNumber(StringRef text, int64_t least, int64_t &number) {
  return !text.getAsInteger(10, number) && number >= least &&
         number <= int64_t{1} << 50;
}

static bool isWord(StringRef text) {
  return !text.empty() && text.size() <= 4096 && llvm::all_of(text, [](char c) {
    return llvm::isPrint(c) && c != ' ';
  });
}

static bool isSignature(StringRef text) {
  return text.size() == 16 && llvm::all_of(text, llvm::isHexDigit);
}

/// "avx2/decode" of a target and role that exist.
static bool isTarget(StringRef text) {
  auto [name, role] = text.split('/');
  return findTarget(std::string_view(name.data(), name.size())) &&
         (role == "decode" || role == "prefill");
}

namespace {
/// A field of a line: its name, how it is written and how it is read.
struct Field {
  StringRef name, wanted;
  std::string (*write)(const TuningRecord &);
  bool (*read)(StringRef, TuningRecord &);
};
} // namespace

// In the order of a line, so that sorted lines of a kernel stand together.
static constexpr Field kFields[] = {
    {"kernel", "16 hexadecimal digits",
     [](const TuningRecord &r) { return r.kernel; },
     [](StringRef text, TuningRecord &r) {
       r.kernel = text.str();
       return isSignature(text);
     }},
    {"target", "TARGET/decode or TARGET/prefill",
     [](const TuningRecord &r) { return r.target; },
     [](StringRef text, TuningRecord &r) {
       r.target = text.str();
       return isTarget(text);
     }},
    {"cpu", "a word", [](const TuningRecord &r) { return r.cpu; },
     [](StringRef text, TuningRecord &r) {
       r.cpu = text.str();
       return isWord(text);
     }},
    {"threads", "a number from 1",
     [](const TuningRecord &r) { return std::to_string(r.threads); },
     [](StringRef text, TuningRecord &r) {
       return parseNumber(text, 1, r.threads);
     }},
    {"tile", "ROWS/BLOCKS/KEYS/PREFETCH",
     [](const TuningRecord &r) { return tileText(r.tile); },
     [](StringRef text, TuningRecord &r) { return parseTile(text, r.tile); }},
    {"rows", "a number from 1",
     [](const TuningRecord &r) { return std::to_string(r.rows); },
     [](StringRef text, TuningRecord &r) {
       return parseNumber(text, 1, r.rows);
     }},
    {"ns", "a number from 1",
     [](const TuningRecord &r) { return std::to_string(r.nanoseconds); },
     [](StringRef text, TuningRecord &r) {
       return parseNumber(text, 1, r.nanoseconds);
     }},
    {"over", "ROWS/BLOCKS/KEYS/PREFETCH",
     [](const TuningRecord &r) { return tileText(r.over); },
     [](StringRef text, TuningRecord &r) { return parseTile(text, r.over); }},
    {"over_ns", "a number from 1",
     [](const TuningRecord &r) { return std::to_string(r.overNanoseconds); },
     [](StringRef text, TuningRecord &r) {
       return parseNumber(text, 1, r.overNanoseconds);
     }},
    {"noise", "thousandths from 0",
     [](const TuningRecord &r) { return std::to_string(r.noise); },
     [](StringRef text, TuningRecord &r) {
       return parseNumber(text, 0, r.noise);
     }},
    {"turns", "a number from 1",
     [](const TuningRecord &r) { return std::to_string(r.turns); },
     [](StringRef text, TuningRecord &r) {
       return parseNumber(text, 1, r.turns);
     }},
    {"types", "a word", [](const TuningRecord &r) { return r.types; },
     [](StringRef text, TuningRecord &r) {
       r.types = text.str();
       return isWord(text);
     }},
};

std::string TuningRecord::str() const {
  std::string line;
  for (const Field &field : kFields)
    line +=
        (line.empty() ? "" : " ") + field.name.str() + "=" + field.write(*this);
  return line;
}

std::string TunedKernel::str() const {
  return kernel + ":" + target + "=" + tileText(tile);
}

std::string TuningDatabase::str() const {
  std::vector<std::string> lines;
  for (const auto &[key, record] : records)
    lines.push_back(record.str());
  llvm::sort(lines);
  std::string text = kHeader.str() + "\n";
  for (const std::string &line : lines)
    text += line + "\n";
  return text;
}

/// What is wrong with the line, or nothing.
static std::optional<std::string> parseRecord(StringRef line,
                                              TuningRecord &record) {
  llvm::SmallVector<StringRef, 16> words;
  line.split(words, ' ');
  for (auto [i, field] : llvm::enumerate(kFields)) {
    const StringRef word = i < words.size() ? words[i] : StringRef();
    auto [name, value] = word.split('=');
    if (name != field.name || !field.read(value, record))
      return llvm::formatv("field {0} is '{1}', wanted {2}={3}", i + 1,
                           word.take_front(80), field.name, field.wanted);
  }
  if (words.size() > std::size(kFields))
    return llvm::formatv("'{0}' follows the last field {1}",
                         words[std::size(kFields)].take_front(80),
                         std::end(kFields)[-1].name);
  return std::nullopt;
}

llvm::Expected<TuningDatabase> TuningDatabase::parse(StringRef text,
                                                     StringRef path) {
  TuningDatabase database;
  llvm::SmallVector<StringRef> lines;
  text.split(lines, '\n');
  if (lines.front() != kHeader)
    return compileError(
        lines.front().starts_with(kHeaderStart) ? ExitCode::Incompatible
                                                : ExitCode::Malformed,
        path + ":1: seen '" + lines.front().take_front(80) + "', wanted '" +
            kHeader + "'; give a file that this version of quern tune made");
  for (auto [i, line] : llvm::enumerate(lines)) {
    if (line.empty() || line.starts_with("#"))
      continue;
    TuningRecord record;
    if (std::optional<std::string> wrong = parseRecord(line, record))
      return compileError(ExitCode::Malformed,
                          path + ":" + llvm::Twine(i + 1) + ": " + *wrong +
                              "; correct or remove the line");
    database.add(record);
  }
  return database;
}

llvm::Expected<TuningDatabase> TuningDatabase::read(const std::string &path) {
  auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/true);
  if (!buffer)
    return compileError(ExitCode::Failure,
                        "cannot read " + path + ": " +
                            buffer.getError().message() +
                            "; give the path of a file that can be read");
  if ((*buffer)->getBufferSize() > kMostBytes)
    return compileError(ExitCode::Malformed,
                        path + " has " +
                            llvm::Twine((*buffer)->getBufferSize()) +
                            " bytes, at most 64 MiB were wanted; give a file "
                            "that quern tune made");
  return parse((*buffer)->getBuffer(), path);
}

//===----------------------------------------------------------------------===//
// Records
//===----------------------------------------------------------------------===//

static std::array<int64_t, 4> numbersOf(const Tile &tile) {
  return {tile.rows, tile.blocks, tile.keys, tile.prefetch};
}

TuningDatabase::Key TuningDatabase::keyOf(const TuningRecord &record) {
  return {record.kernel,  record.target,          record.cpu,
          record.threads, numbersOf(record.tile), record.rows};
}

void TuningDatabase::replace(const TuningRecord &record) {
  auto [known, isNew] = records.try_emplace(keyOf(record), record);
  if (!isNew && record.turns >= known->second.turns)
    known->second = record;
}

void TuningDatabase::add(const TuningRecord &record) {
  auto [known, isNew] = records.try_emplace(keyOf(record), record);
  auto rank = [](const TuningRecord &r) {
    return std::tuple(-r.turns, r.noise, r.nanoseconds, r.str());
  };
  if (!isNew && rank(record) < rank(known->second))
    known->second = record;
}

void TuningDatabase::merge(const TuningDatabase &other) {
  for (const auto &[key, record] : other.records)
    add(record);
}

//===----------------------------------------------------------------------===//
// Adoption
//===----------------------------------------------------------------------===//

/// Logarithm of how much faster the tile is than the default.
static double gainOf(const TuningRecord &record) {
  return std::log(static_cast<double>(record.overNanoseconds) /
                  static_cast<double>(record.nanoseconds));
}

static bool isSlower(const TuningRecord &record) {
  const double noise =
      std::min(kMostNoise, 1e-3 * static_cast<double>(record.noise));
  return static_cast<double>(record.nanoseconds) >
         (1 + noise) * static_cast<double>(record.overNanoseconds);
}

/// Whether the record compares with a tile that is still a default.
static bool isCurrent(const TuningRecord &record) {
  auto [name, role] = StringRef(record.target).split('/');
  const Target *target = findTarget(std::string_view(name.data(), name.size()));
  const auto &defaults = target->tiles[role == "prefill"];
  return llvm::any_of(defaults, [&](const Tile &tile) {
    return numbersOf(tile) == numbersOf(record.over);
  });
}

std::vector<TunedKernel> TuningDatabase::adopt(int64_t turns) const {
  // Where each kernel was measured at all, and each of its tiles.
  using Place = std::tuple<std::string, int64_t, int64_t>;
  using Subject = std::pair<std::string, std::string>;
  std::map<Subject, std::set<Place>> places;
  std::map<Subject, std::map<std::array<int64_t, 4>, TunedKernel>> tiles;
  for (const auto &[key, record] : records) {
    if (!isCurrent(record))
      continue;
    const Subject subject(record.kernel, record.target);
    places[subject].insert({record.cpu, record.threads, record.rows});
    TunedKernel &tuned = tiles[subject][numbersOf(record.tile)];
    tuned.kernel = record.kernel;
    tuned.target = record.target;
    tuned.tile = record.tile;
    tuned.records.push_back(record);
  }
  std::vector<TunedKernel> adopted;
  for (auto &[subject, candidates] : tiles) {
    TunedKernel *best = nullptr;
    for (auto &[tile, candidate] : candidates) {
      double noise = 0;
      bool isSure = true;
      for (const TuningRecord &record : candidate.records) {
        candidate.gain +=
            gainOf(record) / static_cast<double>(candidate.records.size());
        noise = std::max(noise, 1e-3 * static_cast<double>(record.noise));
        isSure &= record.turns >= turns;
      }
      if (isSure && candidate.records.size() == places[subject].size() &&
          llvm::none_of(candidate.records, isSlower) &&
          candidate.gain >
              (turns > 0 ? std::max(noise, kLeastGain) : kLeastGain) &&
          (!best || candidate.gain > best->gain))
        best = &candidate;
    }
    if (best)
      adopted.push_back(*best);
  }
  return adopted;
}

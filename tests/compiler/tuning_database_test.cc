// The tuning database: its text, merging, and which tiles it adopts.
#include "compiler/tuning/TuningDatabase.h"

#include "codegen/artifact/CompileError.h"
#include "gtest/gtest.h"

namespace quern {
namespace {

constexpr char kHeader[] = "# quern tuning 1\n";
constexpr char kLine[] =
    "kernel=0123456789abcdef target=avx2/decode cpu=znver4 threads=2 tile=4/2/32/1024 rows=1 ns=90 "
    "over=2/1/32/4096 over_ns=100 noise=5 turns=5 types=q4_1[576x576]";

/// A record of the default tile of avx2 against `tile`.
TuningRecord Record(int64_t rows, int64_t ns, int64_t over_ns, Tile tile = {4, 2, 32, 1024}) {
  TuningRecord record;
  record.kernel = "0123456789abcdef";
  record.target = "avx2/decode";
  record.cpu = "znver4";
  record.threads = 2;
  record.tile = tile;
  record.over = {2, 1, 32, 4096};
  record.rows = rows;
  record.nanoseconds = ns;
  record.overNanoseconds = over_ns;
  record.turns = 5;
  record.types = "q4_1[576x576]";
  return record;
}

TuningDatabase Database(std::initializer_list<TuningRecord> records) {
  TuningDatabase database;
  for (const TuningRecord& record : records) database.add(record);
  return database;
}

/// The message and exit code of what parse() refuses; "" when it does not.
std::string Refusal(const std::string& text, ExitCode* code = nullptr) {
  llvm::Expected<TuningDatabase> database = TuningDatabase::parse(text, "x.tuning");
  if (database) return "";
  std::string message;
  llvm::handleAllErrors(database.takeError(), [&](const CompileError& error) {
    message = error.message();
    if (code) *code = error.code();
  });
  return message;
}

TEST(TuningDatabase, ReadsWhatItWrites) {
  const std::string text = std::string(kHeader) + kLine + "\n";
  llvm::Expected<TuningDatabase> database = TuningDatabase::parse(text, "x.tuning");
  ASSERT_TRUE(static_cast<bool>(database));
  EXPECT_EQ(database->str(), text);
  TuningRecord expected = Record(1, 90, 100);
  expected.noise = 5;
  EXPECT_EQ(expected.str(), kLine);
}

TEST(TuningDatabase, SkipsCommentsAndEmptyLines) {
  EXPECT_EQ(Refusal(std::string(kHeader) + "\n# a comment\n\n" + kLine), "");
}

TEST(TuningDatabase, RefusesWithTheLineAndWhatWasWanted) {
  const std::pair<const char*, const char*> kBroken[] = {
      {"kernel=0123456789abcdef", "kernel=0123"},
      {"target=avx2/decode", "target=sparc/decode"},
      {"target=avx2/decode", "target=avx2/both"},
      {"cpu=znver4", "cpu="},
      {"threads=2", "threads=0"},
      {"threads=2", "threads=99999999999999999999"},
      {"tile=4/2/32/1024", "tile=4/2/32"},
      {"tile=4/2/32/1024", "tile=0/2/32/1024"},
      {"rows=1", "rows=-1"},
      {"ns=90", "ns=9e1"},
      {"over_ns=100", "over_ns=0"},
      {"noise=5", "noise="},
      {"noise=5", "nois=5"},
      {" types=q4_1[576x576]", ""},
      {"types=q4_1[576x576]", "types=q4_1[576x576] more=1"},
  };
  for (const auto& [good, bad] : kBroken) {
    std::string line = kLine;
    line.replace(line.find(good), std::string(good).size(), bad);
    ExitCode code = ExitCode::Ok;
    const std::string message = Refusal(std::string(kHeader) + kLine + "\n" + line + "\n", &code);
    EXPECT_EQ(code, ExitCode::Malformed) << line;
    EXPECT_TRUE(message.starts_with("x.tuning:3: ")) << message;
  }
}

TEST(TuningDatabase, RefusesAnotherKindOfFileAndAnotherVersion) {
  ExitCode code = ExitCode::Ok;
  EXPECT_TRUE(Refusal("", &code).starts_with("x.tuning:1: "));
  EXPECT_EQ(code, ExitCode::Malformed);
  EXPECT_TRUE(Refusal("# quern tuning 2\n", &code).starts_with("x.tuning:1: "));
  EXPECT_EQ(code, ExitCode::Incompatible);
}

TEST(TuningDatabase, MergingKnowsNoOrderAndForgetsNothingTwice) {
  TuningRecord quiet = Record(1, 95, 100), noisy = Record(1, 80, 100);
  noisy.noise = 300;
  const TuningDatabase a = Database({quiet, Record(4, 90, 100)});
  const TuningDatabase b = Database({noisy, Record(1, 70, 100, {1, 1, 32, 0})});
  TuningDatabase ab = a, ba = b;
  ab.merge(b);
  ba.merge(a);
  EXPECT_EQ(ab.str(), ba.str());
  EXPECT_EQ(ab.size(), 3u);
  ab.merge(b);
  EXPECT_EQ(ab.str(), ba.str());
  EXPECT_NE(ab.str().find(quiet.str()), std::string::npos);
}

TEST(TuningDatabase, AdoptsWhatIsFasterAndNowhereSlower) {
  const std::vector<TunedKernel> adopted =
      Database({Record(1, 90, 100), Record(4, 101, 100)}).adopt();
  EXPECT_TRUE(adopted.empty());  // 1 % slower with no noise
  TuningRecord within = Record(4, 101, 100);
  within.noise = 15;
  const auto found = Database({Record(1, 90, 100), within}).adopt();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].str(), "0123456789abcdef:avx2/decode=4/2/32/1024");
  EXPECT_EQ(found[0].records.size(), 2u);
}

TEST(TuningDatabase, NoiseExcusesTwoPerCentAtMostAndEatsGains) {
  TuningRecord slower = Record(4, 103, 100), faster = Record(1, 50, 100);
  slower.noise = 500;
  EXPECT_TRUE(Database({faster, slower}).adopt().empty());
  TuningRecord lucky = Record(1, 90, 100);
  lucky.noise = 150;
  EXPECT_TRUE(Database({lucky}).adopt().empty());
  EXPECT_EQ(Database({lucky}).adopt(/*turns=*/0).size(), 1u);  // worth another look
}

TEST(TuningDatabase, AdoptsTheFastestThatCoversEveryMachineAndRows) {
  TuningRecord elsewhere = Record(1, 95, 100);
  elsewhere.cpu = "icelake-server";
  const Tile fast = {1, 1, 32, 0};
  // The fast tile was not measured on the other machine.
  const auto found =
      Database({Record(1, 90, 100), elsewhere, Record(1, 50, 100, fast)}).adopt();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].tile.rows, 4);
  const auto alone = Database({Record(1, 90, 100), Record(1, 50, 100, fast)}).adopt();
  ASSERT_EQ(alone.size(), 1u);
  EXPECT_EQ(alone[0].tile.rows, 1);
}

TEST(TuningDatabase, AdoptsNothingThatWasMeasuredBriefly) {
  TuningRecord brief = Record(1, 50, 100);
  brief.turns = 3;
  EXPECT_TRUE(Database({brief}).adopt().empty());
  EXPECT_EQ(Database({brief}).adopt(/*turns=*/0).size(), 1u);
  // Longer counts for more than faster.
  EXPECT_TRUE(Database({brief, Record(1, 100, 100)}).adopt(0).empty());
}

TEST(TuningDatabase, RecordsOverAnOlderDefaultAreHistory) {
  TuningRecord record = Record(1, 50, 100);
  record.over = {7, 1, 32, 4096};
  EXPECT_TRUE(Database({record}).adopt().empty());
}

}  // namespace
}  // namespace quern

// Files: sound, damaged, cut off.
#include "runtime/loader/artifact.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>

#include "runtime/loader/hash.h"
#include "runtime/schema/file_header.h"
#include "tests/runtime/support/fake_model.h"

namespace quern {
namespace {

using testing::Assemble;
using testing::MakeFakeModel;

Result<std::unique_ptr<const Artifact>> Read(std::span<const uint8_t> bytes,
                                             const LoadOptions& options = {}) {
  Result<FileBytes> file = FileBytes::FromBytes(bytes);
  EXPECT_TRUE(file.ok());
  return Artifact::FromBytes(std::move(file).value(), options);
}

/// A refusal is a sentence with a remedy, of a kind that its cause allows.
void ExpectRefused(const Result<std::unique_ptr<const Artifact>>& result) {
  ASSERT_FALSE(result.ok());
  EXPECT_TRUE(result.status().code() == StatusCode::kMalformed ||
              result.status().code() == StatusCode::kIncompatible)
      << result.status().message();
  EXPECT_NE(result.status().message().find(';'), std::string::npos) << result.status().message();
  EXPECT_EQ(result.status().message().find('\n'), std::string::npos);
}

TEST(Hash, IsBlake2b256) {
  // RFC 7693 gives the 512-bit digest; this 256-bit one is from Python's hashlib.blake2b.
  const uint8_t abc[] = {'a', 'b', 'c'};
  EXPECT_EQ(DigestText(HashBytes(abc)),
            "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
}

TEST(Artifact, LoadsASoundFile) {
  const testing::FakeModel model = MakeFakeModel();
  const auto artifact = Read(Assemble(model), {.check_weights = true});
  ASSERT_TRUE(artifact.ok()) << artifact.status().message();
  EXPECT_EQ((*artifact)->manifest().model()->name()->str(), "Fake");
  EXPECT_TRUE(std::ranges::equal((*artifact)->weights(), model.weights));
  EXPECT_TRUE(std::ranges::equal((*artifact)->tokenizer(), model.tokenizer));
  const auto targets = (*artifact)->HostTargets();
  ASSERT_EQ(targets.size(), 2u);
  EXPECT_EQ(targets[1].features, std::vector<std::string>{"avx4096"});
}

class ArtifactFile : public ::testing::TestWithParam<bool> {
 protected:
  std::string path_ = ::testing::TempDir() + "quern_artifact_" + std::to_string(getpid());
  ~ArtifactFile() override { std::remove(path_.c_str()); }
};

TEST_P(ArtifactFile, MapsAndCopiesTheSame) {
  const std::vector<uint8_t> bytes = Assemble(MakeFakeModel());
  std::ofstream(path_, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  const auto artifact = Artifact::Load(path_, {.copy = GetParam(), .check_weights = true});
  ASSERT_TRUE(artifact.ok()) << artifact.status().message();
  EXPECT_EQ((*artifact)->file_size(), bytes.size());
}

TEST_P(ArtifactFile, NamesTheFileInErrors) {
  const auto missing = Artifact::Load(path_ + ".none", {.copy = GetParam()});
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), StatusCode::kFailure);
  EXPECT_NE(missing.status().message().find(path_ + ".none"), std::string::npos);

  std::ofstream(path_, std::ios::binary).flush();
  const auto empty = Artifact::Load(path_, {.copy = GetParam()});
  ExpectRefused(empty);
  EXPECT_NE(empty.status().message().find("empty"), std::string::npos);

  const auto folder = Artifact::Load(::testing::TempDir(), {.copy = GetParam()});
  ASSERT_FALSE(folder.ok());
  EXPECT_EQ(folder.status().code(), StatusCode::kFailure);
}

TEST_P(ArtifactFile, HasTheBytesOfALongFileAtAHugePage) {
  constexpr size_t kHugePage = size_t{2} << 20;
  for (size_t size : {kHugePage - 1, kHugePage, 2 * kHugePage + 4097}) {
    std::vector<char> bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
    std::ofstream(path_, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(size));
    const auto file = GetParam() ? FileBytes::Copy(path_) : FileBytes::Map(path_);
    ASSERT_TRUE(file.ok()) << file.status().message();
    ASSERT_EQ(file->bytes().size(), size);
    EXPECT_EQ(std::memcmp(file->bytes().data(), bytes.data(), size), 0);
    if (GetParam()) continue;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(file->bytes().data()) % kHugePage, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(MapAndCopy, ArtifactFile, ::testing::Bool());

TEST(Artifact, RefusesEveryTruncation) {
  const std::vector<uint8_t> bytes = Assemble(MakeFakeModel());
  std::set<size_t> sizes;
  for (size_t i = 0; i < 64; ++i) sizes.insert(bytes.size() * i / 64);
  for (size_t size : {1, 4, 8, 9, 31, 63, 64, 65}) sizes.insert(size);
  sizes.insert(bytes.size() - 1);
  for (size_t size : sizes) {
    SCOPED_TRACE(size);
    ExpectRefused(Read(std::span(bytes).first(size)));
  }
}

TEST(Artifact, RefusesEveryChangedBit) {
  const std::vector<uint8_t> bytes = Assemble(MakeFakeModel());
  // Everything but the padding between segments is covered by a hash or checked itself.
  const auto artifact = Read(bytes);
  ASSERT_TRUE(artifact.ok());
  std::vector<std::pair<size_t, size_t>> covered = {{0, sizeof(FileHeader)}};
  for (const schema::Segment* s : *(*artifact)->manifest().segments()) {
    covered.emplace_back(s->offset(), s->offset() + s->size());
  }
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  covered.emplace_back(header.manifest_offset, bytes.size());
  size_t at = 0;
  for (const auto& [begin, end] : covered) {
    for (size_t byte = begin; byte < end; byte += 1 + at++ % 37) {
      std::vector<uint8_t> damaged = bytes;
      damaged[byte] ^= static_cast<uint8_t>(1u << (at % 8));
      SCOPED_TRACE(byte);
      ExpectRefused(Read(damaged, {.check_weights = true}));
    }
  }
}

TEST(Artifact, ChecksWeightsOnlyOnRequest) {
  std::vector<uint8_t> bytes = Assemble(MakeFakeModel());
  bytes[kSegmentAlignment] ^= 1;  // the first segment is the weights
  EXPECT_TRUE(Read(bytes).ok());
  const auto checked = Read(bytes, {.check_weights = true});
  ExpectRefused(checked);
  EXPECT_NE(checked.status().message().find("segment weights (byte 4096)"), std::string::npos);
}

/// With a manifest whose hash fits, but whose bytes are damaged: the verifier and the checks stand
/// alone.
TEST(Artifact, SurvivesDamageThatTheHashDoesNotShow) {
  const std::vector<uint8_t> bytes = Assemble(MakeFakeModel());
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const size_t begin = header.manifest_offset;
  size_t refused = 0, accepted = 0;
  for (size_t byte = begin; byte < bytes.size(); ++byte) {
    for (const uint8_t mask : {uint8_t{0x01}, uint8_t{0x80}, uint8_t{0xff}}) {
      std::vector<uint8_t> damaged = bytes;
      damaged[byte] ^= mask;
      const Digest digest = HashBytes(std::span(damaged).subspan(begin));
      std::memcpy(damaged.data() + offsetof(FileHeader, manifest_hash), digest.data(),
                  digest.size());
      const auto artifact = Read(damaged);
      if (artifact.ok()) {
        ++accepted;  // a letter of a name, a position of a licence: harmless
      } else {
        ++refused;
        ASSERT_FALSE(artifact.status().message().empty());
      }
    }
  }
  EXPECT_GT(refused, accepted);
}

TEST(Artifact, TellsOtherFilesApart) {
  std::vector<uint8_t> gguf = {'G', 'G', 'U', 'F', 3, 0, 0, 0};
  const auto as_gguf = Read(gguf);
  ExpectRefused(as_gguf);
  EXPECT_NE(as_gguf.status().message().find("quern compile"), std::string::npos);

  std::vector<uint8_t> newer = Assemble(MakeFakeModel());
  newer[8] += 1;
  const auto as_newer = Read(newer);
  ExpectRefused(as_newer);
  EXPECT_EQ(as_newer.status().code(), StatusCode::kIncompatible);
}

}  // namespace
}  // namespace quern

// Records behind an artifact: read, added, damaged, signed.
#include "runtime/loader/records.h"

#include <gtest/gtest.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "runtime/loader/artifact.h"
#include "runtime/loader/hash.h"
#include "tests/runtime/support/fake_model.h"

namespace quern {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr char kText[] = R"({"mean_kl": 0.5})";
const Bytes kJson(kText, kText + sizeof(kText) - 1);

/// A file of the fake model, which records are added to.
class RecordFile : public ::testing::Test {
 protected:
  RecordFile() { Write(testing::Assemble(testing::MakeFakeModel())); }
  ~RecordFile() override { unlink(path_.c_str()); }

  void Write(const Bytes& bytes) {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  Bytes Contents() const {
    std::ifstream file(path_, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(file), {});
  }
  Result<std::unique_ptr<const Artifact>> Load(std::vector<PublicKey> trusted = {}) const {
    LoadOptions options;
    options.trusted_keys = std::move(trusted);
    return Artifact::Load(path_, options);
  }
  /// The signature of the file by the key pair of `seed`.
  Bytes Signature(uint8_t seed, PublicKey& key) const {
    std::array<uint8_t, crypto_sign_SEEDBYTES> seeds;
    std::array<uint8_t, crypto_sign_SECRETKEYBYTES> secret;
    seeds.fill(seed);
    crypto_sign_seed_keypair(key.data(), secret.data(), seeds.data());
    const Bytes file = Contents();
    Bytes message(kSignatureContext, kSignatureContext + sizeof(kSignatureContext) - 1);
    message.insert(message.end(), file.begin(), file.begin() + sizeof(FileHeader));
    SignatureRecord record;
    std::memcpy(record.public_key, key.data(), key.size());
    crypto_sign_detached(record.signature, nullptr, message.data(), message.size(), secret.data());
    const auto* bytes = reinterpret_cast<const uint8_t*>(&record);
    return Bytes(bytes, bytes + sizeof(record));
  }
  PublicKey Sign(uint8_t seed) {
    PublicKey key;
    const Status added = AppendRecord(path_, RecordKind::kSignature, Signature(seed, key));
    EXPECT_TRUE(added.ok()) << added.message();
    return key;
  }
  void ExpectRefused(StatusCode code, const char* word, std::vector<PublicKey> trusted = {}) const {
    const auto artifact = Load(std::move(trusted));
    ASSERT_FALSE(artifact.ok());
    EXPECT_EQ(artifact.status().code(), code) << artifact.status().message();
    EXPECT_NE(artifact.status().message().find(word), std::string::npos)
        << artifact.status().message();
  }

  const std::string path_ =
      ::testing::TempDir() + "quern_records_" + std::to_string(getpid()) + ".quern";
};

TEST_F(RecordFile, AddsWithoutChangingTheArtifact) {
  const Bytes before = Contents();
  for (size_t count = 1; count <= 3; ++count) {
    Bytes text = kJson;
    text.resize(count * 37, ' ');  // not a multiple of the alignment
    ASSERT_TRUE(AppendRecord(path_, RecordKind::kAccuracy, text).ok());
    const auto artifact = Load();
    ASSERT_TRUE(artifact.ok()) << artifact.status().message();
    ASSERT_EQ((*artifact)->records().size(), count);
    const Record& last = (*artifact)->records().back();
    EXPECT_EQ(last.kind, RecordKind::kAccuracy);
    EXPECT_EQ(last.offset % kRecordAlignment, 0u);
    EXPECT_TRUE(std::ranges::equal(last.bytes, text));
  }
  const Bytes after = Contents();
  ASSERT_GT(after.size(), before.size());
  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin()));
}

TEST_F(RecordFile, StepsOverKindsOfTheFuture) {
  ASSERT_TRUE(AppendRecord(path_, static_cast<RecordKind>(4711), kJson).ok());
  ASSERT_TRUE(AppendRecord(path_, RecordKind::kAccuracy, {}).ok());
  EXPECT_EQ((*Load())->records().size(), 2u);
}

TEST_F(RecordFile, SurvivesAnInterruptedAddition) {
  // What a crash before the header is written leaves: the bytes, and zeros where the header
  // belongs.
  const size_t end = (*Load())->records_end();
  Bytes file = Contents();
  file.resize(end + sizeof(RecordHeader));
  file.insert(file.end(), 100, 0xff);
  Write(file);
  EXPECT_TRUE((*Load())->records().empty());
  ASSERT_TRUE(AppendRecord(path_, RecordKind::kAccuracy, kJson).ok());
  EXPECT_EQ((*Load())->records().size(), 1u);
  EXPECT_EQ(Contents().size(), end + sizeof(RecordHeader) + kJson.size());
}

TEST_F(RecordFile, RefusesEveryFlippedBitAndEveryCut) {
  ASSERT_TRUE(AppendRecord(path_, RecordKind::kAccuracy, kJson).ok());
  const Bytes sound = Contents();
  const size_t begin = (*Load())->records()[0].offset;
  for (size_t byte = begin; byte < sound.size(); ++byte) {
    const size_t field = byte - begin;
    // The kind has no wrong value, and the zeros are for the future.
    if ((field >= 8 && field < 12) || (field >= 24 && field < 32)) continue;
    Bytes damaged = sound;
    damaged[byte] ^= 1 << byte % 8;
    Write(damaged);
    const auto artifact = Load();
    ASSERT_FALSE(artifact.ok()) << field;
    EXPECT_NE(artifact.status().message().find("byte " + std::to_string(begin)), std::string::npos);
  }
  for (size_t size = begin + 1; size < sound.size(); ++size) {
    Write(Bytes(sound.begin(), sound.begin() + static_cast<std::ptrdiff_t>(size)));
    EXPECT_FALSE(Load().ok()) << size;
  }
}

TEST_F(RecordFile, BoundsWhatIsAdded) {
  const Bytes before = Contents();
  EXPECT_EQ(AppendRecord(path_, RecordKind::kAccuracy, Bytes(kMaxRecordBytes + 1)).code(),
            StatusCode::kUsage);
  EXPECT_EQ(AppendRecord(path_, RecordKind::kSignature, Bytes(96)).code(), StatusCode::kUsage);
  EXPECT_EQ(AppendRecord("/no/such/file", RecordKind::kAccuracy, kJson).code(),
            StatusCode::kFailure);
  EXPECT_EQ(Contents(), before);
}

TEST_F(RecordFile, SaysWhoSigned) {
  const PublicKey first = Sign(1), second = Sign(2);
  const auto artifact = Load({second});
  ASSERT_TRUE(artifact.ok()) << artifact.status().message();
  EXPECT_TRUE(std::ranges::equal((*artifact)->signers(), std::vector<PublicKey>{first, second}));
  // Records that come later change nothing of it.
  ASSERT_TRUE(AppendRecord(path_, RecordKind::kAccuracy, kJson).ok());
  EXPECT_TRUE(Load({first}).ok());
}

TEST_F(RecordFile, RequiresASignatureByATrustedKey) {
  PublicKey stranger;
  Signature(9, stranger);
  ExpectRefused(StatusCode::kIncompatible, "no signature", {stranger});
  Sign(1);
  EXPECT_TRUE(Load().ok());
  ExpectRefused(StatusCode::kIncompatible, "no trusted key", {stranger});
}

TEST_F(RecordFile, RefusesSignaturesOfSomethingElse) {
  const PublicKey key = Sign(1);
  const Bytes sound = Contents();
  const size_t offset = (*Load())->records()[0].offset;
  // A signature that was changed, with the hash of its record made to fit.
  Bytes damaged = sound;
  damaged[offset + sizeof(RecordHeader) + kPublicKeyBytes] ^= 1;
  const auto hashed = [&](size_t size) {
    const Digest digest = HashBytes({damaged.data() + offset + sizeof(RecordHeader), size});
    std::memcpy(damaged.data() + offset + offsetof(RecordHeader, hash), digest.data(), 32);
  };
  hashed(sizeof(SignatureRecord));
  Write(damaged);
  ExpectRefused(StatusCode::kMalformed, "not one of this artifact");
  // Half of one.
  damaged = sound;
  damaged[offset + offsetof(RecordHeader, size)] = 48;
  hashed(48);
  damaged.resize(offset + sizeof(RecordHeader) + 48);
  Write(damaged);
  ExpectRefused(StatusCode::kMalformed, "not one of this artifact");
  // A weight that was changed afterwards: nothing but a trusted load looks at weights.
  damaged = sound;
  damaged[4096] ^= 1;
  Write(damaged);
  EXPECT_TRUE(Load().ok());
  ExpectRefused(StatusCode::kMalformed, "weights", {key});
}

TEST(PublicKeys, AreParsedAndPrinted) {
  PublicKey key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i * 9);
  const std::string text = PublicKeyText(key);
  const auto keys = ParsePublicKeys("\n" + text + "\r\n" + text);
  ASSERT_TRUE(keys.ok()) << keys.status().message();
  EXPECT_EQ(*keys, (std::vector<PublicKey>{key, key}));
  for (const std::string& bad :
       {std::string(), std::string(" \n"), text.substr(1), text + "0",
        text.substr(0, text.size() - 1), text.substr(0, text.size() - 1) + "g",
        "quern-secret-key:" + text.substr(17)}) {
    EXPECT_EQ(ParsePublicKeys(bad).status().code(), StatusCode::kUsage) << bad;
  }
}

}  // namespace
}  // namespace quern

// The GGUF reader: what it reads from a sound file, and which error each kind of damage gives.
#include "compiler/import/Gguf.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "compiler/import/MappedFile.h"
#include "tests/compiler/gguf_builder.h"

namespace quern::importer {
namespace {

using namespace quern::testing;  // NOLINT: the builder's vocabulary

constexpr uint64_t kNoOffset = UINT64_MAX;

/// Two keys and two tensors: a matrix of Q4_0 and a vector of F32.
GgufBuilder SoundFile() {
  GgufBuilder builder;
  builder.Set("general.architecture", Text("llama"));
  builder.Set("a.number", U32(7));
  builder.tensors.push_back({"matrix", {64, 3}, /*Q4_0*/ 2, 3 * 36});
  builder.tensors.push_back({"vector", {5}, /*F32*/ 0, 20});
  return builder;
}

TEST(Gguf, ReadsDirectoryAndData) {
  for (uint32_t version : {2u, 3u}) {
    GgufBuilder builder = SoundFile();
    builder.version = version;
    builder.fill = 0x5a;
    Bytes bytes = builder.Build();
    ImportResult<GgufFile> file = parseGguf(bytes);
    ASSERT_TRUE(file.ok()) << file.error().str();
    EXPECT_EQ(file->version(), version);
    EXPECT_EQ(file->alignment(), 32u);
    ASSERT_EQ(file->metadata().size(), 2u);
    EXPECT_EQ(file->metadata()[0].key, "general.architecture");
    EXPECT_EQ(file->find("general.architecture")->asString(), "llama");
    EXPECT_EQ(file->find("a.number")->asUnsigned(), 7u);
    EXPECT_EQ(file->find("a.numbe"), nullptr);
    const GgufTensor* matrix = file->findTensor("matrix");
    ASSERT_NE(matrix, nullptr);
    EXPECT_EQ(matrix->format, BlockFormat::Q4_0);
    EXPECT_EQ(matrix->columns(), 64);
    EXPECT_EQ(matrix->rows(), 3);
    EXPECT_EQ(matrix->data.size(), 108u);
    EXPECT_EQ(matrix->row(2) - matrix->data.data(), 72);
    const GgufTensor* vector = file->findTensor("vector");
    ASSERT_NE(vector, nullptr);
    EXPECT_EQ(vector->data.size(), 20u);
    EXPECT_EQ(vector->data.data() + 20, bytes.data() + bytes.size());
    EXPECT_EQ(vector->data[19], 0x5a);
    EXPECT_EQ(file->findTensor("nothing"), nullptr);
  }
}

TEST(Gguf, ReadsEveryTypeOfValue) {
  GgufBuilder builder;
  builder.Set("u8", {0, {200}});
  builder.Set("i8", {1, {0xfe}});
  builder.Set("i32", I32(-5));
  builder.Set("u64", U64(UINT64_MAX));
  builder.Set("f32", F32(1.5f));
  builder.Set("bool", Bool(1));
  builder.Set("empty", Text(""));
  builder.Set("texts", Texts({"a", "", "ccc"}));
  builder.Set("ints", I32s({-1, 2}));
  builder.Set("hollow", HollowArray(8, 0));
  Bytes bytes = builder.Build();
  ImportResult<GgufFile> file = parseGguf(bytes);
  ASSERT_TRUE(file.ok()) << file.error().str();
  EXPECT_EQ(file->find("u8")->asUnsigned(), 200u);
  EXPECT_EQ(file->find("i8")->asSigned(), -2);
  EXPECT_EQ(file->find("i8")->asUnsigned(), std::nullopt) << "negative";
  EXPECT_EQ(file->find("i32")->asFloat(), -5.0);
  EXPECT_EQ(file->find("u64")->asUnsigned(), UINT64_MAX);
  EXPECT_EQ(file->find("u64")->asSigned(), std::nullopt) << "does not fit";
  EXPECT_EQ(file->find("f32")->asFloat(), 1.5);
  EXPECT_EQ(file->find("f32")->asUnsigned(), std::nullopt);
  EXPECT_EQ(file->find("bool")->asBool(), true);
  EXPECT_EQ(file->find("bool")->asUnsigned(), std::nullopt);
  EXPECT_EQ(file->find("empty")->asString(), "");
  EXPECT_EQ(file->find("texts")->asStrings(), (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_EQ(file->find("texts")->asIntegers(), std::nullopt);
  EXPECT_EQ(file->find("texts")->asString(), std::nullopt);
  EXPECT_EQ(file->find("ints")->asIntegers(), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(file->find("hollow")->asStrings()->size(), 0u);
}

TEST(Gguf, HonoursAlignment) {
  GgufBuilder builder = SoundFile();
  builder.alignment = 4096;
  builder.Set("general.alignment", U32(4096));
  Bytes bytes = builder.Build();
  ImportResult<GgufFile> file = parseGguf(bytes);
  ASSERT_TRUE(file.ok()) << file.error().str();
  EXPECT_EQ(file->findTensor("matrix")->data.data() - bytes.data(), 4096);
  EXPECT_EQ(file->findTensor("vector")->data.data() - bytes.data(), 8192);
}

//===--- Damaged files
//-------------------------------------------------------------------------===//

struct BadFile {
  const char* name;
  /// Makes the file's bytes; `offset` becomes the wanted offset.
  std::function<Bytes(GgufBuilder&, uint64_t& offset)> make;
  ImportErrorCode code;
  const char* fragment;
};

/// A file with key `name` of `value`; the error is wanted at `skip` bytes into the value.
auto WithValue(std::string name, Value value, int64_t skip = 0) {
  return [=](GgufBuilder& builder, uint64_t& offset) {
    builder.Set(name, value);
    Bytes bytes = builder.Build();
    offset = builder.value_offsets.back() + skip;
    return bytes;
  };
}

/// A file whose last key is damaged; the error is wanted where the key starts.
auto WithKey(std::string name) {
  return [=](GgufBuilder& builder, uint64_t& offset) {
    builder.keys.push_back({name, U32(1)});
    Bytes bytes = builder.Build();
    offset = builder.key_offsets.back();
    return bytes;
  };
}

/// A file with one more tensor; the error is wanted at `skip` bytes into its description.
auto WithTensor(Tensor tensor, int64_t skip) {
  return [=](GgufBuilder& builder, uint64_t& offset) {
    builder.tensors.push_back(tensor);
    Bytes bytes = builder.Build();
    offset = builder.tensor_offsets.back() + skip;
    return bytes;
  };
}

/// Only the given bytes.
auto Raw(std::string text, uint64_t wanted_offset) {
  return [=](GgufBuilder&, uint64_t& offset) {
    offset = wanted_offset;
    return Bytes(text.begin(), text.end());
  };
}

/// The sound file with a header field changed.
auto WithHeader(std::function<void(GgufBuilder&)> change, uint64_t wanted_offset) {
  return [=](GgufBuilder& builder, uint64_t& offset) {
    change(builder);
    offset = wanted_offset;
    return builder.Build();
  };
}

/// Offsets inside the description of a tensor called "t": rank, dimensions, type, data offset.
constexpr int64_t kRank = 8 + 1, kDims = kRank + 4;
constexpr int64_t TypeAt(int rank) { return kDims + 8 * rank; }
constexpr int64_t OffsetAt(int rank) { return TypeAt(rank) + 4; }

std::vector<BadFile> BadFiles() {
  constexpr auto kMalformed = ImportErrorCode::Malformed;
  constexpr auto kUnsupported = ImportErrorCode::Unsupported;
  constexpr uint64_t kHuge = uint64_t{1} << 63;
  return {
      {"empty", Raw("", 0), kMalformed, "the file is empty"},
      {"short_header", Raw(std::string("GGUF\3\0\0\0\0\0", 10), 10), kMalformed, "has 10 bytes"},
      {"two_bytes", Raw("GG", 2), kMalformed, "has 2 bytes"},
      {"bad_magic", WithHeader([](auto& b) { b.magic = "GGML"; }, 0), kMalformed,
       "the magic is \"GGML\""},
      {"binary_magic", WithHeader([](auto& b) { b.magic = "\x7f\nLF"; }, 0), kMalformed,
       "\\x7f\\x0aLF"},
      {"big_endian_magic", WithHeader([](auto& b) { b.magic = "FUGG"; }, 0), kUnsupported,
       "big-endian"},
      {"big_endian_version", WithHeader([](auto& b) { b.version = 0x03000000; }, 4), kUnsupported,
       "convert it first"},
      {"version_0", WithHeader([](auto& b) { b.version = 0; }, 4), kUnsupported, "version is 0"},
      {"version_1", WithHeader([](auto& b) { b.version = 1; }, 4), kUnsupported, "version is 1"},
      {"version_future", WithHeader([](auto& b) { b.version = 4; }, 4), kUnsupported,
       "version is 4"},
      {"tensor_count_huge", WithHeader([](auto& b) { b.claimed_tensors = kHuge; }, 8), kMalformed,
       "tensor count is 9223372036854775808"},
      {"key_count_huge", WithHeader([](auto& b) { b.claimed_keys = kHuge; }, 16), kMalformed,
       "key count is 9223372036854775808"},
      {"key_past_end",
       [](GgufBuilder& b, uint64_t& offset) {
         Bytes bytes = b.Build();
         bytes[24 + 4] = 1;  // 4 GiB more
         offset = 24;
         return bytes;
       },
       kMalformed, "key 0 is 4294967316 bytes long"},
      {"key_empty", WithKey(""), kMalformed, "has 0 bytes"},
      {"key_with_nul", WithKey(std::string("a\0b", 3)), kMalformed, "\"a\\x00b\""},
      {"key_not_utf8", WithKey("a\xff"), kMalformed, "\"a\\xff\""},
      {"key_too_long", WithKey(std::string(70000, 'k')), kMalformed, "70000 bytes"},
      {"key_twice", WithKey("a.number"), kMalformed, "\"a.number\" comes twice"},
      {"value_type_unknown", WithValue("k", {13, {1, 2, 3, 4}}, -4), kMalformed, "value type 13"},
      {"array_of_arrays", WithValue("k", HollowArray(9, 1)), kUnsupported, "array of arrays"},
      {"array_type_unknown", WithValue("k", HollowArray(77, 1)), kMalformed, "value type 77"},
      {"array_overflow", WithValue("k", HollowArray(10, (uint64_t{1} << 61) + 1)), kMalformed,
       "2305843009213693953 elements of uint64"},
      {"array_of_strings_huge", WithValue("k", HollowArray(8, kHuge)), kMalformed,
       "elements of string"},
      {"array_past_end", WithValue("k", HollowArray(0, 1000)), kMalformed, "1000 elements"},
      {"string_past_end",
       [](GgufBuilder& b, uint64_t& offset) {
         Value value{8, {}};
         Append<uint64_t>(value.bytes, UINT64_MAX - 3);
         return WithValue("k", value)(b, offset);
       },
       kMalformed, "18446744073709551612 bytes long"},
      {"second_string_past_end",
       [](GgufBuilder& b, uint64_t& offset) {
         Value value = HollowArray(8, 2);
         AppendString(value.bytes, "abc");
         Append<uint64_t>(value.bytes, 1u << 20);
         return WithValue("k", value, 4 + 8 + 8 + 3)(b, offset);
       },
       kMalformed, "a string of key \"k\" is 1048576 bytes long"},
      {"bool_7", WithValue("k", Bool(7)), kMalformed, "truth value 7"},
      {"alignment_0", WithValue("general.alignment", U32(0)), kMalformed, "alignment is 0"},
      {"alignment_48", WithValue("general.alignment", U32(48)), kMalformed, "alignment is 48"},
      {"alignment_huge", WithValue("general.alignment", U32(1u << 31)), kMalformed, "2147483648"},
      {"alignment_type", WithValue("general.alignment", U64(32)), kMalformed, "has type uint64"},
      {"rank_0", WithTensor({"t", {}, 0, 4}, kRank), kMalformed, "0 dimensions"},
      {"rank_5", WithTensor({"t", {1, 1, 1, 1, 1}, 0, 4}, kRank), kMalformed, "5 dimensions"},
      {"dim_0", WithTensor({"t", {4, 0}, 0, 0}, kDims + 8), kMalformed, "dimension 1"},
      {"dim_negative", WithTensor({"t", {uint64_t(-4)}, 0, 0}, kDims), kMalformed,
       "18446744073709551612"},
      {"dims_overflow", WithTensor({"t", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0}, kDims + 8),
       kMalformed, "product below 2^59"},
      {"bytes_past_end", WithTensor({"t", {(uint64_t{1} << 42) + 1}, 0, 4}, OffsetAt(1)),
       kMalformed, "17592186044420 bytes"},
      {"type_removed", WithTensor({"t", {32}, 4, 20}, TypeAt(1)), kUnsupported, "4 (q4_2)"},
      {"type_other", WithTensor({"t", {32}, 20, 20}, TypeAt(1)), kUnsupported, "20 (iq4_nl)"},
      {"type_unknown", WithTensor({"t", {32}, 1000, 20}, TypeAt(1)), kUnsupported,
       "1000 (unknown)"},
      {"row_not_blocks", WithTensor({"t", {48, 2}, 2, 54}, TypeAt(2)), kMalformed,
       "a multiple of 32"},
      {"row_not_superblocks", WithTensor({"t", {128, 2}, 12, 144}, TypeAt(2)), kMalformed,
       "a multiple of 256"},
      {"offset_misaligned", WithTensor({"t", {1}, 0, 4, 33}, OffsetAt(1)), kMalformed,
       "a multiple of 32"},
      {"offset_overlapping", WithTensor({"t", {1}, 0, 4, 32}, OffsetAt(1)), kMalformed,
       "overlaps that of \"matrix\""},
      {"offset_past_end", WithTensor({"t", {1}, 0, 4, 4096}, OffsetAt(1)), kMalformed,
       "at offset 4096"},
      {"offset_wrapping", WithTensor({"t", {64}, 0, 256, uint64_t(-32)}, OffsetAt(1)), kMalformed,
       "18446744073709551584"},
      {"tensor_twice", WithTensor({"vector", {5}, 0, 20}, 0), kMalformed, "\"vector\" comes twice"},
      {"tensor_name_empty", WithTensor({"", {5}, 0, 20}, 0), kMalformed, "has 0 bytes"},
      {"tensor_name_long", WithTensor({std::string(65, 'x'), {5}, 0, 20}, 0), kMalformed,
       "has 65 bytes"},
      {"tensor_name_not_utf8", WithTensor({"\xc0\xaf", {5}, 0, 20}, 0), kMalformed,
       "\"\\xc0\\xaf\""},
  };
}

class BadGgufTest : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadGgufTest, IsRefusedWithCodeOffsetAndReason) {
  const BadFile& bad = GetParam();
  GgufBuilder builder = SoundFile();
  uint64_t offset = kNoOffset;
  Bytes bytes = bad.make(builder, offset);
  ImportResult<GgufFile> file = parseGguf(bytes);
  ASSERT_FALSE(file.ok());
  const ImportError& error = file.error();
  EXPECT_EQ(error.code, bad.code) << error.str();
  EXPECT_NE(error.message.find(bad.fragment), std::string::npos) << error.str();
  ASSERT_TRUE(error.offset.has_value()) << error.str();
  EXPECT_EQ(*error.offset, offset) << error.str();
  EXPECT_EQ(error.message.find('\n'), std::string::npos) << "one line";
}

INSTANTIATE_TEST_SUITE_P(Files, BadGgufTest, ::testing::ValuesIn(BadFiles()),
                         [](const auto& param) { return std::string(param.param.name); });

TEST(Gguf, RefusesTheFileCutAtEveryByte) {
  Bytes bytes = SoundFile().Build();
  for (size_t size = 0; size < bytes.size(); ++size) {
    // A copy of its own, so that a sanitizer sees reads past the end.
    Bytes cut(bytes.begin(), bytes.begin() + size);
    ImportResult<GgufFile> file = parseGguf(cut);
    ASSERT_FALSE(file.ok()) << "cut to " << size << " bytes";
    EXPECT_EQ(file.error().code, ImportErrorCode::Malformed);
  }
  EXPECT_TRUE(parseGguf(bytes).ok());
}

/// Parses a sparse file: `builder`'s, grown with zeros to `size` bytes.
ImportResult<GgufFile> ParseSparse(GgufBuilder& builder, uint64_t size) {
  std::string path = ::testing::TempDir() + "/quern_sparse.gguf";
  Bytes bytes = builder.Build();
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::filesystem::resize_file(path, size);
  ImportResult<MappedFile> file = MappedFile::open(path);
  std::filesystem::remove(path);
  if (!file.ok()) return file.error();
  return parseGguf(file->bytes());
}

// 16 Mi empty strings, then a second key of zeros.
TEST(Gguf, ReadsALongHostileArrayQuickly) {
  GgufBuilder builder;
  builder.Set("k", HollowArray(/*string*/ 8, 1u << 24));
  builder.claimed_keys = 2;
  const double start = CpuSeconds();
  ImportResult<GgufFile> file = ParseSparse(builder, uint64_t{130} << 20);
  EXPECT_LT(CpuSeconds() - start, 1.0);
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.error().message.find("a metadata key has 0 bytes"), std::string::npos)
      << file.error().str();
}

TEST(Gguf, RefusesADirectoryAboveTheLimit) {
  GgufBuilder builder;
  builder.Set("k", HollowArray(/*uint8*/ 0, uint64_t{257} << 20));
  ImportResult<GgufFile> file = ParseSparse(builder, uint64_t{300} << 20);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, ImportErrorCode::Malformed);
}

TEST(Gguf, SurvivesRandomDamage) {
  GgufBuilder builder = SoundFile();
  builder.Set("texts", Texts({"a", "bb", "ccc"}));
  builder.Set("ints", I32s({1, 2, 3}));
  Bytes sound = builder.Build();
  std::mt19937 random(11);
  for (int round = 0; round < 20000; ++round) {
    Bytes bytes = sound;
    for (uint32_t i = 0, n = 1 + random() % 4; i < n; ++i) {
      static constexpr uint8_t kNasty[] = {0, 1, 0x7f, 0x80, 0xff};
      bytes[random() % bytes.size()] =
          random() % 2 ? kNasty[random() % 5] : static_cast<uint8_t>(random());
    }
    ImportResult<GgufFile> file = parseGguf(bytes);
    if (!file.ok()) continue;
    for (const GgufEntry& entry : file->metadata()) {
      entry.value.asStrings();
      entry.value.asIntegers();
      entry.value.asString();
    }
    for (const GgufTensor& tensor : file->tensors()) {
      ASSERT_GE(tensor.data.data(), bytes.data());
      ASSERT_LE(tensor.data.data() + tensor.data.size(), bytes.data() + bytes.size());
    }
  }
}

TEST(MappedFile, NamesWhatItCannotRead) {
  ImportResult<MappedFile> missing = MappedFile::open("no/such/file.gguf");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ImportErrorCode::Failure);
  EXPECT_NE(missing.error().message.find("no/such/file.gguf"), std::string::npos);
  ImportResult<MappedFile> folder = MappedFile::open(".");
  ASSERT_FALSE(folder.ok());
  EXPECT_NE(folder.error().message.find("not a regular file"), std::string::npos);
}

TEST(MappedFile, MapsAndMoves) {
  std::string path = ::testing::TempDir() + "/quern_mapped_file";
  std::ofstream(path) << "quern";
  ImportResult<MappedFile> opened = MappedFile::open(path);
  ASSERT_TRUE(opened.ok());
  MappedFile moved = std::move(*opened);
  EXPECT_EQ(std::string(moved.bytes().begin(), moved.bytes().end()), "quern");
  std::ofstream(path, std::ios::trunc);
  ImportResult<MappedFile> empty = MappedFile::open(path);
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(empty->bytes().empty());
  std::remove(path.c_str());
}

}  // namespace
}  // namespace quern::importer

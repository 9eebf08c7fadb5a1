// What writers and readers of an artifact share.
#include <gtest/gtest.h>

#include <cstddef>

#include "runtime/base/status.h"
#include "runtime/schema/artifact_generated.h"
#include "runtime/schema/file_header.h"
#include "runtime/schema/kernel_abi.h"
#include "runtime/schema/plain_text.h"
#include "tests/runtime/support/fake_model.h"

namespace quern {
namespace {

TEST(FileHeader, HasTheDocumentedOffsets) {
  EXPECT_EQ(sizeof(FileHeader), 64u);
  EXPECT_EQ(offsetof(FileHeader, version), 8u);
  EXPECT_EQ(offsetof(FileHeader, flags), 12u);
  EXPECT_EQ(offsetof(FileHeader, manifest_offset), 16u);
  EXPECT_EQ(offsetof(FileHeader, manifest_size), 24u);
  EXPECT_EQ(offsetof(FileHeader, manifest_hash), 32u);
}

TEST(Manifest, KeepsItsNumbersThroughThe64BitFields) {
  const testing::FakeModel model = testing::MakeFakeModel();
  flatbuffers::FlatBufferBuilder builder;
  schema::ManifestT manifest = model.manifest;
  manifest.token_bytes_per_row = uint64_t{5} << 40;
  manifest.kernels[0]->codes[0] =
      schema::KernelCode(uint64_t{7} << 41, uint64_t{9} << 42, 1, schema::Role::Prefill);
  schema::FinishManifestBuffer(builder, schema::Manifest::Pack(builder, &manifest));

  flatbuffers::Verifier verifier(builder.GetBufferPointer(), builder.GetSize());
  ASSERT_TRUE(schema::VerifyManifestBuffer(verifier));
  ASSERT_TRUE(schema::ManifestBufferHasIdentifier(builder.GetBufferPointer()));
  const schema::Manifest& read = *schema::GetManifest(builder.GetBufferPointer());
  EXPECT_EQ(read.token_bytes_per_row(), uint64_t{5} << 40);
  EXPECT_EQ(read.kernels()->Get(0)->codes()->Get(0)->offset(), uint64_t{7} << 41);
  EXPECT_EQ(read.kernels()->Get(0)->codes()->Get(0)->scratch_bytes(), uint64_t{9} << 42);
  EXPECT_EQ(read.kernels()->Get(0)->codes()->Get(0)->target(), 1u);
}

TEST(Status, MessageIsOneLine) {
  EXPECT_EQ(Malformed("seen `a\r\nb\u0085\x7f`, wanted a name").message(),
            "seen `a  b  `, wanted a name");
}

TEST(PlainText, HasNoControlCharacters) {
  EXPECT_TRUE(IsPlainText("Caf\u00e9 \u4e2d 1.5B \xff"));
  for (const std::string_view text : {"a\n", "\x1b[2J", "\x7f", "\u0085", "\u009b"}) {
    EXPECT_FALSE(IsPlainText(text));
    EXPECT_TRUE(IsPlainText(PlainText(text)));
  }
  EXPECT_EQ(PlainText("a\tb\u009bc\u00e9"), "a b c\u00e9");
  EXPECT_EQ(PlainText("\xc2"), "\xc2");
  const std::string lengthy(kMaxPlainTextBytes + 1, 'x');
  EXPECT_FALSE(IsPlainText(lengthy));
  EXPECT_TRUE(IsPlainText(PlainText(lengthy)));
}

}  // namespace
}  // namespace quern

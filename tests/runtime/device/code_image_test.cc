#include "runtime/device/host/code_image.h"

#include <gtest/gtest.h>

#include <vector>

#include "runtime/device/host/host_memory.h"

namespace quern {
namespace {

TEST(CodeImage, EntersKernelsAtTheirOffsets) {
  std::vector<uint8_t> code(128, 0xc3);
  // mov rax, [rdi]; mov dword [rax], 7; ret
  const uint8_t store[] = {0x48, 0x8b, 0x07, 0xc7, 0x00, 0x07, 0x00, 0x00, 0x00, 0xc3};
  std::copy(std::begin(store), std::end(store), code.begin() + 64);
  Result<CodeImage> image = CodeImage::Create(code);
  ASSERT_TRUE(image.ok()) << image.status().message();
  code.assign(code.size(), 0xcc);  // the image is a copy: this breaks nothing

  int32_t value = 1;
  void* const args[] = {&value};
  image->Entry(0)(args, nullptr, nullptr);
  EXPECT_EQ(value, 1);
  image->Entry(64)(args, nullptr, nullptr);
  EXPECT_EQ(value, 7);
}

TEST(CodeImage, MovesWithItsMemory) {
  const uint8_t code[] = {0xc3};
  Result<CodeImage> image = CodeImage::Create(code);
  ASSERT_TRUE(image.ok());
  const KernelEntry entry = image->Entry(0);
  CodeImage moved = std::move(*image);
  EXPECT_EQ(moved.Entry(0), entry);
  EXPECT_EQ(moved.size(), 1u);
  moved.Entry(0)(nullptr, nullptr, nullptr);
}

TEST(HostMemory, IsZeroedAndRefusesWhatCannotBe) {
  Result<HostMemory> memory = HostMemory::Allocate(5000, "a test");
  ASSERT_TRUE(memory.ok());
  for (uint64_t i = 0; i < memory->size(); ++i) ASSERT_EQ(memory->data()[i], std::byte{0});

  const Result<HostMemory> huge = HostMemory::Allocate(uint64_t{1} << 62, "a test");
  ASSERT_FALSE(huge.ok());
  EXPECT_EQ(huge.status().code(), StatusCode::kOutOfMemory);
  EXPECT_NE(huge.status().message().find("4611686018427387904 bytes for a test"),
            std::string::npos);
}

}  // namespace
}  // namespace quern

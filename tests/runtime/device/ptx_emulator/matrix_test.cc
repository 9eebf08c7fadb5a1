// Tensor-core instructions against plain matrix products. Fragment layouts are written here as the
// PTX ISA's figures give them, not as the emulator computes them.
#include <functional>

#include "tests/runtime/device/ptx_emulator/matrices.h"
#include "tests/runtime/device/ptx_emulator/run_kernel.h"

namespace quern::ptx {
namespace {

struct Mma {
  std::string shape, d, a, b;
  uint32_t depth;
};

TEST(MmaSync, MultipliesFragments) {
  const Mma kMmas[] = {
      {"m16n8k16", "f32", "f16", "f16", 16},   {"m16n8k8", "f32", "f16", "f16", 8},
      {"m16n8k16", "f16", "f16", "f16", 16},   {"m16n8k16", "f32", "bf16", "bf16", 16},
      {"m16n8k8", "f32", "bf16", "bf16", 8},   {"m16n8k8", "f32", "tf32", "tf32", 8},
      {"m16n8k4", "f32", "tf32", "tf32", 4},   {"m16n8k32", "f32", "e4m3", "e4m3", 32},
      {"m16n8k32", "f32", "e5m2", "e4m3", 32}, {"m16n8k32", "f16", "e4m3", "e4m3", 32},
      {"m16n8k32", "s32", "s8", "s8", 32},     {"m16n8k16", "s32", "s8", "s8", 16},
      {"m16n8k32", "s32", "u8", "s8", 32}};
  for (const Mma& mma : kMmas) {
    const uint32_t bits = Bits(mma.a), per = 32 / bits, depth = mma.depth;
    const Matrix a(16, depth, 1, mma.a == "u8" ? 0 : -4), b(depth, 8, 2), c(16, 8, 3, -100, 100);
    const uint32_t a_registers = 16 * depth / (32 * per), b_registers = 8 * depth / (32 * per);
    const bool half = mma.d == "f16";
    const uint32_t c_registers = half ? 2 : 4;
    std::vector<uint32_t> in(32 * 16, 0);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const uint32_t group = lane >> 2, thread = lane & 3;
      uint32_t* words = &in[lane * 16];
      for (uint32_t i = 0; i < a_registers * per; ++i) {  // a_i: rows alternate between registers.
        const uint32_t reg = i / per, row = reg % 2 == 0 ? group : group + 8;
        const uint32_t column = thread * per + i % per + (reg >= 2 ? 4 * per : 0);
        words[reg] |= Encode(mma.a, a(row, column)) << (bits * (i % per));
      }
      for (uint32_t i = 0; i < b_registers * per; ++i) {
        const uint32_t row = thread * per + i % per + (i / per) * 4 * per;
        words[4 + i / per] |= Encode(mma.b, b(row, group)) << (bits * (i % per));
      }
      for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t row = i < 2 ? group : group + 8, column = thread * 2 + (i & 1);
        words[8 + (half ? i / 2 : i)] |= Encode(mma.d, c(row, column)) << (half ? 16 * (i & 1) : 0);
      }
    }
    const std::string body =
        "mul.wide.u32 %l1, %r0, 64;\nadd.u64 %l1, %in, %l1;\nld.global.v4.b32 "
        "{%r10,%r11,%r12,%r13}, [%l1];\n"
        "ld.global.v4.b32 {%r14,%r15,%r16,%r17}, [%l1+16];\nld.global.v4.b32 "
        "{%r18,%r19,%r20,%r21}, [%l1+32];\n"
        "mma.sync.aligned." +
        mma.shape + ".row.col." + mma.d + "." + mma.a + "." + mma.b + "." + mma.d + " " +
        List("%r", 30, c_registers) + ", " + List("%r", 10, a_registers) + ", " +
        List("%r", 14, b_registers) + ", " + List("%r", 18, c_registers) +
        ";\nmul.wide.u32 %l2, %r0, 16;\nadd.u64 %l2, %out, %l2;\nst.global.v4.b32 [%l2], "
        "{%r30,%r31,%r32,%r33};";
    const Outcome outcome = RunBody(body, in, 128);
    ASSERT_TRUE(outcome.status.ok()) << mma.shape << mma.a << outcome.message();
    for (uint32_t lane = 0; lane < 32; ++lane)
      for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t row = (lane >> 2) + (i < 2 ? 0 : 8), column = (lane & 3) * 2 + (i & 1);
        int want = c(row, column);
        for (uint32_t k = 0; k < depth; ++k) want += a(row, k) * b(k, column);
        const uint32_t word = outcome.out[lane * 4 + (half ? i / 2 : i)];
        const uint32_t got = half ? (word >> (16 * (i & 1))) & 0xffff : word;
        EXPECT_EQ(got, Encode(mma.d, want))
            << mma.shape << " " << mma.a << " lane " << lane << " element " << i;
      }
  }
}

/// Sums of fp8 products of any size, for which no order is right: within what float32 sums of 33
/// numbers may be off the exact one.
TEST(MmaSync, SumsOfFp8StayWithinABound) {
  constexpr uint32_t kDepth = 32;
  std::mt19937 random(11);
  uint8_t a[16][kDepth], b[kDepth][8];
  const auto any = [&] {  // Not NaN.
    const uint32_t code = random() & 255;
    return static_cast<uint8_t>((code & 127) == 127 ? code - 1 : code);
  };
  for (auto& row : a)
    for (uint8_t& x : row) x = any();
  for (auto& row : b)
    for (uint8_t& x : row) x = any();
  std::vector<uint32_t> in(32 * 8, 0);
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t g = lane / 4, k = lane % 4 * 4 + i;
      uint32_t* words = &in[lane * 8];
      for (uint32_t reg = 0; reg < 4; ++reg)
        words[reg] |= uint32_t{a[g + reg % 2 * 8][k + reg / 2 * 16]} << 8 * i;
      for (uint32_t reg = 0; reg < 2; ++reg)
        words[4 + reg] |= uint32_t{b[k + reg * 16][g]} << 8 * i;
    }
  const Outcome outcome = RunBody(
      "mul.wide.u32 %l1, %r0, 32;\nadd.u64 %l1, %in, %l1;\n"
      "ld.global.v4.b32 {%r10,%r11,%r12,%r13}, [%l1];\nld.global.v2.b32 {%r14,%r15}, [%l1+16];\n"
      "mov.b32 %r30, 0;\nmma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
      "{%r30,%r31,%r32,%r33}, {%r10,%r11,%r12,%r13}, {%r14,%r15}, {%r30,%r30,%r30,%r30};\n"
      "mul.wide.u32 %l2, %r0, 16;\nadd.u64 %l2, %out, %l2;\n"
      "st.global.v4.b32 [%l2], {%r30,%r31,%r32,%r33};",
      in, 128);
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      double exact = 0, magnitude = 0;
      for (uint32_t k = 0; k < kDepth; ++k) {
        const double product =
            DecodeFormat(a[row][k], kFormatE4m3) * DecodeFormat(b[k][column], kFormatE4m3);
        exact += product, magnitude += std::fabs(product);
      }
      EXPECT_NEAR(FloatOf(outcome.out[lane * 4 + i]), exact, magnitude * kDepth * 0x1p-24)
          << "row " << row << " column " << column;
    }
}

TEST(MmaSync, Fp8NeedsAMachineThatHasIt) {
  const std::string kernel = SimpleKernel(
      "k",
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%f0,%f1,%f2,%f3}, {%r1,%r2,%r3,%r4}, "
      "{%r5,%r6}, {%f0,%f1,%f2,%f3};");
  const auto on = [&](const std::string& target) {
    const auto module = ParseModule(Header(target) + kernel);
    return module.ok() ? std::string() : module.status().message();
  };
  for (const char* target : {"sm_89", "sm_90a", "sm_100a", "sm_120a"}) EXPECT_EQ(on(target), "");
  EXPECT_NE(on("sm_80").find("needs sm_89 or later, and the module is for sm_80"),
            std::string::npos)
      << on("sm_80");
}

TEST(MmaSync, NeedsTheWholeWarp) {
  const Outcome outcome = RunBody(
      "setp.lt.u32 %p1, %r0, 31;\n@%p1 mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%r1,%r2,%r3,%r4}, {%r5,%r6}, {%r7}, {%r1,%r2,%r3,%r4};",
      {}, 1);
  EXPECT_NE(outcome.message().find("needs all 32 lanes, but only 31 are here"), std::string::npos)
      << outcome.message();
}

TEST(Ldmatrix, DistributesRows) {
  // buf holds 32 rows of 8 elements; element (r, c) is 8 r + c.
  const std::string fill =
      "mul.lo.u32 %r1, %r0, 16;\nmov.u32 %r2, buf;\nadd.u32 %r1, %r1, %r2;\nshl.b32 %r3, %r0, 3;\n"
      "shl.b32 %r4, %r3, 16;\nor.b32 %r4, %r4, %r3;\nadd.u32 %r4, %r4, 0x00010000;\nadd.u32 %r5, "
      "%r4, 0x00020002;\nadd.u32 %r6, %r5, 0x00020002;\n"
      "add.u32 %r7, %r6, 0x00020002;\nst.shared.v4.b32 [%r1], {%r4,%r5,%r6,%r7};\nbar.sync 0;\n";
  const std::string store =
      "mul.wide.u32 %l1, %r0, 16;\nadd.u64 %l1, %out, %l1;\nst.global.v4.b32 [%l1], "
      "{%r10,%r11,%r12,%r13};";
  for (const bool transposed : {false, true}) {
    const std::string trans = transposed ? ".trans" : "";
    const std::string load =
        "ldmatrix.sync.aligned.m8n8.x4" + trans + ".shared.b16 {%r10,%r11,%r12,%r13}, [%r1];\n";
    const auto check = [&](const std::vector<uint32_t>& out) {
      for (uint32_t lane = 0; lane < 32; ++lane)
        for (uint32_t i = 0; i < 4; ++i) {
          const uint32_t row = lane / 4, column = lane % 4 * 2;
          const uint32_t low = transposed ? (8 * i + column) * 8 + row : (8 * i + row) * 8 + column;
          EXPECT_EQ(out[lane * 4 + i], low | (low + (transposed ? 8 : 1)) << 16);
        }
    };
    const Outcome loaded = RunBody(fill + load + store, {}, 128, {.block = {32, 1, 1}},
                                   ".shared .align 16 .b8 buf[512];\n");
    ASSERT_TRUE(loaded.status.ok()) << loaded.message();
    check(loaded.out);
    // Stored the same way and loaded again, nothing changes.
    const std::string again = fill + load + "bar.sync 0;\nstmatrix.sync.aligned.m8n8.x4" + trans +
                              ".shared.b16 [%r1], {%r10,%r11,%r12,%r13};\nbar.sync 0;\n" + load +
                              store;
    check(RunBody(again, {}, 128, {.block = {32, 1, 1}}, ".shared .align 16 .b8 buf[512];\n").out);
  }
}

TEST(Movmatrix, Transposes) {
  const Outcome outcome = RunBody(
      "shl.b32 %r1, %r0, 1;\nadd.u32 %r2, %r1, 1;\nshl.b32 %r2, %r2, 16;\nor.b32 %r1, %r1, "
      "%r2;\nmovmatrix.sync.aligned.m8n8.trans.b16 %r3, %r1;\n"
      "mul.wide.u32 %l1, %r0, 4;\nadd.u64 %l1, %out, %l1;\nst.global.b32 [%l1], %r3;",
      {}, 32);
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t row = lane / 4, column = lane % 4 * 2;  // Element (r, c) was 8 r + c.
    EXPECT_EQ(outcome.out[lane], (column * 8 + row) | ((column + 1) * 8 + row) << 16);
  }
}

// ---- wgmma

struct Wgmma {
  std::string type;
  int swizzle;       ///< Bytes: 16 (none), 32, 64, 128.
  bool a_registers;  ///< RS
  bool a_mn, b_mn;   ///< MN-major.
  std::string d = "f32";
};

TEST(WgmmaTest, PlacementIsTheSwizzleOfTheAddress) {
  EXPECT_EQ(Place(1, 0, 2, 128, false, 64), 128u + 16);
  EXPECT_EQ(Place(2, 0, 2, 64, false, 64), 128u + 16);
  EXPECT_EQ(Place(4, 0, 2, 32, false, 64), 128u + 16);
  EXPECT_EQ(Place(3, 8, 2, 16, false, 64), 8 * 128u + 48);
}

uint64_t DescriptorOf(uint32_t address, const Wgmma& w, bool mn_major, uint32_t mn_extent,
                      uint32_t bytes) {
  const uint64_t mode = w.swizzle == 128 ? 1 : w.swizzle == 64 ? 2 : w.swizzle == 32 ? 3 : 0;
  return DescriptorOffsets(address, w.swizzle, mn_major, mn_extent, bytes) | mode << 62;
}

void RunWgmma(const Wgmma& w) {
  constexpr uint32_t kColumns = 64, kBase = 1024, kB = 16384;
  const uint32_t bits = Bits(w.type), bytes = bits / 8, depth = 32 / bytes, per = 32 / bits;
  const Matrix a(64, depth, 5), b(kColumns, depth, 6), c(64, kColumns, 7, -50, 50);
  std::vector<uint8_t> shared(2 * kB, 0xEE);
  const auto put = [&](uint32_t at, uint32_t value) { std::memcpy(&shared[at], &value, bytes); };
  for (uint32_t r = 0; r < 64; ++r)
    for (uint32_t k = 0; k < depth; ++k)
      put(Place(r, k, bytes, w.swizzle, w.a_mn, 64), Encode(w.type, a(r, k)));
  for (uint32_t n = 0; n < kColumns; ++n)
    for (uint32_t k = 0; k < depth; ++k)
      put(kB + Place(n, k, bytes, w.swizzle, w.b_mn, kColumns), Encode(w.type, b(n, k)));
  std::vector<uint32_t> in(shared.size() / 4);
  std::memcpy(in.data(), shared.data(), shared.size());
  for (uint32_t thread = 0; thread < 128; ++thread) {  // Fragments of A, as those of mma.sync.
    const uint32_t lane = thread % 32, warp = thread / 32;
    for (uint32_t reg = 0; reg < 4; ++reg) {
      uint32_t word = 0;
      for (uint32_t i = 0; i < per; ++i)
        word |= Encode(w.type, a(16 * warp + lane / 4 + 8 * (reg % 2),
                                 lane % 4 * per + i + reg / 2 * 4 * per))
                << (bits * i);
      in.push_back(word);
    }
  }
  const bool half = w.d == "f16";
  const uint32_t accumulators = kColumns / (half ? 4 : 2);
  std::string body =
      "mov.u32 %r1, dyn;\nshl.b32 %r2, %r0, 4;\nadd.u32 %r1, %r1, %r2;\ncvt.u64.u32 %l1, "
      "%r2;\nadd.u64 %l1, %in, %l1;\nmov.b32 %r3, 0;\n"
      "COPY: ld.global.v4.b32 {%r4,%r5,%r6,%r7}, [%l1];\nst.shared.v4.b32 [%r1], "
      "{%r4,%r5,%r6,%r7};\nadd.u32 %r1, %r1, 2048;\nadd.u64 %l1, %l1, 2048;\n"
      "add.u32 %r3, %r3, 1;\nsetp.lt.u32 %p1, %r3, " +
      std::to_string(shared.size() / 2048) +
      ";\n@%p1 bra COPY;\nld.global.v4.b32 {%r4,%r5,%r6,%r7}, [%l1];\nfence.proxy.async;\nbar.sync "
      "0;\n";
  body += ".reg .b32 %a<" + std::to_string(accumulators) + ">;\n";
  for (uint32_t i = 0; i < accumulators; ++i) body += "mov.b32 %a" + std::to_string(i) + ", 0;\n";
  const std::string shape = "m64n64k" + std::to_string(depth);
  const auto multiply = [&](const char* accumulate) {
    const std::string operand_a = w.a_registers
                                      ? "{%r4,%r5,%r6,%r7}"
                                      : std::to_string(DescriptorOf(kBase, w, w.a_mn, 64, bytes));
    std::string text = "wgmma.mma_async.sync.aligned." + shape + "." + w.d + "." + w.type + "." +
                       w.type + " " + List("%a", 0, accumulators) + ", " + operand_a + ", %l5, " +
                       accumulate + ", 1, 1";
    if (bytes == 2)
      text += std::string(w.a_registers ? "" : w.a_mn ? ", 1" : ", 0") + (w.b_mn ? ", 1" : ", 0");
    return text + ";\n";
  };
  body +=
      "mov.b64 %l5, " + std::to_string(DescriptorOf(kBase + kB, w, w.b_mn, kColumns, bytes)) +
      ";\nsetp.eq.u32 %p2, %r0, 9999;\nsetp.ne.u32 %p3, %r0, 9999;\nwgmma.fence.sync.aligned;\n";
  body += multiply("%p2") + multiply("%p3") +
          "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n";
  body += "mul.wide.u32 %l6, %r0, 128;\nadd.u64 %l6, %out, %l6;\n";
  for (uint32_t i = 0; i < accumulators; ++i)
    body += "st.global.b32 [%l6+" + std::to_string(4 * i) + "], %a" + std::to_string(i) + ";\n";
  const std::string text =
      Header() + ".extern .shared .align 1024 .b8 dyn[];\n" + SimpleKernel("k", body);
  const Outcome outcome = RunText(
      text, in, 128 * 32, {.block = {128, 1, 1}, .shared_bytes = 2 * kB, .check_races = true});
  const std::string name = w.type + " swizzle " + std::to_string(w.swizzle) +
                           (w.a_registers ? " RS" : " SS") + (w.a_mn ? " A-MN" : "") +
                           (w.b_mn ? " B-MN" : "");
  ASSERT_TRUE(outcome.status.ok()) << name << ": " << outcome.message();
  EXPECT_TRUE(outcome.report.clean())
      << name << (outcome.report.lints.empty() ? "" : outcome.report.lints[0].message);
  for (uint32_t thread = 0; thread < 128; ++thread)
    for (uint32_t i = 0; i < kColumns / 2; ++i) {
      const uint32_t row = thread / 32 * 16 + thread % 32 / 4 + (i / 2 % 2) * 8,
                     column = i / 4 * 8 + thread % 4 * 2 + i % 2;
      int want = 0;
      for (uint32_t k = 0; k < depth; ++k)
        want += 2 * a(row, k) * b(column, k);  // Twice, the second time added.
      const uint32_t word = outcome.out[thread * 32 + (half ? i / 2 : i)];
      ASSERT_EQ(half ? (word >> (16 * (i % 2))) & 0xffff : word, Encode(w.d, want))
          << name << " row " << row << " column " << column;
    }
}

TEST(WgmmaTest, MultipliesFromSharedMemoryAndRegisters) {
  for (const int swizzle : {16, 32, 64, 128}) {
    for (const bool registers : {false, true})
      for (const bool mn : {false, true}) {
        RunWgmma({"f16", swizzle, registers, false, mn});
        RunWgmma({"bf16", swizzle, registers, false, mn});
      }
    RunWgmma({"f16", swizzle, false, true, false});
    RunWgmma({"e4m3", swizzle, false, false, false});
    RunWgmma({"e4m3", swizzle, true, false, false});
    RunWgmma({"tf32", swizzle, false, false, false});
    RunWgmma({"f16", swizzle, false, false, false, "f16"});
  }
}

TEST(WgmmaTest, NeedsItsMachineAndFp8IsKMajor) {
  const auto message = [](const std::string& target, const std::string& end) {
    const auto module = ParseModule(
        Header(target) +
        SimpleKernel("k",
                     "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%f0,%f1,%f2,%f3}, "
                     "{%r1,%r2,%r3,%r4}, %l1, %p1, 1, 1" +
                         end + ";"));
    return module.ok() ? std::string() : module.status().message();
  };
  EXPECT_EQ(message("sm_90a", ""), "");
  for (const char* target : {"sm_89", "sm_90", "sm_100a", "sm_120a"})
    EXPECT_NE(message(target, "").find("needs sm_90a, and the module is for"), std::string::npos)
        << target;
  EXPECT_NE(message("sm_90a", ", 1").find("wrong number of transpose operands"), std::string::npos);
}

}  // namespace
}  // namespace quern::ptx

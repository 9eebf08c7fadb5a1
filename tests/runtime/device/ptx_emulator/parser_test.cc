// What is refused, and with which words.
#include "runtime/device/ptx_emulator/tensor_map.h"
#include "tests/runtime/device/ptx_emulator/run_kernel.h"

namespace quern::ptx {
namespace {

struct Bad {
  const char* body;
  StatusCode code;
  const char* words;
};

TEST(Parser, RefusesWithTheLine) {
  // The body begins at line 17.
  const Bad kBad[] = {
      {"frobnicate.b32 %r1, %r2;", StatusCode::kUnsupported,
       "PTX line 17: `frobnicate.b32`: the emulator has no instruction `frobnicate`"},
      {"\n\nadd.rz.f32 %f1, %f2, %f3;", StatusCode::kUnsupported,
       "PTX line 19: `add.rz.f32`: the emulator has no `.rz` there"},
      {"add.frob.s32 %r1, %r2, %r3;", StatusCode::kUnsupported, "no `.frob` there"},
      {"add %r1, %r2, %r3;", StatusCode::kUnsupported, "without a further modifier"},
      {"add.s32 %r1, %r2;", StatusCode::kMalformed, "too few operands"},
      {"add.s32 %r1, %r2, %r3, %r4;", StatusCode::kMalformed, "too many operands"},
      {"add.s32 %r1, %r2, %nothing;", StatusCode::kMalformed, "`%nothing` is not declared"},
      {"add.s32 %r1, %r2, %l1;", StatusCode::kMalformed, "`%l1` has 64 bits, 32 are wanted"},
      {"add.s32 5, %r2, %r3;", StatusCode::kMalformed, "a constant as the destination"},
      {"@%r1 add.s32 %r1, %r2, %r3;", StatusCode::kMalformed,
       "the guard `%r1` is no predicate register"},
      {"bra NOWHERE;", StatusCode::kMalformed, "no label `NOWHERE`"},
      {"A:\nA:\nret;", StatusCode::kMalformed, "label `A` is defined twice"},
      {"mov.b32 %r1, {%h1, %h2, %h3};", StatusCode::kUnsupported, "a vector of wrong length"},
      {"ld.global.v4.b32 {%r1, %r2}, [%in];", StatusCode::kUnsupported,
       "the vector has 2 elements"},
      {"ld.global.b64 %r1, [%in];", StatusCode::kUnsupported, "a register is too narrow"},
      {"cvt.s32.f32 %r1, %f1;", StatusCode::kUnsupported, "needs .rni"},
      {"cp.async.ca.shared.global [%r1], [%in], 7;", StatusCode::kUnsupported, "a copy of 7 bytes"},
      {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r1,%r2,%r3,%r4}, {%r1,%r2}, {%r5,%r6}, "
       "{%r1,%r2,%r3,%r4};",
       StatusCode::kUnsupported, "a vector of 2 registers; 4 are wanted"},
      {"wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%r1,%r2,%r3,%r4}, %l1, %l2, %p1, 2, 1, "
       "0, 0;",
       StatusCode::kUnsupported, "imm-scale must be 1 or -1"},
      {"call foo;", StatusCode::kUnsupported, "no instruction `call`"},
      {"add.s32 %r1, %r2, ~;", StatusCode::kMalformed, "unexpected character `~`"},
      {".reg .b128 %q;", StatusCode::kUnsupported, "register type"},
      {"add.s32 %r1, {{{{{%r1}}}}}, %r2;", StatusCode::kMalformed, "nested too deeply"},
      {".shared .b8 big[300000000];", StatusCode::kMalformed, "more than 256 MiB"},
  };
  for (const Bad& bad : kBad) {
    const auto module = ParseModule(Header() + SimpleKernel("k", bad.body));
    ASSERT_FALSE(module.ok()) << bad.body;
    EXPECT_EQ(module.status().code(), bad.code) << bad.body << "\n" << module.status().message();
    EXPECT_NE(module.status().message().find(bad.words), std::string::npos)
        << bad.body << "\n"
        << module.status().message();
  }
}

TEST(Parser, SurvivesEveryPrefix) {
  const std::string text =
      Header() + ".extern .shared .align 16 .b8 s[];\n.global .align 4 .b32 g[2] = {1, -2};\n" +
      SimpleKernel("k",
                   "{ .reg .pred q; setp.eq.u32 q|%p1, %r0, 0; @q bra L;\nL: }\n/* c */ "
                   "st.shared.v2.b32 [s+8], {%r0, 7}; // d\n");
  ASSERT_TRUE(ParseModule(text).ok()) << ParseModule(text).status().message();
  for (size_t n = 0; n < text.size(); ++n) {
    (void)ParseModule(std::string_view(text).substr(0, n));
    std::string changed = text;
    changed[n] = static_cast<char>(changed[n] ^ 0x15);
    (void)ParseModule(changed);
  }
}

TEST(Parser, DescribesKernels) {
  const auto module = ParseModule(Header("sm_80") +
                                  ".visible .entry a(.param .u32 n, .param .u64 .ptr .global "
                                  ".align 16 p, .param .align 64 .b8 map[128], .param .f32 x)\n"
                                  ".maxntid 128, 1, 1\n.minnctapersm 2\n{ .shared .align 16 .b8 "
                                  "s[100]; .local .align 8 .b8 l[20]; ret; }\n"
                                  ".visible .entry b() .reqntid 32 { ret; }\n");
  ASSERT_TRUE(module.ok()) << module.status().message();
  EXPECT_EQ(module->target(), "sm_80");
  EXPECT_EQ(module->version()[0], 8);
  const KernelInfo& a = *module->FindKernel("a");
  EXPECT_EQ(a.parameters[1].offset, 8u);
  EXPECT_EQ(a.parameters[2].offset, 64u);
  EXPECT_EQ(a.parameters[2].bytes, 128u);
  EXPECT_EQ(a.parameters[3].offset, 192u);
  EXPECT_EQ(a.parameter_bytes, 196u);
  EXPECT_EQ(a.static_shared_bytes, 100u);
  EXPECT_EQ(a.local_bytes, 32u);
  EXPECT_EQ(a.max_threads[0], 128u);
  EXPECT_EQ(module->FindKernel("b")->required_threads[0], 32u);
  EXPECT_EQ(module->FindKernel("c"), nullptr);
}

TEST(Parser, InnerScopesHideNames) {
  // Inline assembly declares the same names again and again.
  const std::string block =
      "{ .reg .b32 x; mov.b32 x, 5; add.s32 %r1, %r1, x; bra DONE; mov.b32 %r1, 99; DONE: }\n";
  const Outcome outcome =
      RunBody("mov.b32 %r1, 0;\n" + block + block + "st.global.b32 [%out], %r1;", {}, 1);
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  EXPECT_EQ(outcome.out[0], 10u);
}

TEST(Launch, RefusesWhatHasNoMeaning) {
  const auto module = ParseModule(Header() + SimpleKernel("k", "") +
                                  ".visible .entry small() .maxntid 64 { ret; }\n");
  ASSERT_TRUE(module.ok());
  Memory memory;
  const auto try_launch = [&](const char* name, size_t bytes, LaunchOptions options) {
    const std::vector<uint8_t> parameters(bytes, 0);
    const auto report = Launch(*module, name, parameters, memory, options);
    EXPECT_FALSE(report.ok());
    EXPECT_EQ(report.status().code(), StatusCode::kUsage);
    return report.status().message();
  };
  EXPECT_NE(try_launch("none", 16, {}).find("the module has: k, small"), std::string::npos);
  EXPECT_NE(try_launch("k", 15, {}).find("15 bytes of parameters given, 16 wanted"),
            std::string::npos);
  EXPECT_NE(try_launch("k", 16, {.block = {1025, 1, 1}}).find("blocks of 1025,1,1"),
            std::string::npos);
  EXPECT_NE(try_launch("k", 16, {.block = {64, 32, 1}}).find("2048 threads"), std::string::npos);
  EXPECT_NE(try_launch("k", 16, {.grid = {0, 1, 1}}).find("grid"), std::string::npos);
  EXPECT_NE(try_launch("k", 16, {.grid = {3, 1, 1}, .cluster = {2, 1, 1}}).find("do not divide"),
            std::string::npos);
  EXPECT_NE(try_launch("k", 16, {.shared_bytes = 300000})
                .find("300000 bytes of shared memory; 232448 are possible"),
            std::string::npos);
  EXPECT_NE(try_launch("small", 0, {.block = {65, 1, 1}}).find("compiled for 64"),
            std::string::npos);
}

TEST(MemoryTest, ChecksRanges) {
  Memory memory(1 << 20);
  EXPECT_EQ(memory.Allocate(0).status().code(), StatusCode::kUsage);
  EXPECT_EQ(memory.Allocate(2 << 20).status().code(), StatusCode::kOutOfMemory);
  const uint64_t a = *memory.Allocate(100), b = *memory.Allocate(100);
  EXPECT_EQ(a % 512, 0u);
  uint8_t bytes[200] = {};
  EXPECT_TRUE(memory.CopyToDevice(a + 50, bytes, 50).ok());
  EXPECT_EQ(memory.CopyToDevice(a + 50, bytes, 51).code(), StatusCode::kUsage);
  EXPECT_EQ(memory.CopyToHost(bytes, a - 1, 1).code(), StatusCode::kUsage);
  EXPECT_TRUE(memory.Copy(b, a, 100).ok());
  EXPECT_TRUE(memory.Fill(b, 0x01020304, 4, 25).ok());
  EXPECT_EQ(Download<uint8_t>(memory, b, 100)[99], 1);
  EXPECT_EQ(memory.Fill(b, 0, 4, 26).code(), StatusCode::kUsage);
  EXPECT_EQ(memory.Fill(b, 0, 3, 1).code(), StatusCode::kUsage);
  EXPECT_EQ(memory.used(), 200u);
  EXPECT_TRUE(memory.Free(a).ok());
  EXPECT_EQ(memory.Free(a).code(), StatusCode::kUsage);
  EXPECT_NE(memory.Describe(a + 4).find("inside a freed buffer of 100 bytes"), std::string::npos);
}

TEST(TensorMapTest, RefusesWhatTheDriverRefuses) {
  TensorMap map;
  map.address = 1 << 20;
  map.dims = {64, 8};
  map.strides = {0, 128};
  map.box = {64, 8};
  map.swizzle = TensorSwizzle::k128;
  ASSERT_TRUE(EncodeTensorMap(map).ok());
  const auto bytes = *EncodeTensorMap(map);
  EXPECT_EQ(DecodeTensorMap(bytes.data())->dims[0], 64u);
  const auto refused = [&](auto change) {
    TensorMap bad = map;
    change(bad);
    return !EncodeTensorMap(bad).ok();
  };
  EXPECT_TRUE(refused([](TensorMap& m) { m.address += 8; }));
  EXPECT_TRUE(refused([](TensorMap& m) { m.rank = 6; }));
  EXPECT_TRUE(refused([](TensorMap& m) { m.strides[1] = 120; }));
  EXPECT_TRUE(refused([](TensorMap& m) { m.box[0] = 257; }));
  EXPECT_TRUE(refused([](TensorMap& m) { m.box[0] = 128; }));  // 256 bytes, the swizzle spans 128.
  EXPECT_TRUE(refused([](TensorMap& m) { m.box[0] = 4; }));    // 8 bytes.
  EXPECT_TRUE(refused([](TensorMap& m) { m.dims[1] = 0; }));
  auto broken = bytes;
  broken[0] ^= 1;
  EXPECT_EQ(DecodeTensorMap(broken.data()).status().code(), StatusCode::kMalformed);
}

}  // namespace
}  // namespace quern::ptx

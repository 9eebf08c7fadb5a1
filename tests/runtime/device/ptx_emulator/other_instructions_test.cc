// Instructions that are neither arithmetic nor matrix products: hints, fences, barriers of all
// spellings, policies; and copies whose operands do harm.
#include <numeric>

#include "runtime/device/ptx_emulator/tensor_map.h"
#include "tests/runtime/device/ptx_emulator/run_kernel.h"

namespace quern::ptx {
namespace {

constexpr const char* kBuffer = ".shared .align 128 .b8 buf[1024];\n";

/// Body of a kernel with `buf` in shared memory, one warp unless the options say otherwise.
Outcome RunShared(const std::string& body, size_t words,
                  LaunchOptions options = {.block = {32, 1, 1}}, std::vector<uint32_t> in = {}) {
  options.check_races = true;
  return RunBody(body, in, words, options, kBuffer);
}

void ExpectWords(const Outcome& outcome, const std::vector<uint32_t>& want) {
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  EXPECT_EQ(outcome.out, want);
  for (const Finding& finding : outcome.report.races) ADD_FAILURE() << finding.message;
  for (const Finding& finding : outcome.report.lints) ADD_FAILURE() << finding.message;
}

void ExpectFault(const Outcome& outcome, const char* words) {
  EXPECT_EQ(outcome.status.code(), StatusCode::kFailure);
  EXPECT_NE(outcome.message().find(words), std::string::npos) << outcome.message();
}

TEST(OtherInstructions, HintsAndFencesChangeNothing) {
  for (const char* hint : {"prefetch.global.L1 [%in];",
                           "prefetch.L2 [%in];",
                           "prefetch.global.L2::evict_last [%in];",
                           "prefetchu.L1 [%in];",
                           "prefetch.tensormap [%in];",
                           "applypriority.global.L2::evict_normal [%in], 128;",
                           "pmevent 3;",
                           "griddepcontrol.wait;",
                           "griddepcontrol.launch_dependents;",
                           "setmaxnreg.dec.sync.aligned.u32 40;",
                           "bar.warp.sync 0xffffffff;",
                           "nanosleep.u32 20;",
                           "fence.sc.gpu;",
                           "fence.acq_rel.cta;",
                           "fence.acquire.cluster;",
                           "fence.release.sys;",
                           "membar.gl;",
                           "fence.proxy.alias;",
                           "fence.proxy.async;",
                           "fence.proxy.async.global;",
                           "fence.mbarrier_init.release.cluster;",
                           "fence.proxy.tensormap::generic.release.gpu;",
                           "fence.proxy.tensormap::generic.acquire.gpu [%in], 128;",
                           "cp.async.bulk.prefetch.L2.global [%in], 16;",
                           "createpolicy.fractional.L2::evict_last.b64 %l1, 1.0;"})
    ExpectWords(RunShared("ld.global.b32 %r1, [%in];\nadd.u32 %r1, %r1, 1;\n" + std::string(hint) +
                              "\nst.global.b32 [%out], %r1;",
                          1, {.block = {32, 1, 1}}, {41, 0, 0, 0}),
                {42});
}

TEST(OtherInstructions, TrapsEndTheLaunch) {
  for (const char* name : {"trap", "brkpt"}) {
    ExpectFault(RunShared(std::string(name) + ";", 1), "PTX line 18");
    NoteExecuted(name);
  }
}

TEST(OtherInstructions, LoadsOfEverySpelling) {
  ExpectWords(RunShared("ldu.global.b32 %r1, [%in+4];\nst.global.b32 [%out], %r1;", 1,
                        {.block = {32, 1, 1}}, {5, 6}),
              {6});
  ExpectWords(
      RunShared("discard.global.L2 [%out], 128;\nmov.b32 %r1, 7;\nst.global.b32 [%out], %r1;", 32),
      [] {
        std::vector<uint32_t> words(32, 0xCDCDCDCD);
        words[0] = 7;
        return words;
      }());
}

TEST(OtherInstructions, AddressesKnowTheirSpace) {
  ExpectWords(
      RunShared("mov.u64 %l1, buf;\ncvta.shared.u64 %l2, %l1;\n"
                "isspacep.shared %p1, %l2;\nisspacep.global %p2, %l2;\nisspacep.global %p3, %in;\n"
                "isspacep.local %p4, %in;\nselp.u32 %r1, 1, 0, %p1;\nselp.u32 %r2, 1, 0, %p2;\n"
                "selp.u32 %r3, 1, 0, %p3;\nselp.u32 %r4, 1, 0, %p4;\n"
                "st.global.v4.b32 [%out], {%r1, %r2, %r3, %r4};",
                4),
      {1, 0, 1, 0});
  // Each CTA of a cluster of two writes the rank that its neighbour's address has.
  ExpectWords(RunShared("mov.u32 %r1, buf;\nmov.u32 %r2, %cluster_ctarank;\nxor.b32 %r3, %r2, 1;\n"
                        "mapa.shared::cluster.u32 %r4, %r1, %r3;\n"
                        "getctarank.shared::cluster.u32 %r5, %r4;\nmul.wide.u32 %l1, %r2, 4;\n"
                        "add.u64 %l1, %out, %l1;\nst.global.b32 [%l1], %r5;",
                        2, {.grid = {2, 1, 1}, .block = {32, 1, 1}, .cluster = {2, 1, 1}}),
              {1, 0});
}

TEST(OtherInstructions, ReductionsWithoutAResult) {
  ExpectWords(
      RunShared("mov.b32 %r1, 1;\nred.global.add.u32 [%in], %r1;\n"
                "red.relaxed.gpu.global.add.u32 [%in], %r1;\nred.global.gpu.relaxed.add.u32 [%in], "
                "%r1;\nld.global.b32 %r2, [%in];\n"
                "st.global.b32 [%out], %r2;",
                1, {.block = {32, 1, 1}}, {100}),
      {196});
}

/// The words of a 128-bit number.
std::vector<uint32_t> WordsOf(std::initializer_list<unsigned __int128> numbers) {
  std::vector<uint32_t> words;
  for (unsigned __int128 number : numbers)
    for (int i = 0; i < 4; ++i) words.push_back(static_cast<uint32_t>(number >> (32 * i)));
  return words;
}

TEST(OtherInstructions, CarriesOf64Bits) {
  const auto a = static_cast<unsigned __int128>(0x8000000000000001u) << 64 | 0xfffffffffffffff0u;
  const auto b = static_cast<unsigned __int128>(0x1234567890abcdefu) << 64 | 0xfedcba9876543210u;
  const auto product =
      static_cast<unsigned __int128>(static_cast<uint64_t>(a)) * static_cast<uint64_t>(b);
  ExpectWords(
      RunShared("ld.global.v2.b64 {%l1, %l2}, [%in];\nld.global.v2.b64 {%l3, %l4}, [%in+16];\n"
                "add.cc.u64 %l5, %l1, %l3;\naddc.u64 %l6, %l2, %l4;\n"
                "st.global.v2.b64 [%out], {%l5, %l6};\n"
                "sub.cc.u64 %l5, %l1, %l3;\nsubc.u64 %l6, %l2, %l4;\n"
                "st.global.v2.b64 [%out+16], {%l5, %l6};\n"
                "mad.lo.cc.u64 %l5, %l1, %l3, %l1;\nmadc.hi.u64 %l6, %l1, %l3, %l2;\n"
                "st.global.v2.b64 [%out+32], {%l5, %l6};",
                12, {.block = {32, 1, 1}}, WordsOf({a, b})),
      WordsOf({a + b, a - b, product + a}));
  ExpectWords(RunShared("ld.global.v2.b32 {%r1, %r2}, [%in];\nsub.cc.u32 %r3, %r1, %r2;\n"
                        "subc.u32 %r4, 5, 3;\nst.global.v2.b32 [%out], {%r3, %r4};",
                        2, {.block = {32, 1, 1}}, {1, 2}),
              {0xffffffff, 1});
}

TEST(OtherInstructions, BothHalvesAreCompared) {
  // {1.0, -2.0} and {0.5, NaN}, low halves first.
  ExpectWords(RunShared("mov.b32 %r1, 0xC0003C00;\nmov.b32 %r2, 0x7E003800;\n"
                        "setp.gt.f16x2 %p1|%p2, %r1, %r2;\nsetp.neu.f16x2 %p3|%p4, %r1, %r2;\n"
                        "selp.u32 %r3, 1, 0, %p1;\nselp.u32 %r4, 1, 0, %p2;\n"
                        "selp.u32 %r5, 1, 0, %p3;\nselp.u32 %r6, 1, 0, %p4;\n"
                        "st.global.v4.b32 [%out], {%r3, %r4, %r5, %r6};",
                        4),
              {1, 0, 1, 1});
}

TEST(OtherInstructions, PackedConversions) {
  // 1 + 2^-11 and -3: toward zero, and with negative values as zero; the first operand is on top.
  ExpectWords(RunShared("mov.b32 %r1, 0x3F801000;\nmov.b32 %r2, 0xC0400000;\n"
                        "cvt.rz.f16x2.f32 %r3, %r1, %r2;\ncvt.rn.relu.f16x2.f32 %r4, %r1, %r2;\n"
                        "cvt.rz.bf16x2.f32 %r5, %r1, %r2;\n"
                        "st.global.v2.b32 [%out], {%r3, %r4};\nst.global.b32 [%out+8], %r5;",
                        3),
              {0x3C00C200, 0x3C000000, 0x3F80C040});
  // f16 {1.0, -2.0} to e4m3 and e5m2.
  ExpectWords(RunShared("mov.b32 %r1, 0xC0003C00;\ncvt.rn.satfinite.e4m3x2.f16x2 %h1, %r1;\n"
                        "cvt.rn.satfinite.e5m2x2.f16x2 %h2, %r1;\nmov.b32 %r2, {%h1, %h2};\n"
                        "st.global.b32 [%out], %r2;",
                        1),
              {0xC03CC038});
}

TEST(OtherInstructions, FieldsOf64Bits) {
  ExpectWords(RunShared("mov.b64 %l1, 0xABC;\nmov.b64 %l2, 0xFFFFFFFFFFFFFFFF;\n"
                        "bfi.b64 %l3, %l1, %l2, 40, 12;\nst.global.b64 [%out], %l3;",
                        2),
              {0xFFFFFFFF, 0xFFFABCFF});
}

TEST(OtherInstructions, MatchOf64Bits) {
  ExpectWords(
      RunShared("cvt.u64.u32 %l1, %r0;\nand.b64 %l1, %l1, 1;\nshl.b64 %l1, %l1, 40;\n"
                "match.any.sync.b64 %r1, %l1, 0xffffffff;\n"
                "match.all.sync.b64 %r2|%p1, %l1, 0xffffffff;\nselp.u32 %r3, 1, 0, %p1;\n"
                "mul.wide.u32 %l2, %r0, 12;\nadd.u64 %l2, %out, %l2;\nsetp.ge.u32 %p2, %r0, 2;\n"
                "@%p2 bra END;\nst.global.b32 [%l2], %r1;\nst.global.b32 [%l2+4], %r2;\n"
                "st.global.b32 [%l2+8], %r3;\nEND:",
                6),
      {0x55555555, 0, 0, 0xAAAAAAAA, 0, 0});
}

/// Warp 0 stores, warp 1 loads behind each spelling of a barrier of the CTA.
TEST(OtherInstructions, BarriersOfEverySpelling) {
  const std::string reduce = "setp.lt.u32 %p2, %r0, 40;\n";
  for (const std::string& barrier :
       {std::string("barrier.sync 3;"), std::string("barrier.cta.sync.aligned 3, 64;"),
        std::string("bar.cta.sync 3;"), reduce + "bar.red.popc.u32 %r9, 3, %p2;",
        reduce + "barrier.cta.red.popc.aligned.u32 %r9, 3, %p2;",
        reduce + "barrier.red.or.pred %p3, 3, %p2;", reduce + "bar.red.and.pred %p3, 3, %p2;",
        reduce + "barrier.cta.red.and.aligned.pred %p3, 3, 64, %p2;"})
    ExpectWords(
        RunShared("mov.b32 %r9, 40;\nmov.u32 %r1, buf;\nsetp.ne.u32 %p1, %r0, 0;\n"
                  "@!%p1 st.shared.b32 [%r1], 77;\n" +
                      barrier +
                      "\nsetp.ne.u32 %p1, %r0, 63;\n@%p1 bra END;\nld.shared.b32 %r2, [%r1];\n"
                      "st.global.v2.b32 [%out], {%r2, %r9};\nEND:",
                  2, {.block = {64, 1, 1}}),
        {77, 40});
}

TEST(OtherInstructions, SplitBarriers) {
  for (const char* arrive : {"barrier.arrive 1, 64;", "bar.arrive 1, 64;"})
    ExpectWords(RunShared("mov.u32 %r1, buf;\nsetp.ge.u32 %p1, %r0, 32;\n@%p1 bra WAIT;\n"
                          "st.shared.b32 [%r1], 78;\n" +
                              std::string(arrive) +
                              "\nbra END;\nWAIT:\nbarrier.sync 1, 64;\nld.shared.b32 %r2, [%r1];\n"
                              "st.global.b32 [%out], %r2;\nEND:",
                          1, {.block = {64, 1, 1}}),
                {78});
}

TEST(OtherInstructions, MbarriersCountTransactions) {
  ExpectWords(RunShared("setp.ne.u32 %p1, %r0, 0;\n@%p1 bra END;\n"
                        "mbarrier.init.shared.b64 [buf], 1;\n"
                        "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [buf], 24;\n"
                        "mbarrier.arrive.shared.b64 %l1, [buf];\n"
                        "mbarrier.test_wait.shared.b64 %p2, [buf], %l1;\nselp.u32 %r1, 1, 0, %p2;\n"
                        "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [buf], 24;\n"
                        "mbarrier.test_wait.shared.b64 %p2, [buf], %l1;\nselp.u32 %r2, 1, 0, %p2;\n"
                        "st.global.v2.b32 [%out], {%r1, %r2};\nEND:",
                        2),
              {0, 1});
}

TEST(OtherInstructions, CopiesArriveAtAnMbarrier) {
  for (const char* noinc : {"", ".noinc"}) {
    // Without .noinc the arrival is one that the copy itself adds.
    const std::string count = *noinc ? "2" : "1";
    ExpectWords(
        RunShared("setp.ne.u32 %p1, %r0, 0;\n@%p1 bra END;\n"
                  "mbarrier.init.shared.b64 [buf+512], " +
                      count +
                      ";\nmov.u32 %r1, buf;\ncp.async.ca.shared.global [%r1], [%in], 4;\n"
                      "cp.async.mbarrier.arrive" +
                      noinc +
                      ".shared.b64 [buf+512];\nmbarrier.arrive.shared.b64 %l1, [buf+512];\n"
                      "WAIT: mbarrier.try_wait.shared.b64 %p2, [buf+512], %l1;\n@!%p2 bra WAIT;\n"
                      "ld.shared.b32 %r2, [%r1];\nst.global.b32 [%out], %r2;\nEND:",
                  1, {.block = {32, 1, 1}}, {99}),
        {99});
  }
  ExpectFault(
      RunShared("setp.ne.u32 %p1, %r0, 0;\n@%p1 bra END;\nmbarrier.init.shared.b64 [buf], 1;\n"
                "cp.async.mbarrier.arrive.noinc.shared.b64 [buf];\n"
                "mbarrier.inval.shared.b64 [buf];\nEND:",
                1),
      "its mbarrier expects no arrival");
}

/// CTA 1 sends 16 bytes to CTA 0.
TEST(OtherInstructions, BulkCopiesWithinACluster) {
  ExpectWords(
      RunShared(
          "mov.u32 %r1, buf;\nmov.u32 %r2, %cluster_ctarank;\nsetp.ne.u32 %p1, %r0, 0;\n"
          "@%p1 bra READY;\nmbarrier.init.shared.b64 [buf+512], 1;\n"
          "mbarrier.arrive.expect_tx.shared.b64 _, [buf+512], 16;\nadd.u32 %r3, %r2, 10;\n"
          "st.shared.v4.b32 [buf+256], {%r3, %r3, %r3, %r3};\nfence.proxy.async.shared::cta;\n"
          "READY:\nbarrier.cluster.arrive;\nbarrier.cluster.wait;\n@%p1 bra DONE;\n"
          "setp.eq.u32 %p2, %r2, 0;\n@%p2 bra WAIT;\nmapa.shared::cluster.u32 %r4, %r1, 0;\n"
          "add.u32 %r5, %r4, 512;\nadd.u32 %r6, %r1, 256;\n"
          "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r4], [%r6], "
          "16, "
          "[%r5];\nbra DONE;\n"
          "WAIT: mbarrier.try_wait.parity.shared.b64 %p3, [buf+512], 0;\n@!%p3 bra WAIT;\n"
          "ld.shared.b32 %r7, [buf+12];\nst.global.b32 [%out], %r7;\nDONE:\n"
          "barrier.cluster.arrive;\nbarrier.cluster.wait;",
          1, {.grid = {2, 1, 1}, .block = {32, 1, 1}, .cluster = {2, 1, 1}}),
      {11});
}

// ---- Operands that do harm

TEST(OtherInstructions, CopiesOfAThreadStayInTheirCta) {
  // (rank + 1) << 24 names a CTA of the cluster; cp.async has no such destination.
  ExpectFault(RunShared("mov.u32 %r1, buf;\nadd.u32 %r1, %r1, 16777216;\n"
                        "cp.async.ca.shared.global [%r1], [%in], 4;\ncp.async.wait_all;",
                        1, {.block = {32, 1, 1}}, {1}),
              "the CTA's own shared memory");
}

TEST(OtherInstructions, TilesLieInSharedMemoryWithTheirSwizzle) {
  TensorMap map;
  map.address = 4096;
  map.dims = {8, 256, 256, 256, 256};
  map.strides = {0, 16, 16, 16, 16};
  map.box = {8, 256, 256, 256, 256};
  map.rank = 5;
  EXPECT_FALSE(EncodeTensorMap(map).ok()) << "more bytes than fit in 32 bits";

  // Rows of 32 bytes at the very end of shared memory, which a swizzle of 128 bytes moves on.
  Memory memory;
  map = {};
  map.address = Upload(memory, std::vector<uint16_t>(16 * 12, 1));
  map.dims = {16, 12};
  map.strides = {0, 32};
  map.box = {16, 9};
  map.swizzle = TensorSwizzle::k128;
  const auto module = ParseModule(
      Header() +
      ".shared .align 1024 .b8 buf[288];\n.visible .entry k(.param .align 64 .b8 map[128])\n{\n"
      ".reg .b64 %l<4>;\n.reg .b32 %r<2>;\nmov.b64 %l2, map;\ncvta.param.u64 %l3, %l2;\n"
      "mov.u32 %r1, buf;\n"
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%r1], [%l3, {0, 0}], [%r1];\nret;\n}\n");
  ASSERT_TRUE(module.ok()) << module.status().message();
  Parameters parameters;
  parameters.Add(*EncodeTensorMap(map), 64);
  const auto report = Launch(*module, "k", parameters.bytes(), memory, {});
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find("past the end of shared memory"), std::string::npos)
      << report.status().message();
}

TEST(OtherInstructions, TensorPrefetchesAreHints) {
  Memory memory;
  TensorMap map;
  map.address = Upload(memory, std::vector<uint16_t>(64 * 8, 1));
  map.dims = {64, 8};
  map.strides = {0, 128};
  map.box = {64, 8};
  const auto module =
      ParseModule(Header() +
                  ".visible .entry k(.param .align 64 .b8 map[128])\n{\n.reg .b64 %l<4>;\n"
                  "mov.b64 %l2, map;\ncvta.param.u64 %l3, %l2;\n"
                  "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%l3, {0, 0}];\nret;\n}\n");
  ASSERT_TRUE(module.ok()) << module.status().message();
  Parameters parameters;
  parameters.Add(*EncodeTensorMap(map), 64);
  const auto report = Launch(*module, "k", parameters.bytes(), memory, {.coverage = true});
  ASSERT_TRUE(report.ok()) << report.status().message();
  NoteExecuted(*report);
}

TEST(OtherInstructions, RegistersAreBounded) {
  const auto module =
      ParseModule(Header() + ".visible .entry k()\n{\n.reg .b64 %l<70000>;\nret;\n}\n");
  ASSERT_FALSE(module.ok());
  EXPECT_NE(module.status().message().find("more than 65536 registers"), std::string::npos);
}

}  // namespace
}  // namespace quern::ptx

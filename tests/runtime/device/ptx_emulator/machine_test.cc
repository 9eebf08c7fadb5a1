// Divergence, memory checks, barriers, deadlocks, races and the instructions between lanes.
#include <numeric>

#include "runtime/device/ptx_emulator/tensor_map.h"
#include "tests/runtime/device/ptx_emulator/run_kernel.h"

namespace quern::ptx {
namespace {

const std::string kOut = "mul.wide.u32 %l9, %r0, 4;\nadd.u64 %l9, %out, %l9;\n";
const std::string kShared = ".shared .align 128 .b8 buf[1024];\n";

std::vector<uint32_t> Lanes(const std::string& body,
                            LaunchOptions options = {.block = {32, 1, 1}}) {
  const size_t threads = options.block[0];
  const Outcome outcome =
      RunBody(kOut + body + "\nst.global.b32 [%l9], %r1;", {}, threads, options, kShared);
  EXPECT_TRUE(outcome.status.ok()) << outcome.message();
  return outcome.out;
}

std::string Error(const std::string& body, LaunchOptions options = {.block = {32, 1, 1}}) {
  const Outcome outcome = RunBody(kOut + body, {}, 64, options, kShared);
  EXPECT_FALSE(outcome.status.ok()) << body;
  EXPECT_EQ(outcome.status.code(), StatusCode::kFailure) << outcome.message();
  return outcome.message();
}

#define EXPECT_HAS(text, words) EXPECT_NE((text).find(words), std::string::npos) << (text)

// ---- Divergence

TEST(Divergence, LoopsOfDifferentLength) {
  const auto out = Lanes(
      "mov.b32 %r1, 0;\nmov.b32 %r2, 0;\nLOOP: setp.ge.u32 %p1, %r2, %r0;\n@%p1 bra DONE;\nadd.u32 "
      "%r1, %r1, %r2;\nadd.u32 %r2, %r2, 1;\nbra LOOP;\nDONE:");
  for (uint32_t t = 0; t < 32; ++t) EXPECT_EQ(out[t], t * (t - 1) / 2);
}

TEST(Divergence, LanesMeetAgainBehindALatchLaidOutBeforeItsHeader) {
  // The loop's latch stands below its header; a full-mask shuffle behind the loop needs all lanes.
  const auto out = Lanes(
      "mov.b32 %r1, %r0;\nbra HEAD;\nLATCH: add.u32 %r1, %r1, 100;\nHEAD: setp.lt.u32 %p1, %r1, "
      "300;\n@%p1 bra LATCH;\n"
      "shfl.sync.idx.b32 %r1, %r1, 0, 31, 0xffffffff;");
  for (uint32_t t = 0; t < 32; ++t) EXPECT_EQ(out[t], 300u);
}

TEST(Divergence, NestedBranchesAndEarlyExit) {
  const auto out = Lanes(
      "mov.b32 %r1, 0;\nst.global.b32 [%l9], 7;\nand.b32 %r2, %r0, 3;\nsetp.eq.u32 %p1, %r2, "
      "3;\n@%p1 ret;\nsetp.eq.u32 %p2, %r2, 0;\n@%p2 bra ZERO;\n"
      "setp.eq.u32 %p3, %r2, 1;\n@%p3 bra ONE;\nmov.b32 %r1, 20;\nbra JOIN;\nONE: mov.b32 %r1, "
      "10;\nJOIN: add.u32 %r1, %r1, 1;\nbra END;\nZERO: mov.b32 %r1, 5;\nEND:");
  for (uint32_t t = 0; t < 32; ++t)
    EXPECT_EQ(out[t], (std::array<uint32_t, 4>{5, 11, 21, 7})[t % 4]);
}

TEST(Divergence, EndlessLoopsEnd) {
  EXPECT_HAS(Error("LOOP: bra LOOP;", {.block = {32, 1, 1}, .max_steps = 1000}), "max_steps");
}

// ---- Memory

TEST(MemoryChecks, NameTheAddressAndTheLine) {
  EXPECT_HAS(Error("ld.global.b32 %r1, [%in+4];"),
             "PTX line 20: ld.global.b32: access of 4 bytes to global memory at");
  EXPECT_HAS(Error("ld.global.b32 %r1, [%in+4];"), "0 bytes past the end of the buffer of 4 bytes");
  EXPECT_HAS(Error("st.global.b32 [%l9+256], %r0;"), "(CTA 0,0,0 warp 0 lane 0)");
  EXPECT_HAS(Error("ld.global.b32 %r1, [%in+2];"), "misaligned access of 4 bytes");
  EXPECT_HAS(Error("ld.global.v4.b32 {%r1,%r2,%r3,%r4}, [%out+8];"),
             "misaligned access of 16 bytes");
  EXPECT_HAS(Error("mov.b64 %l1, 0;\nst.global.b32 [%l1+8], %r0;"), "a null pointer?");
  EXPECT_HAS(Error("st.shared.b32 [buf+1024], %r0;"),
             "access of 4 bytes to shared memory at offset 1024 of 1024 bytes");
  EXPECT_HAS(Error("ld.shared.b64 %l1, [buf+4];"),
             "misaligned access of 8 bytes to shared memory at offset 4");
  EXPECT_HAS(Error("mov.b32 %r1, 0;\nld.shared.b32 %r1, [%r1];"), "shared memory at offset -1024");
  EXPECT_HAS(Error("ld.param.b64 %l1, [in+16];"), "the kernel's parameters at offset 16 of 16");
  EXPECT_HAS(Error(".local .b32 x;\nst.local.b32 [x+32], %r0;"), "local memory at offset 32");
}

TEST(MemoryChecks, SharedMemoryStartsPoisoned) {
  EXPECT_EQ(Lanes("ld.shared.b32 %r1, [buf+64];")[0], 0xCDCDCDCDu);
}

TEST(MemoryChecks, DynamicSharedMemoryFollowsTheStatic) {
  const std::string text =
      Header() + ".extern .shared .align 16 .b8 dyn[];\n" +
      SimpleKernel("k",
                   ".shared .b32 one;\nst.shared.b32 [dyn+60], 9;\nst.shared.b32 [one], "
                   "4;\nld.shared.b32 %r1, [dyn+60];\nst.global.b32 [%out], %r1;");
  EXPECT_EQ(RunText(text, {}, 1, {.shared_bytes = 64}).out[0], 9u);
  EXPECT_HAS(RunText(text, {}, 1, {.shared_bytes = 60}).message(),
             "shared memory at offset 76 of 76 bytes");
}

TEST(MemoryChecks, GenericAddressesFindTheirSpace) {
  const auto out = Lanes(
      ".local .b32 loc;\nmov.u64 %l1, buf;\ncvta.shared.u64 %l1, %l1;\nst.u32 [%l1], 11;\nmov.u64 "
      "%l2, loc;\ncvta.local.u64 %l2, %l2;\nst.u32 [%l2], %r0;\n"
      "ld.shared.b32 %r2, [buf];\nld.local.b32 %r3, [loc];\nadd.u32 %r1, %r2, %r3;\nst.u32 [%l9], "
      "%r1;");
  for (uint32_t t = 0; t < 32; ++t) EXPECT_EQ(out[t], 11 + t);
}

TEST(MemoryChecks, SubWordsExtend) {
  EXPECT_EQ(Lanes("st.shared.b32 [buf], 0x80FF8081;\nbar.sync 0;\nld.shared.s8 %r1, [buf];")[0],
            0xFFFFFF81u);
  EXPECT_EQ(Lanes("st.shared.b32 [buf], 0x80FF8081;\nbar.sync 0;\nld.shared.u8 %r1, [buf+2];")[0],
            0xFFu);
  EXPECT_EQ(Lanes("st.shared.b32 [buf], 0x80FF8081;\nbar.sync 0;\nld.shared.s16 %r1, [buf+2];")[0],
            0xFFFF80FFu);
}

TEST(MemoryChecks, ModuleVariablesHaveTheirValues) {
  const Outcome outcome = RunBody(
      "mov.u64 %l1, table;\nld.global.b32 %r1, [table+4];\nld.global.b32 %r2, [%l1+8];\nadd.u32 "
      "%r1, %r1, %r2;\nst.global.b32 [%out], %r1;",
      {}, 1, {}, ".global .align 4 .u32 table[4] = {1, 20, 300};\n");
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  EXPECT_EQ(outcome.out[0], 320u);
}

TEST(Atomics, AddUp) {
  const Outcome outcome = RunBody(
      "mov.b32 %r1, 0;\n@%p0 bra X;\nX: atom.global.add.u32 %r2, [%in], 1;\nred.global.max.s32 "
      "[%in+4], %r0;\nred.global.add.f32 [%in+8], 0f3F000000;\n"
      "atom.global.cas.b32 %r3, [%in+12], 5, 6;\nred.global.or.b32 [%in+16], "
      "4;\natom.global.exch.b32 %r4, [%in+20], %r0;\natom.global.inc.u32 %r5, [%in+24], 9;\n"
      "bar.sync 0;\nld.global.v4.b32 {%r10,%r11,%r12,%r13}, [%in];\nld.global.v2.b32 {%r14,%r15}, "
      "[%in+16];\nld.global.b32 %r16, [%in+24];\n"
      "st.global.v4.b32 [%out], {%r10,%r11,%r12,%r13};\nst.global.b32 [%out+16], "
      "%r14;\nst.global.b32 [%out+20], %r16;",
      std::vector<uint32_t>{10, 0xfffffff0, 0, 5, 3, 0, 0}, 6, {.block = {64, 1, 1}});
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  EXPECT_EQ(outcome.out, (std::vector<uint32_t>{74, 63, 0x42000000, 6, 7, 4}));
}

// ---- Lanes

TEST(LaneInstructions, ShuffleFollowsTheFormula) {
  const auto bfly = Lanes("shfl.sync.bfly.b32 %r1, %r0, 5, 31, 0xffffffff;");
  const auto down = Lanes("shfl.sync.down.b32 %r1, %r0, 3, 0x181f, 0xffffffff;");  // Segments of 8.
  const auto up = Lanes(
      "shfl.sync.up.b32 %r1|%p1, %r0, 2, 0, 0xffffffff;\nselp.b32 %r2, 1000, 0, %p1;\nadd.u32 %r1, "
      "%r1, %r2;");
  const auto idx = Lanes("shfl.sync.idx.b32 %r1, %r0, 9, 0x1c1f, 0xffffffff;");  // Segments of 4.
  for (uint32_t t = 0; t < 32; ++t) {
    EXPECT_EQ(bfly[t], t ^ 5);
    EXPECT_EQ(down[t], t % 8 + 3 < 8 ? t + 3 : t);
    EXPECT_EQ(up[t], t >= 2 ? 1000 + t - 2 : t);
    EXPECT_EQ(idx[t], t / 4 * 4 + 1);
  }
}

TEST(LaneInstructions, VoteMatchReduceElect) {
  EXPECT_EQ(Lanes("setp.lt.u32 %p1, %r0, 5;\nvote.sync.ballot.b32 %r1, %p1, 0xffffffff;")[9], 31u);
  EXPECT_EQ(Lanes("setp.lt.u32 %p1, %r0, 40;\nvote.sync.all.pred %p2, %p1, 0xffffffff;\nselp.b32 "
                  "%r1, 1, 0, %p2;")[0],
            1u);
  EXPECT_EQ(Lanes("setp.eq.u32 %p1, %r0, 40;\nvote.sync.any.pred %p2, %p1, 0xffffffff;\nselp.b32 "
                  "%r1, 1, 0, %p2;")[0],
            0u);
  EXPECT_EQ(Lanes("redux.sync.add.u32 %r1, %r0, 0xffffffff;")[3], 496u);
  EXPECT_EQ(Lanes("sub.s32 %r2, 3, %r0;\nredux.sync.min.s32 %r1, %r2, 0xffffffff;")[3],
            static_cast<uint32_t>(-28));
  EXPECT_EQ(Lanes("and.b32 %r2, %r0, 1;\nmatch.any.sync.b32 %r1, %r2, 0xffffffff;")[2],
            0x55555555u);
  EXPECT_EQ(Lanes("match.all.sync.b32 %r1|%p1, %r0, 0xffffffff;")[2], 0u);
  const auto elected = Lanes("elect.sync %r2|%p1, 0xffffffff;\nselp.b32 %r1, 1, 0, %p1;");
  EXPECT_EQ(std::accumulate(elected.begin(), elected.end(), 0u), 1u);
  EXPECT_EQ(Lanes("mov.b32 %r1, 0;\nsetp.lt.u32 %p1, %r0, 4;\n@%p1 activemask.b32 %r1;")[1], 15u);
}

TEST(LaneInstructions, MemberMasksAreChecked) {
  EXPECT_HAS(
      Error("setp.lt.u32 %p1, %r0, 16;\n@%p1 shfl.sync.bfly.b32 %r1, %r0, 1, 31, 0xffffffff;"),
      "names lane 16, which has not come here");
  EXPECT_HAS(Error("shfl.sync.bfly.b32 %r1, %r0, 1, 31, 0xfffffffe;"),
             "lane 0 executes it but is not in the member mask");
  EXPECT_HAS(Error("setp.lt.u32 %p1, %r0, 16;\n@%p1 shfl.sync.bfly.b32 %r1, %r0, 16, 31, 0xffff;"),
             "shfl reads lane 16, which does not take part");
}

// ---- Barriers and deadlocks

TEST(Barriers, ReduceAcrossTheCta) {
  const auto out = Lanes(
      "setp.eq.u32 %p1, %r0, 70;\nbarrier.cta.red.popc.aligned.u32 %r1, 0, %p1;\nbar.red.or.pred "
      "%p2, 0, %p1;\nselp.b32 %r2, 10, 0, %p2;\nadd.u32 %r1, %r1, %r2;",
      {.block = {96, 1, 1}});
  for (uint32_t value : out) EXPECT_EQ(value, 11u);
}

TEST(Barriers, NamedBarriersPairProducersAndConsumers) {
  const auto out = Lanes(
      "mov.b32 %r1, 0;\nsetp.ge.u32 %p1, %r0, 32;\n@%p1 bra CONSUMER;\nst.shared.b32 [buf], "
      "42;\nmembar.cta;\nbar.arrive 3, 64;\nbra END;\n"
      "CONSUMER: bar.sync 3, 64;\nld.shared.b32 %r1, [buf];\nEND:",
      {.block = {64, 1, 1}, .check_races = true});
  EXPECT_EQ(out[40], 42u);
}

TEST(Deadlocks, AreNamedWithTheirLine) {
  const std::string lonely =
      Error("setp.ge.u32 %p1, %r0, 32;\n@%p1 bra END;\nbar.sync 0;\nEND:", {.block = {64, 1, 1}});
  EXPECT_HAS(lonely,
             "deadlock: warp 0 waits at PTX line 22 for barrier 0; barrier 0 has 32 of 64 threads");
  const std::string never = Error(
      "mbarrier.init.shared.b64 [buf], 1;\nbar.sync 0;\nWAIT: mbarrier.try_wait.parity.shared.b64 "
      "%p1, [buf], 0;\n@!%p1 bra WAIT;");
  EXPECT_HAS(never, "deadlock: warp 0 waits at PTX line 22 for the mbarrier at shared offset 0");
  EXPECT_HAS(Error("setp.lt.u32 %p1, %r0, 16;\n@%p1 bar.sync 0;"), "only 16 of 32 are here");
  EXPECT_HAS(Error("setp.lt.u32 %p1, %r0, 32;\n@%p1 bar.sync 1, 64;\n@!%p1 bar.sync 1, 32;",
                   {.block = {64, 1, 1}}),
             "waits for 32 threads here, but for 64 at line 21");
  EXPECT_HAS(Error("bar.sync 16;"), "barrier 16 of 16");
}

TEST(Mbarriers, CountArrivalsAndBytes) {
  const std::string begin =
      "setp.eq.u32 %p1, %r0, 0;\n@%p1 mbarrier.init.shared.b64 [buf], 2;\nbar.sync 0;\n";
  EXPECT_EQ(
      Lanes(begin +
            "@%p1 mbarrier.arrive.shared.b64 _, [buf], 2;\nmbarrier.test_wait.parity.shared.b64 "
            "%p2, [buf], 0;\nselp.b32 %r1, 1, 0, %p2;")[5],
      1u);
  EXPECT_EQ(Lanes(begin +
                  "@%p1 mbarrier.arrive.shared.b64 _, [buf];\nmbarrier.test_wait.parity.shared.b64 "
                  "%p2, [buf], 0;\nselp.b32 %r1, 1, 0, %p2;")[5],
            0u);
  EXPECT_EQ(
      Lanes(begin +
            "mbarrier.test_wait.parity.shared.b64 %p2, [buf], 1;\nselp.b32 %r1, 1, 0, %p2;")[5],
      1u);  // The phase before the first.
  EXPECT_HAS(Error(begin + "mbarrier.arrive.shared.b64 _, [buf], 3;"),
             "3 arrivals, but the phase has 2 of 2 left");
  EXPECT_HAS(Error("mbarrier.arrive.shared.b64 _, [buf];"),
             "no mbarrier was initialised at shared offset 0");
  EXPECT_HAS(Error("mbarrier.init.shared.b64 [buf], 0;"), "an mbarrier of 0 arrivals");
  EXPECT_HAS(Error(begin + "@%p1 mbarrier.arrive.expect_tx.shared.b64 _, [buf], 64;\n@%p1 "
                           "mbarrier.arrive.shared.b64 _, [buf];\nWAIT: "
                           "mbarrier.try_wait.parity.shared.b64 %p2, [buf], 0;\n@!%p2 bra WAIT;"),
             "deadlock");
}

TEST(Registers, MoveBetweenWarpgroups) {
  // 384 threads start with 168 registers each; 128 of them keep 40.
  const auto launch = [](const std::string& mine, const std::string& others) {
    return RunBody("setp.lt.u32 %p1, %r0, 128;\n@%p1 bra.uni FEW;\nsetmaxnreg." + others +
                       ";\nbra.uni END;\nFEW: setmaxnreg." + mine + ";\nEND: nanosleep.u32 1;",
                   {}, 1, {.block = {384, 1, 1}, .seed = 3})
        .message();
  };
  EXPECT_EQ(launch("dec.sync.aligned.u32 40", "inc.sync.aligned.u32 232"), "");
  EXPECT_HAS(launch("dec.sync.aligned.u32 40", "inc.sync.aligned.u32 240"),
             "for registers in the CTA's pool 2304");
  EXPECT_HAS(launch("dec.sync.aligned.u32 176", "inc.sync.aligned.u32 168"),
             "setmaxnreg.dec to 176 registers of a warp that has 168");
  EXPECT_HAS(launch("inc.sync.aligned.u32 160", "inc.sync.aligned.u32 168"),
             "setmaxnreg.inc to 160 registers of a warp that has 168");
  EXPECT_HAS(launch("dec.sync.aligned.u32 44", "inc.sync.aligned.u32 168"), "a multiple of 8");
}

// ---- Races

size_t Races(const std::string& body, uint32_t threads = 64) {
  const Outcome outcome =
      RunBody(body, {}, 1, {.block = {threads, 1, 1}, .check_races = true}, kShared);
  EXPECT_TRUE(outcome.status.ok()) << outcome.message();
  for (const Finding& race : outcome.report.races) EXPECT_GT(race.line, 0u);
  return outcome.report.races.size();
}

TEST(RaceDetector, FindsMissingBarriers) {
  const std::string address = "shl.b32 %r2, %r0, 2;\nmov.u32 %r3, buf;\nadd.u32 %r2, %r2, %r3;\n";
  const std::string mirror =
      "xor.b32 %r4, %r0, 32;\nshl.b32 %r4, %r4, 2;\nadd.u32 %r4, %r4, %r3;\n";
  EXPECT_EQ(
      Races(address + mirror + "st.shared.b32 [%r2], %r0;\nbar.sync 0;\nld.shared.b32 %r5, [%r4];"),
      0u);
  EXPECT_GE(Races(address + mirror + "st.shared.b32 [%r2], %r0;\nld.shared.b32 %r5, [%r4];"),
            1u);  // read after write
  EXPECT_GE(Races(address + mirror +
                  "st.shared.b32 [%r2], %r0;\nbar.sync 0;\nld.shared.b32 %r5, "
                  "[%r4];\nst.shared.b32 [%r2], 1;"),
            1u);  // write after read
  EXPECT_GE(Races(address + mirror + "st.shared.b32 [%r2], %r0;\nst.shared.b32 [%r4], %r0;"),
            1u);  // write after write
  EXPECT_EQ(Races(address + mirror + "st.shared.b32 [%r2], 7;\nst.shared.b32 [%r4], 7;"),
            0u);  // of the same value
  EXPECT_GE(Races(address + mirror +
                  "setp.lt.u32 %p1, %r0, 32;\n@%p1 st.shared.b32 [%r2], %r0;\nbar.arrive 1, "
                  "64;\n@!%p1 ld.shared.b32 %r5, [%r4];\nbar.sync 1, 64;"),
            0u);
}

TEST(RaceDetector, KnowsNeighboursLanesAndAtomics) {
  EXPECT_EQ(Races("mov.u32 %r3, buf;\nadd.u32 %r2, %r0, %r3;\ncvt.u16.u32 %h1, %r0;\nst.shared.u8 "
                  "[%r2], %h1;"),
            0u);                                          // Bytes of one word.
  EXPECT_EQ(Races("st.shared.b32 [buf], %r0;", 32), 1u);  // Lanes of one warp.
  EXPECT_EQ(Races("red.shared.add.u32 [buf], 1;"), 0u);
}

TEST(RaceDetector, NamesBothLines) {
  const Outcome outcome = RunBody(
      "setp.lt.u32 %p1, %r0, 32;\n@%p1 st.shared.b32 [buf], 1;\n@!%p1 ld.shared.b32 %r1, [buf];",
      {}, 1, {.block = {64, 1, 1}, .check_races = true}, kShared);
  ASSERT_EQ(outcome.report.races.size(), 1u);
  EXPECT_HAS(outcome.report.races[0].message,
             "a read by warp 1 at line 20 is not ordered behind the write by warp 0 at line 19");
}

// ---- Asynchronous copies

const std::string kCopy =
    "shl.b32 %r2, %r0, 2;\nmov.u32 %r3, buf;\nadd.u32 %r2, %r2, %r3;\nmul.wide.u32 %l1, %r0, "
    "4;\nadd.u64 %l1, %in, %l1;\n";

std::vector<uint32_t> CopyOut(const std::string& wait) {
  std::vector<uint32_t> in(64);
  std::iota(in.begin(), in.end(), 100u);
  const Outcome outcome =
      RunBody(kOut + kCopy +
                  "cp.async.ca.shared.global [%r2], [%l1], "
                  "4;\ncp.async.commit_group;\ncp.async.ca.shared.global [%r2+128], [%l1+128], "
                  "4;\ncp.async.commit_group;\n" +
                  wait +
                  "\nld.shared.b32 %r1, [%r2];\nld.shared.b32 %r4, [%r2+128];\nst.global.b32 "
                  "[%l9], %r1;\nst.global.b32 [%l9+128], %r4;",
              in, 64, {.block = {32, 1, 1}}, kShared);
  EXPECT_TRUE(outcome.status.ok()) << outcome.message();
  return outcome.out;
}

TEST(AsyncCopies, ArriveWhenWaitedFor) {
  EXPECT_EQ(CopyOut("cp.async.wait_group 0;")[40], 140u);
  EXPECT_EQ(CopyOut("cp.async.wait_all;")[40], 140u);
  EXPECT_EQ(CopyOut("cp.async.wait_group 1;")[5], 105u);
  EXPECT_EQ(CopyOut("cp.async.wait_group 1;")[40], 0xCDCDCDCDu);
  EXPECT_EQ(CopyOut("")[5], 0xCDCDCDCDu);
}

TEST(AsyncCopies, ShortSourcesFillWithZeros) {
  const Outcome outcome = RunBody(
      "mov.u32 %r2, buf;\ncp.async.cg.shared.global [%r2], [%in], 16, "
      "8;\ncp.async.wait_all;\nld.shared.v4.b32 {%r1,%r2,%r3,%r4}, [buf];\nst.global.v4.b32 "
      "[%out], {%r1,%r2,%r3,%r4};",
      std::vector<uint32_t>{1, 2, 3, 4}, 4, {}, kShared);
  EXPECT_EQ(outcome.out, (std::vector<uint32_t>{1, 2, 0, 0}));
}

TEST(AsyncCopies, BulkCopiesSignalTheirMbarrier) {
  const std::string body =
      "mbarrier.init.shared.b64 [buf+512], "
      "1;\nfence.proxy.async;\nmbarrier.arrive.expect_tx.shared.b64 _, [buf+512], 64;\n"
      "mov.u32 %r2, buf;\nmov.u32 %r3, buf;\nadd.u32 %r3, %r3, "
      "512;\ncp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%in], 64, "
      "[%r3];\n"
      "WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [%r3], 0;\n@!%p1 bra WAIT;\nld.shared.b32 "
      "%r1, [buf+60];\nst.global.b32 [%out], %r1;\n"
      "cp.async.bulk.global.shared::cta.bulk_group [%out], [%r2], "
      "16;\ncp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;";
  std::vector<uint32_t> in(16);
  std::iota(in.begin(), in.end(), 1u);
  const Outcome outcome = RunBody(body, in, 4, {.check_races = true}, kShared);
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  EXPECT_EQ(outcome.out, (std::vector<uint32_t>{1, 2, 3, 4}));
  std::string wrong = body;
  wrong.replace(wrong.find("[buf+512], 64"), 13, "[buf+512], 80");
  EXPECT_HAS(RunBody(wrong, in, 4, {}, kShared).message(), "deadlock");
}

/// A (5, 40) matrix of f16: boxes beyond its edges are zeros.
TEST(AsyncCopies, TensorCopiesSwizzleAndClip) {
  const std::string text =
      Header() + kShared +
      ".visible .entry k(.param .align 64 .b8 map[128], .param .u64 out)\n{\n.reg .pred %p<2>; "
      ".reg .b32 %r<8>; .reg .b64 %l<8>; .reg .b16 %h<2>;\n"
      "ld.param.u64 %l1, [out];\nmov.b64 %l2, map;\ncvta.param.u64 %l3, %l2;\nmov.u32 %r1, "
      "%tid.x;\nsetp.eq.u32 %p0, %r1, 0;\nmov.u32 %r2, buf;\n"
      "@%p0 mbarrier.init.shared.b64 [buf+1016], 1;\nbar.sync 0;\n@%p0 "
      "mbarrier.arrive.expect_tx.shared.b64 _, [buf+1016], 512;\n"
      "@%p0 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%r2], [%l3, {32, 2}], [buf+1016];\n"
      "WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [buf+1016], 0;\n@!%p1 bra WAIT;\n"
      "mul.wide.u32 %l4, %r1, 4;\nadd.u64 %l4, %l1, %l4;\nshl.b32 %r3, %r1, 2;\nadd.u32 %r3, %r3, "
      "%r2;\nld.shared.b32 %r4, [%r3];\nst.global.b32 [%l4], %r4;\nret;\n}\n";
  const auto module = ParseModule(text);
  ASSERT_TRUE(module.ok()) << module.status().message();
  for (const auto swizzle :
       {TensorSwizzle::kNone, TensorSwizzle::k32, TensorSwizzle::k64, TensorSwizzle::k128}) {
    Memory memory;
    const uint32_t columns = swizzle == TensorSwizzle::k32 ? 16 : 32, rows = 256 / columns;
    std::vector<uint16_t> matrix(5 * 40);
    std::iota(matrix.begin(), matrix.end(), uint16_t{1});
    TensorMap map;
    map.address = Upload(memory, matrix);
    map.dims = {40, 5};
    map.strides = {0, 80};
    map.box = {columns, rows};
    map.swizzle = swizzle;
    const uint64_t out = *memory.Allocate(512);
    Parameters parameters;
    parameters.Add(*EncodeTensorMap(map), 64).Add(out);
    const auto report =
        Launch(*module, "k", parameters.bytes(), memory, {.block = {128, 1, 1}, .coverage = true});
    ASSERT_TRUE(report.ok()) << report.status().message();
    NoteExecuted(*report);
    const auto shared = Download<uint16_t>(memory, out, 256);
    for (uint32_t r = 0; r < rows; ++r)
      for (uint32_t c = 0; c < columns; ++c) {
        const uint32_t row = 2 + r, column = 32 + c;
        // buf is a multiple of 128 only: the pattern counts from the address, which is 1024.
        const uint32_t at = Swizzle(1024 + (r * columns + c) * 2, swizzle) - 1024;
        EXPECT_EQ(shared[at / 2], row < 5 && column < 40 ? 1 + row * 40 + column : 0)
            << r << " " << c;
      }
  }
}

TEST(Clusters, ReadEachOthersSharedMemory) {
  const std::string body =
      "mov.u32 %r1, %cluster_ctarank;\nadd.u32 %r2, %r1, 50;\nst.shared.b32 [buf], "
      "%r2;\nbarrier.cluster.arrive;\nbarrier.cluster.wait;\nxor.b32 %r3, %r1, 1;\n"
      "mov.u32 %r4, buf;\nmapa.shared::cluster.u32 %r5, %r4, %r3;\nld.shared::cluster.b32 %r6, "
      "[%r5];\nbarrier.cluster.arrive;\nbarrier.cluster.wait;\n"
      "mov.u32 %r7, %ctaid.x;\nmul.wide.u32 %l1, %r7, 4;\nadd.u64 %l1, %out, %l1;\nst.global.b32 "
      "[%l1], %r6;";
  const Outcome outcome = RunBody(body, {}, 4, {.grid = {4, 1, 1}, .cluster = {2, 1, 1}}, kShared);
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  EXPECT_EQ(outcome.out, (std::vector<uint32_t>{51, 50, 51, 50}));
}

TEST(Reports, CountEveryInstruction) {
  const Outcome outcome = RunBody(
      "setp.eq.u32 %p1, %r0, 99;\n@%p1 bra NEVER;\nbra END;\nNEVER: mov.b32 %r1, 5;\nEND: mov.b32 "
      "%r2, 6;",
      {}, 1, {.grid = {3, 1, 1}, .block = {64, 1, 1}, .coverage = true});
  ASSERT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.report.threads_launched, 192u);
  uint64_t total = 0, never = 99, last = 0;
  for (const LineCount& line : outcome.report.lines) {
    total += line.warps;
    if (line.line == 20) never = line.warps;
    if (line.line == 21) last = line.warps;
  }
  EXPECT_EQ(total, outcome.report.instructions);
  EXPECT_EQ(never, 0u);
  EXPECT_EQ(last, 6u);
  EXPECT_EQ(outcome.report.by_opcode.at("setp.eq.u32"), 6u);
}

}  // namespace
}  // namespace quern::ptx

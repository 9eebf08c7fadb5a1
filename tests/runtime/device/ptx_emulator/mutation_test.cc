// Bugs put into correct kernels must not go unnoticed: a wrong result, an error, a race or a
// missing fence. Each row is one bug.
#include <functional>
#include <regex>

#include "tests/runtime/device/ptx_emulator/golden_kernel.h"

namespace quern::ptx {
namespace {

/// out(64, 64) = a(64, 64 steps) b(64, 64 steps)^T: a producer warp feeds two stages by TMA, a
/// warpgroup consumes them with wgmma; mbarriers full and empty pass them back and forth.
constexpr const char* kPipeline = R"(.version 8.3
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 dyn[];
.visible .entry pipeline(.param .align 64 .b8 ma[128], .param .align 64 .b8 mb[128], .param .u64 out, .param .u32 steps)
.reqntid 160
{
.reg .pred %p<8>; .reg .b32 %r<32>; .reg .b64 %l<16>; .reg .b32 %f<32>;
mov.u32 %r0, %tid.x;
mov.u32 %r1, dyn;
add.u32 %r2, %r1, 32768;
add.u32 %r3, %r1, 32784;
ld.param.u32 %r4, [steps];
setp.ne.u32 %p1, %r0, 0;
@%p1 bra READY;
mbarrier.init.shared.b64 [%r2], 1;
mbarrier.init.shared.b64 [%r2+8], 1;
mbarrier.init.shared.b64 [%r3], 1;
mbarrier.init.shared.b64 [%r3+8], 1;
fence.mbarrier_init.release.cluster;
READY:
bar.sync 0;
mov.b32 %r5, 0;
setp.ge.u32 %p2, %r0, 128;
@%p2 bra PRODUCER;
ZEROS
CONSUME:
and.b32 %r6, %r5, 1;
shr.u32 %r7, %r5, 1;
and.b32 %r7, %r7, 1;
shl.b32 %r8, %r6, 3;
add.u32 %r9, %r2, %r8;
FULL: mbarrier.try_wait.parity.shared.b64 %p3, [%r9], %r7;
@!%p3 bra FULL;
shl.b32 %r10, %r6, 14;
add.u32 %r10, %r10, %r1;
shr.u32 %r10, %r10, 4;
cvt.u64.u32 %l1, %r10;
or.b64 %l1, %l1, 0x4000004000010000;
add.u64 %l2, %l1, 512;
wgmma.fence.sync.aligned;
setp.ne.u32 %p4, %r4, 0;
WGMMAS
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
add.u32 %r11, %r3, %r8;
@!%p1 mbarrier.arrive.shared.b64 _, [%r11];
add.u32 %r5, %r5, 1;
setp.lt.u32 %p5, %r5, %r4;
@%p5 bra CONSUME;
ld.param.u64 %l3, [out];
shr.u32 %r12, %r0, 2;
and.b32 %r13, %r0, 3;
and.b32 %r14, %r12, 7;
shr.u32 %r15, %r0, 5;
mad.lo.u32 %r14, %r15, 16, %r14;
shl.b32 %r14, %r14, 6;
mad.lo.u32 %r14, %r13, 2, %r14;
mul.wide.u32 %l4, %r14, 4;
add.u64 %l3, %l3, %l4;
STORES
ret;
PRODUCER:
setp.ne.u32 %p1, %r0, 128;
@%p1 ret;
mov.b64 %l5, ma;
cvta.param.u64 %l5, %l5;
mov.b64 %l6, mb;
cvta.param.u64 %l6, %l6;
PRODUCE:
and.b32 %r6, %r5, 1;
shr.u32 %r7, %r5, 1;
and.b32 %r7, %r7, 1;
xor.b32 %r7, %r7, 1;
shl.b32 %r8, %r6, 3;
add.u32 %r9, %r2, %r8;
add.u32 %r11, %r3, %r8;
EMPTY: mbarrier.try_wait.parity.shared.b64 %p3, [%r11], %r7;
@!%p3 bra EMPTY;
mbarrier.arrive.expect_tx.shared.b64 _, [%r9], 16384;
shl.b32 %r10, %r6, 14;
add.u32 %r10, %r10, %r1;
add.u32 %r16, %r10, 8192;
shl.b32 %r17, %r5, 6;
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r10], [%l5, {%r17, 0}], [%r9];
cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r16], [%l6, {%r17, 0}], [%r9];
add.u32 %r5, %r5, 1;
setp.lt.u32 %p5, %r5, %r4;
@%p5 bra PRODUCE;
ret;
}
)";

std::string Replace(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

std::string PipelineText() {
  std::string zeros, products, stores, list = "{";
  for (int i = 0; i < 32; ++i) {
    zeros += "mov.b32 %f" + std::to_string(i) + ", 0;\n";
    list += (i ? ", %f" : "%f") + std::to_string(i);
    const int at = (i / 2 % 2 * 8 * 64 + i / 4 * 8 + i % 2) * 4;
    stores += "st.global.b32 [%l3+" + std::to_string(at) + "], %f" + std::to_string(i) + ";\n";
  }
  for (int k = 0; k < 4; ++k) {
    if (k) products += "add.u64 %l1, %l1, 2;\nadd.u64 %l2, %l2, 2;\n";
    products += "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " + list +
                "}, %l1, %l2, %p4, 1, 1, 0, 0;\n";
  }
  return Replace(Replace(Replace(kPipeline, "ZEROS\n", zeros), "WGMMAS\n", products), "STORES\n",
                 stores);
}

GoldenOutcome RunPipeline(const std::string& text, LaunchOptions options) {
  constexpr uint32_t kSteps = 5, kDepth = 64 * kSteps;
  GoldenOutcome outcome;
  const auto module = ParseModule(text);
  if (!module.ok()) {
    outcome.status = module.status();
    return outcome;
  }
  Memory memory;
  std::vector<uint16_t> a(64 * kDepth), b(64 * kDepth);
  const auto value = [](size_t i) { return static_cast<float>((i * 2654435761u >> 7) % 15) - 7; };
  for (size_t i = 0; i < a.size(); ++i)
    a[i] = FloatToHalf(value(i)), b[i] = FloatToHalf(value(i + 99991));
  Parameters parameters;
  for (const auto* matrix : {&a, &b}) {
    TensorMap map;
    map.address = Upload(memory, *matrix);
    map.dims = {kDepth, 64};
    map.strides = {0, 2 * kDepth};
    map.box = {64, 64};
    map.swizzle = TensorSwizzle::k128;
    parameters.Add(*EncodeTensorMap(map), kTensorMapAlignment);
  }
  const uint64_t out = *memory.Allocate(64 * 64 * 4);
  parameters.Add(out).Add(kSteps);
  options.block = {160, 1, 1};
  options.shared_bytes = 32768 + 32;
  options.coverage = true;
  auto report = Launch(*module, "pipeline", parameters.bytes(), memory, options);
  if (!report.ok()) {
    outcome.status = report.status();
    return outcome;
  }
  NoteExecuted(*report);
  outcome.report = std::move(*report);
  const auto got = Download<float>(memory, out, 64 * 64);
  outcome.right = true;
  for (uint32_t i = 0; i < 64; ++i)
    for (uint32_t j = 0; j < 64; ++j) {
      float want = 0;
      for (uint32_t k = 0; k < kDepth; ++k)
        want += value(i * kDepth + k) * value(j * kDepth + k + 99991);
      outcome.right = outcome.right && got[i * 64 + j] == want;
    }
  return outcome;
}

struct Mutation {
  const char* kernel;  ///< "pipeline" or a golden kernel.
  const char* bug;
  const char* find;  ///< A regular expression.
  const char* replace;
  int occurrence = 0;  ///< -1: all of them.
};

const Mutation kMutations[] = {
    // mbarriers and TMA
    {"pipeline", "expects too few bytes", "16384;\nshl", "8192;\nshl"},
    {"pipeline", "expects too many bytes", "16384;\nshl", "32768;\nshl"},
    {"pipeline", "full barrier counts two", "\\[%r2\\], 1;", "[%r2], 2;"},
    {"pipeline", "empty barrier counts two", "\\[%r3\\], 1;", "[%r3], 2;"},
    {"pipeline", "producer waits for the wrong parity", "xor.b32 %r7, %r7, 1;\n", ""},
    {"pipeline", "consumer waits for the wrong parity", "and.b32 %r7, %r7, 1;\n",
     "xor.b32 %r7, %r7, 1;\nand.b32 %r7, %r7, 1;\n"},
    {"pipeline", "consumer does not wait", "@!%p3 bra FULL;\n", ""},
    {"pipeline", "producer does not wait", "@!%p3 bra EMPTY;\n", ""},
    {"pipeline", "consumer's predicate is flipped", "@!%p3 bra FULL", "@%p3 bra FULL"},
    {"pipeline", "consumer never frees a stage",
     "@!%p1 mbarrier.arrive.shared.b64 _, \\[%r11\\];\n", ""},
    {"pipeline", "every consumer thread frees the stage", "@!%p1 mbarrier.arrive.shared",
     "mbarrier.arrive.shared"},
    {"pipeline", "consumer frees the stage before it waits for wgmma",
     "wgmma.wait_group.sync.aligned 0;\n(add.u32 %r11, %r3, %r8;\n@!%p1 mbarrier.arrive.shared.b64 "
     "_, \\[%r11\\];\n)",
     "$1wgmma.wait_group.sync.aligned 0;\n"},
    {"pipeline", "no barrier behind mbarrier.init", "bar.sync 0;\n", ""},
    {"pipeline", "one mbarrier is not initialised", "mbarrier.init.shared.b64 \\[%r3\\+8\\], 1;\n",
     ""},
    {"pipeline", "TMA coordinates swapped", "\\{%r17, 0\\}", "{0, %r17}"},
    {"pipeline", "TMA signals the wrong mbarrier", "0\\}\\], \\[%r9\\]", "0}], [%r11]"},
    {"pipeline", "TMA writes the wrong stage", "\\[%r16\\]", "[%r10]"},
    {"pipeline", "TMA destination is misaligned", "add.u32 %r16, %r10, 8192",
     "add.u32 %r16, %r10, 8208"},
    {"pipeline", "stages overlap", "shl.b32 %r10, %r6, 14", "shl.b32 %r10, %r6, 13", -1},
    {"pipeline", "one step too many", "(setp.lt.u32 %p5, %r5, %r4;\n@%p5 bra CONSUME)",
     "setp.le.u32 %p5, %r5, %r4;\n@%p5 bra CONSUME"},
    {"pipeline", "one step too few on both sides", "setp.lt.u32 %p5, %r5, %r4;",
     "add.u32 %r18, %r5, 1;\nsetp.lt.u32 %p5, %r18, %r4;", -1},
    // wgmma
    {"pipeline", "no wgmma wait", "wgmma.wait_group.sync.aligned 0;\n", ""},
    {"pipeline", "wgmma wait leaves one group", "wgmma.wait_group.sync.aligned 0",
     "wgmma.wait_group.sync.aligned 1"},
    {"pipeline", "no wgmma commit", "wgmma.commit_group.sync.aligned;\n", ""},
    {"pipeline", "no wgmma.fence", "wgmma.fence.sync.aligned;\n", ""},
    {"pipeline", "descriptor stride halved", "0x4000004000010000", "0x4000002000010000"},
    {"pipeline", "descriptor swizzle of 64 bytes", "0x4000004000010000", "0x8000004000010000"},
    {"pipeline", "descriptor without swizzle", "0x4000004000010000", "0x0000004000010000"},
    {"pipeline", "descriptor advances too far", "add.u64 %l1, %l1, 2", "add.u64 %l1, %l1, 4"},
    {"pipeline", "descriptor of B at the wrong place", "add.u64 %l2, %l1, 512",
     "add.u64 %l2, %l1, 256"},
    {"pipeline", "B taken as MN-major", "%p4, 1, 1, 0, 0", "%p4, 1, 1, 0, 1"},
    {"pipeline", "A negated", "%p4, 1, 1, 0, 0", "%p4, -1, 1, 0, 0"},
    {"pipeline", "accumulation dropped", "setp.ne.u32 %p4, %r4, 0", "setp.eq.u32 %p4, %r4, 0"},
    {"pipeline", "accumulator registers swapped", "\\{%f0, %f1, %f2", "{%f0, %f2, %f1"},
    {"pipeline", "an accumulator is read too early", "(wgmma.wait_group.sync.aligned 0;)",
     "add.f32 %f3, %f3, 0f00000000;\n$1"},
    {"pipeline", "an accumulator is touched behind the fence", "(setp.ne.u32 %p4, %r4, 0;)",
     "mov.b32 %f3, %f3;\n$1"},
    // cp.async, ldmatrix, mma.sync
    {"gemm_f16_sm80", "cp.async waits for too few groups", "cp.async.wait_group\\s+2",
     "cp.async.wait_group 3", -1},
    {"gemm_f16_sm80", "cp.async never waits", "cp.async.wait_group\\s+\\d;", "", -1},
    {"gemm_f16_sm80", "no commit", "cp.async.commit_group;", "", -1},
    {"gemm_f16_sm80", "no barrier in the loop", "bar.sync\\s+0;", "", -1},
    {"gemm_f16_sm80", "ldmatrix registers swapped", "(ldmatrix\\S+\\s+\\{)(%r\\d+), (%r\\d+)",
     "$1$3, $2"},
    {"gemm_f16_sm80", "ldmatrix of B not transposed",
     "ldmatrix.sync.aligned.m8n8.x4(.trans)?.shared", "ldmatrix.sync.aligned.m8n8.x4.trans.shared"},
    {"gemm_f16_sm80", "mma operands swapped",
     "(mma.sync\\S+\\s+\\{[^}]*\\}, \\{ )(%r\\d+), (%r\\d+)", "$1$3, $2"},
    {"gemm_f16_sm80", "swizzle by or", "xor.b32(\\s+%r\\d+, %r\\d+, 32)", "or.b32$1", -1},
    {"gemm_f16_sm80", "a store past the end", "st.global.b16 \\[ (%rd\\d+) \\+ 0",
     "st.global.b16 [ $1 + 1048576"},
    {"gemm_f16_sm80", "a misaligned store", "st.global.b16 \\[ (%rd\\d+) \\+ 0",
     "st.global.b16 [ $1 + 1"},
    {"gemm_f16_sm80", "a mask is ignored", "selp.b32(\\s+%r\\d+), 16, 0, %p\\d+", "mov.b32$1, 16",
     -1},
    {"gemm_bf16_sm80", "bf16 taken as f16", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
     "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"},
    {"gemm_s8_sm80", "signed taken as unsigned", "s32.s8.s8.s32", "s32.u8.s8.s32"},
    // fp8
    {"gemm_fp8_sm89", "a machine without fp8", "sm_89", "sm_80"},
    {"gemm_fp8_sm89", "e4m3 taken as e5m2", "f32.e4m3.e4m3.f32", "f32.e4m3.e5m2.f32"},
    {"gemm_fp8_sm89", "halves of the K of an fp8 fragment swapped",
     "(mma.sync\\S+\\s+\\{[^}]*\\}, \\{ )(%r\\d+), (%r\\d+), (%r\\d+), (%r\\d+)",
     "$1$4, $5, $2, $3"},
    {"gemm_fp8_sm90", "wgmma on a machine without it", "sm_90a", "sm_100a"},
    {"gemm_fp8_sm90", "wgmma takes e4m3 as e5m2", "k32.f32.e4m3.e4m3", "k32.f32.e5m2.e4m3"},
    {"gemm_fp8_sm90", "wgmma of fp8 with a transposed operand",
     "(k32.f32.e4m3.e4m3[^;]*, %p\\d+, 1, 1);", "$1, 0, 1;"},
    {"gemm_int4_sm80", "nibble shifted wrongly", "and.b32(\\s+%r\\d+, %r\\d+), 28;",
     "and.b32$1, 24;"},
    // Lanes and barriers
    {"softmax", "butterfly with the wrong distance", "shfl.sync.bfly.b32\\s+(%r\\d+), (%r\\d+), 16",
     "shfl.sync.bfly.b32 $1, $2, 8"},
    {"softmax", "shuffle with half the member mask", "31, -1", "31, 65535"},
    {"softmax", "no barrier between warps", "bar.sync\\s+0;", ""},
    {"softmax", "no barrier between reductions", "bar.sync\\s+0;", "", 1},
    {"softmax", "a maximum for a sum", "add.f32", "max.f32"},
    {"layer_norm", "a predicate flipped", "@%p(\\d+) st.global", "@!%p$1 st.global"},
    {"layer_norm", "subtraction swapped", "sub.f32\\s+(%r\\d+), (%r\\d+), (%r\\d+)",
     "sub.f32 $1, $3, $2"},
    {"layer_norm", "shared memory past the end", "st.shared.b32\\s+\\[([ %r\\d]+)",
     "st.shared.b32 [$1+4096"},
    {"scan", "shuffle down for up", "shfl.sync.up", "shfl.sync.down"},
    {"arg_max", "comparison turned", "setp.gt.f32", "setp.lt.f32"},
    {"histogram", "an atomic becomes a store",
     "atom.(\\S*)add.f32(\\s+)%r\\d+, (\\[[^\\]]*\\]), (%r\\d+)", "st.global.b32 $3, $4"},
    {"sort", "a shuffle reads itself", "shfl.sync.bfly.b32\\s+(%r\\d+), (%r\\d+), \\d+",
     "shfl.sync.bfly.b32 $1, $2, 0"},
    // Proxies
    {"gemm_tma_sm90", "no proxy fence before the TMA store", "fence.proxy.async.shared::cta;", "",
     -1},
    {"gemm_tma_sm90", "the CTA ends before its TMA store has read",
     "cp.async.bulk.wait_group\\s+0;", "", -1},
    {"gemm_f16_sm90", "no proxy fence between cp.async and wgmma", "fence.proxy.async.shared::cta;",
     "", -1},
    {"gemm_f16_sm90", "no wgmma.fence", "wgmma.fence.sync.aligned;", "", -1},
    {"attention_sm90", "registers of P change while wgmma reads them",
     "wgmma.wait_group.sync.aligned\\s+0;", "wgmma.wait_group.sync.aligned 1;", -1},
};

/// Replaces one match, or all.
std::string Mutate(const std::string& text, const Mutation& mutation) {
  const std::regex pattern(mutation.find);
  if (mutation.occurrence < 0) return std::regex_replace(text, pattern, mutation.replace);
  auto match = std::sregex_iterator(text.begin(), text.end(), pattern);
  for (int i = 0; i < mutation.occurrence && match != std::sregex_iterator(); ++i) ++match;
  if (match == std::sregex_iterator()) return text;
  return match->prefix().str().substr(0, 0) +
         text.substr(0, static_cast<size_t>(match->position())) + match->format(mutation.replace) +
         text.substr(static_cast<size_t>(match->position() + match->length()));
}

struct Subject {
  std::string text;
  std::function<GoldenOutcome(const std::string&, LaunchOptions)> run;
};

Subject SubjectOf(const std::string& name) {
  if (name == "pipeline") return {PipelineText(), RunPipeline};
  const auto kernel = std::make_shared<GoldenKernel>(name);
  return {kernel->ptx, [kernel](const std::string& text, LaunchOptions options) {
            return kernel->Run(text, options);
          }};
}

std::string Describe(const GoldenOutcome& outcome) {
  if (!outcome.status.ok()) return "error: " + outcome.status.message();
  if (!outcome.right) return "wrong result";
  if (!outcome.report.races.empty()) return outcome.report.races[0].message;
  return outcome.report.lints.empty() ? "" : outcome.report.lints[0].message;
}

TEST(Mutations, TheKernelsAreRight) {
  const std::string text = PipelineText();
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const GoldenOutcome outcome = RunPipeline(text, {.seed = seed, .check_races = true});
    EXPECT_FALSE(outcome.caught()) << Describe(outcome);
  }
}

TEST(Mutations, AreAllCaught) {
  int caught = 0;
  for (const Mutation& mutation : kMutations) {
    const Subject subject = SubjectOf(mutation.kernel);
    const std::string text = Mutate(subject.text, mutation);
    EXPECT_FALSE(text == subject.text)
        << mutation.kernel << ": " << mutation.bug << " changes nothing";
    std::string how;
    for (uint64_t seed = 0; seed < 3 && how.empty(); ++seed)
      how = Describe(subject.run(text, {.seed = seed, .check_races = true, .max_steps = 4000000}));
    EXPECT_FALSE(how.empty()) << mutation.kernel << ": " << mutation.bug << " is not caught";
    EXPECT_EQ(how.find("the emulator has no"), std::string::npos) << mutation.bug << how;
    caught += !how.empty();
    if (std::getenv("QUERN_SHOW_MUTATIONS"))
      std::printf("%s: %s\n    %s\n", mutation.kernel, mutation.bug, how.c_str());
  }
  EXPECT_GE(caught, 40);
}

}  // namespace
}  // namespace quern::ptx

// tcgen05 against plain matrix products, and what a kernel can do wrong with tensor memory. Layouts
// are written here as the PTX ISA's figures give them, not as the emulator computes them.
#include <regex>

#include "tests/runtime/device/ptx_emulator/matrices.h"
#include "tests/runtime/device/ptx_emulator/run_kernel.h"

namespace quern::ptx {
namespace {

/// D (rows, columns) f32 = twice A (rows, depth) B (columns, depth)^T, from shared memory.
struct Product {
  std::string type = "f16";
  uint32_t rows = 128, columns = 64;
  int swizzle = 16;  ///< Bytes: 16 (none), 32, 64, 128.
  bool a_mn = false, b_mn = false;
  bool negate = false;  ///< A

  uint32_t bytes() const { return Bits(type) / 8; }
  uint32_t depth() const { return 32 / bytes(); }
  std::string Name() const {
    return type + " " + std::to_string(rows) + "x" + std::to_string(columns) + " swizzle " +
           std::to_string(swizzle) + (a_mn ? " A-MN" : "") + (b_mn ? " B-MN" : "");
  }
  /// The instruction descriptor.
  uint32_t Instruction() const {
    const uint32_t code = type == "tf32" ? 2 : type == "bf16" ? 1 : 0;
    return 1u << 4 | code << 7 | code << 10 | uint32_t{negate} << 13 | uint32_t{a_mn} << 15 |
           uint32_t{b_mn} << 16 | columns / 8 << 17 | rows / 16 << 24;
  }
};

constexpr uint32_t kBase = 1024, kB = 16384;  ///< Shared memory begins there; where B lies in it.
/// Where the mbarrier and the address of the columns lie.
constexpr uint32_t kBarrier = 2 * kB, kSlot = kBarrier + 8, kSharedBytes = kBarrier + 16;

uint64_t Descriptor(uint32_t address, const Product& p, bool mn_major, uint32_t extent) {
  const uint64_t mode = p.swizzle == 128 ? 2 : p.swizzle == 64 ? 4 : p.swizzle == 32 ? 6 : 0;
  return DescriptorOffsets(address, p.swizzle, mn_major, extent, p.bytes()) | uint64_t{1} << 46 |
         mode << 61;
}

/// 160 threads: four warps that read the result, and one that allocates, whose lane 0 issues.
std::string KernelText(const Product& p, uint32_t tile_bytes) {
  const std::string columns = std::to_string(p.columns);
  std::string text = R"(mov.u32 %r1, dyn;
add.u32 %r20, %r1, BARRIER;
add.u32 %r21, %r1, SLOT;
shr.u32 %r22, %r0, 5;
setp.eq.u32 %p4, %r22, 4;
setp.eq.u32 %p5, %r0, 128;
@!%p5 bra MADE;
mbarrier.init.shared.b64 [%r20], 1;
fence.mbarrier_init.release.cluster;
MADE:
@!%p4 bra FILL;
tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r21], 256;
tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;
FILL:
mov.u32 %r3, %r0;
COPY:
setp.ge.u32 %p1, %r3, UNITS;
@%p1 bra FILLED;
shl.b32 %r2, %r3, 4;
cvt.u64.u32 %l1, %r2;
add.u64 %l1, %in, %l1;
add.u32 %r2, %r1, %r2;
ld.global.v4.b32 {%r4,%r5,%r6,%r7}, [%l1];
st.shared.v4.b32 [%r2], {%r4,%r5,%r6,%r7};
add.u32 %r3, %r3, 160;
bra COPY;
FILLED:
fence.proxy.async.shared::cta;
bar.sync 0;
tcgen05.fence::after_thread_sync;
ld.shared.b32 %r23, [%r21];
@!%p5 bra READ;
mov.b64 %l2, DESCRIPTOR_A;
mov.b64 %l3, DESCRIPTOR_B;
mov.b32 %r24, INSTRUCTION;
setp.ne.u32 %p2, %r0, 128;
tcgen05.mma.cta_group::1.KIND [%r23], %l2, %l3, %r24, %p2;
setp.eq.u32 %p3, %r0, 128;
tcgen05.mma.cta_group::1.KIND [%r23], %l2, %l3, %r24, %p3;
tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r20];
READ:
mbarrier.try_wait.parity.shared.b64 %p1, [%r20], 0;
@!%p1 bra READ;
@%p4 bra DONE;
tcgen05.fence::after_thread_sync;
shl.b32 %r25, %r22, 21;
add.u32 %r25, %r25, %r23;
mul.wide.u32 %l6, %r0, ROW_BYTES;
add.u64 %l6, %out, %l6;
)";
  for (uint32_t column = 0; column < p.columns; column += 8) {
    const std::string registers = "{%r30,%r31,%r32,%r33,%r34,%r35,%r36,%r37}";
    text += "tcgen05.ld.sync.aligned.32x32b.x8.b32 " + registers + ", [%r25+" +
            std::to_string(column) + "];\ntcgen05.wait::ld.sync.aligned;\n";
    for (uint32_t i = 0; i < 8; ++i)
      text += "st.global.b32 [%l6+" + std::to_string(4 * (column + i)) + "], %r" +
              std::to_string(30 + i) + ";\n";
  }
  text += R"(tcgen05.fence::before_thread_sync;
DONE:
bar.sync 0;
@!%p4 bra END;
tcgen05.dealloc.cta_group::1.sync.aligned.b32 %r23, 256;
END:)";
  const std::pair<const char*, std::string> values[] = {
      {"BARRIER", std::to_string(kBarrier)},
      {"SLOT", std::to_string(kSlot)},
      {"UNITS", std::to_string(tile_bytes / 16)},
      {"DESCRIPTOR_A", std::to_string(Descriptor(kBase, p, p.a_mn, p.rows))},
      {"DESCRIPTOR_B", std::to_string(Descriptor(kBase + kB, p, p.b_mn, p.columns))},
      {"INSTRUCTION", std::to_string(p.Instruction())},
      {"KIND", p.type == "tf32" ? "kind::tf32" : "kind::f16"},
      {"ROW_BYTES", std::to_string(4 * p.columns)}};
  for (const auto& [name, value] : values)
    for (size_t at; (at = text.find(name)) != std::string::npos;)
      text.replace(at, std::string(name).size(), value);
  return Header("sm_100a") + ".extern .shared .align 1024 .b8 dyn[];\n" + SimpleKernel("k", text);
}

struct ProductOutcome {
  Outcome outcome;
  int wrong = 0;  ///< Elements.

  /// Everything that was found, or "".
  std::string Trouble() const {
    if (!outcome.status.ok()) return outcome.message();
    std::string all;
    for (const auto* findings : {&outcome.report.races, &outcome.report.lints})
      for (const Finding& finding : *findings) all += finding.message + "\n";
    return wrong ? all + std::to_string(wrong) + " elements are wrong" : all;
  }
};

/// `change` gets the text of the kernel.
ProductOutcome RunProduct(const Product& p, uint64_t seed,
                          const std::function<std::string(std::string)>& change = nullptr) {
  const uint32_t bytes = p.bytes(), depth = p.depth();
  const Matrix a(p.rows, depth, 5), b(p.columns, depth, 6);
  std::vector<uint8_t> shared(2 * kB, 0xEE);
  const auto put = [&](uint32_t at, uint32_t value) { std::memcpy(&shared[at], &value, bytes); };
  for (uint32_t r = 0; r < p.rows; ++r)
    for (uint32_t k = 0; k < depth; ++k)
      put(Place(r, k, bytes, p.swizzle, p.a_mn, p.rows), Encode(p.type, a(r, k)));
  for (uint32_t n = 0; n < p.columns; ++n)
    for (uint32_t k = 0; k < depth; ++k)
      put(kB + Place(n, k, bytes, p.swizzle, p.b_mn, p.columns), Encode(p.type, b(n, k)));
  std::vector<uint32_t> in(shared.size() / 4);
  std::memcpy(in.data(), shared.data(), shared.size());
  std::string text = KernelText(p, 2 * kB);
  if (change) text = change(text);
  ProductOutcome result;
  result.outcome = RunText(text, in, 128 * p.columns,
                           {.block = {160, 1, 1},
                            .shared_bytes = kSharedBytes,
                            .seed = seed,
                            .check_races = true,
                            .max_steps = 1000000});
  if (!result.outcome.status.ok()) return result;
  for (uint32_t r = 0; r < p.rows; ++r)
    for (uint32_t n = 0; n < p.columns; ++n) {
      int want = 0;
      for (uint32_t k = 0; k < depth; ++k) want += 2 * a(r, k) * b(n, k);
      if (p.negate) want = -want;
      // Of 64 rows, 16 lie in the 32 lanes of each warp.
      const uint32_t lane = p.rows == 128 ? r : r / 16 * 32 + r % 16;
      const float got = FloatOf(result.outcome.out[lane * p.columns + n]);
      result.wrong += got != static_cast<float>(want);
    }
  return result;
}

TEST(Tcgen05, MultipliesFromSharedMemory) {
  std::vector<Product> products = {{.type = "f16", .negate = true},
                                   {.columns = 256},
                                   {.rows = 64, .columns = 8},
                                   {.columns = 16},
                                   {.rows = 64, .columns = 248}};
  for (const int swizzle : {16, 32, 64, 128})
    for (const char* type : {"f16", "bf16", "tf32"})
      for (const uint32_t rows : {64u, 128u}) {
        products.push_back({.type = type, .rows = rows, .swizzle = swizzle});
        if (std::string(type) == "tf32") continue;
        products.push_back({.type = type, .rows = rows, .swizzle = swizzle, .a_mn = true});
        products.push_back({.type = type, .rows = rows, .swizzle = swizzle, .b_mn = true});
      }
  uint64_t seed = 0;
  for (const Product& product : products)
    EXPECT_EQ(RunProduct(product, seed++ % 4).Trouble(), "") << product.Name();
}

/// Loads of every width, and that a store is seen by them.
TEST(Tcgen05, LoadsWhatWasStored) {
  std::string body =
      "mov.u32 %r1, slot;\ntcgen05.alloc.cta_group::1.sync.aligned.b32 [%r1], 512;\n"
      "ld.shared.b32 %r2, [%r1];\nmul.wide.u32 %l1, %r0, 1024;\nadd.u64 %l1, %out, %l1;\n"
      ".reg .b32 %v<256>;\n";
  for (uint32_t i = 0; i < 256; ++i)
    body += "mad.lo.u32 %v" + std::to_string(i) + ", %r0, 1000, " + std::to_string(i) + ";\n";
  uint32_t stored = 0;
  const auto each = [&](const std::string& name, auto make) {
    uint32_t at = 0;
    for (uint32_t width = 128; width > 0; at += width, width /= 2)
      body += make(name + ".sync.aligned.32x32b.x" + std::to_string(width) + ".b32", at, width);
    stored = at;
  };
  each("tcgen05.st", [](const std::string& name, uint32_t at, uint32_t width) {
    return name + " [%r2+" + std::to_string(at) + "], " + List("%v", at, width) + ";\n";
  });
  body += "tcgen05.wait::st.sync.aligned;\n";
  for (uint32_t i = 0; i < 256; ++i) body += "mov.b32 %v" + std::to_string(i) + ", 0;\n";
  each("tcgen05.ld", [](const std::string& name, uint32_t at, uint32_t width) {
    return name + " " + List("%v", at, width) + ", [%r2+" + std::to_string(at) + "];\n";
  });
  body += "tcgen05.wait::ld.sync.aligned;\n";
  for (uint32_t i = 0; i < stored; ++i)
    body += "st.global.b32 [%l1+" + std::to_string(4 * i) + "], %v" + std::to_string(i) + ";\n";
  body += "tcgen05.dealloc.cta_group::1.sync.aligned.b32 %r2, 512;";
  const std::string text =
      Header("sm_100a") + ".shared .align 4 .b32 slot;\n" + SimpleKernel("k", body);
  const Outcome outcome = RunText(text, {}, 32 * 256, {.block = {32, 1, 1}, .check_races = true});
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  EXPECT_TRUE(outcome.report.clean())
      << (outcome.report.races.empty() ? "" : outcome.report.races[0].message);
  EXPECT_EQ(stored, 255u);
  for (uint32_t lane = 0; lane < 32; ++lane)
    for (uint32_t i = 0; i < stored; ++i)
      ASSERT_EQ(outcome.out[lane * 256 + i], lane * 1000 + i) << lane << " " << i;
}

struct Mistake {
  const char* what;
  const char* find;  ///< A regular expression of the correct kernel,
  const char* replace;
  const char* message;  ///< and a part of what is said then.
};

const Mistake kMistakes[] = {
    {"nothing is allocated", "tcgen05.alloc[^;]*;", "st.shared.b32 [%r21], 0;",
     "column 0 is not allocated"},
    {"the columns are not given back", "tcgen05.dealloc[^;]*;", "", "ends without tcgen05.dealloc"},
    {"too few columns", "(alloc[^;]*\\], )256", "$0132", "is not allocated"},
    {"an odd number of columns", "(alloc[^;]*\\], )256", "$0148", "an allocation of 48 columns"},
    {"other columns are given back", "(dealloc[^;]*, )256", "$01128",
     "no allocation of 128 columns of tensor memory begins"},
    {"another warp gives them back", "(@!)%p4 bra END;",
     "setp.eq.u32 %p6, %r22, 1;\n$01%p6 bra END;", "which warp 4 allocated"},
    {"they are given back before they were read", "DONE:\nbar.sync 0;",
     "DONE:", "is not ordered behind"},
    {"an allocation after the permit was given up",
     "FILL:", "@%p4 tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r21], 32;\nFILL:",
     "relinquished its permit"},
    {"allocations grow", "(tcgen05.alloc[^;]*)256;", "$0132;\n$0164;", "they must not grow"},
    {"more columns than there are", "(tcgen05.alloc[^;]*256;)", "$01\n$01\n$01",
     "free columns of tensor memory: 256"},
    {"lanes of another warp", "shl.b32 %r25, %r22, 21", "mov.b32 %r25, 0",
     "this warp has lanes 32 to 63"},
    {"nobody waits for the commit", "@!%p1 bra READ;\n@%p4", "@%p4", "wait for its tcgen05.commit"},
    {"no commit", "tcgen05.commit[^;]*;", "", "deadlock"},
    {"a commit before the second product",
     "(setp.eq.u32 %p3[^@]*?mma[^;]*;\n)(tcgen05.commit[^;]*;\n)", "$02$01",
     "wait for its tcgen05.commit"},
    {"another lane commits", "(tcgen05.commit[^;]*;\n)READ:",
     "READ:\nsetp.eq.u32 %p6, %r0, 129;\n@%p6 $01@!%p6 bra AGAIN;\nAGAIN:",
     "does not wait for the products of lane 0"},
    {"no fence behind the wait", "@%p4 bra DONE;\ntcgen05.fence::after_thread_sync;",
     "@%p4 bra DONE;", "needs tcgen05.fence::after_thread_sync"},
    {"the loads are not waited for", "tcgen05.wait::ld[^;]*;", "", "wait with tcgen05.wait::ld"},
    {"no proxy fence between the stores and the products", "fence.proxy.async[^;]*;", "",
     "needs fence.proxy.async"},
    {"a tile is written while products read it", "READ:([^@]*@!%p1 bra )READ",
     "READ:\nsetp.eq.u32 %p6, %r0, 0;\n@%p6 st.shared.b32 [%r1], %r0;\nWAIT:$01WAIT",
     "is not ordered behind"},
    {"the accumulator is not zeroed", "setp.ne.u32 %p2, %r0, 128", "setp.eq.u32 %p2, %r0, 128",
     "elements are wrong"},
    {"the sum is dropped", "setp.eq.u32 %p3, %r0, 128", "setp.ne.u32 %p3, %r0, 128",
     "elements are wrong"},
    {"a tile past the end of shared memory", "(mov.b64 %l3, )(\\d+)", "$0170370899328000",
     "a matrix reaches shared memory"},
    {"a descriptor of wgmma", "(mov.b64 %l3, )(\\d+)", "$0168719476864", "bits 46-48"},
    {"a product of 96 rows", "(mov.b32 %r24, )(\\d+)", "$01101711888", "96 rows high"},
    {"sums in f16", "(mov.b32 %r24, )(\\d+)", "$01135266304", "summed in f32"},
    {"an accumulator at another lane", "(kind::f16 \\[%r23)\\]", "$01+65536]",
     "an accumulator at lane 1"},
    {"a store that nobody waited for", "tcgen05.fence::before_thread_sync;",
     "tcgen05.st.sync.aligned.32x32b.x1.b32 [%r25], %r30;\n"
     "tcgen05.ld.sync.aligned.32x32b.x1.b32 %r31, [%r25];\ntcgen05.wait::ld.sync.aligned;",
     "wait with tcgen05.wait::st"},
};

TEST(Tcgen05, FindsMistakes) {
  for (const Mistake& mistake : kMistakes) {
    bool changed = false;
    const auto change = [&](const std::string& text) {
      std::string result = std::regex_replace(text, std::regex(mistake.find), mistake.replace);
      changed = result != text;
      return result;
    };
    const std::string trouble = RunProduct({}, 0, change).Trouble();
    EXPECT_TRUE(changed) << mistake.what;
    EXPECT_NE(trouble.find(mistake.message), std::string::npos)
        << mistake.what << ": '" << trouble << "' has no '" << mistake.message << "'";
  }
}

/// What is not executed is refused, and never taken for something else.
TEST(Tcgen05, RefusesWhatItHasNot) {
  for (const char* instruction : {"tcgen05.mma.cta_group::2.kind::f16 [%r1], %l1, %l2, %r2, %p1",
                                  "tcgen05.mma.cta_group::1.kind::f8f6f4 [%r1], %l1, %l2, %r2, %p1",
                                  "tcgen05.mma.ws.cta_group::1.kind::f16 [%r1], %l1, %l2, %r2, %p1",
                                  "tcgen05.cp.cta_group::1.128x256b [%r1], %l1",
                                  "tcgen05.ld.sync.aligned.16x64b.x1.b32 {%r1}, [%r2]",
                                  "tcgen05.ld.sync.aligned.32x32b.x1.pack::16b.b32 {%r1}, [%r2]"}) {
    const Outcome outcome = RunBody(std::string(instruction) + ";", {}, 1);
    EXPECT_EQ(outcome.status.code(), StatusCode::kUnsupported) << instruction;
  }
  // A of tensor memory has an address where a descriptor is wanted.
  EXPECT_FALSE(RunBody("tcgen05.mma.cta_group::1.kind::f16 [%r1], [%r3], %l2, %r2, %p1;", {}, 1)
                   .status.ok());
}

}  // namespace
}  // namespace quern::ptx

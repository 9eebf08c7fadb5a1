#include "tests/runtime/support/fake_ptx.h"

#include <utility>

#include "runtime/schema/kernel_abi.h"

namespace quern::testing {
namespace {

using schema::GridCount;
using schema::GridFactor;

// Parameters: the arguments, dims (rows, tiles, page table stride, page bytes), ranges.

/// tokens, table, x; blocks of two rows of 8 columns
constexpr char kEmbedBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %tid.x;
  shl.b32 %r0, %r0, 1;
  shr.u32 %r2, %r1, 3;
  add.u32 %r0, %r0, %r2;            // row
  and.b32 %r1, %r1, 7;              // column
  cvt.u64.u32 %d0, %r0;
  setp.ge.u64 %q0, %d0, %p8;
  @%q0 bra DONE;
  shl.b64 %d1, %d0, 2;
  add.u64 %d1, %p0, %d1;
  ld.global.u32 %r3, [%d1];
  mad.lo.u32 %r3, %r3, 8, %r1;
  mul.wide.u32 %d2, %r3, 4;
  add.u64 %d2, %p1, %d2;
  ld.global.f32 %f0, [%d2];
  mul.rn.f32 %f0, %f0, SCALE;
  mad.lo.u32 %r4, %r0, 8, %r1;
  mul.wide.u32 %d3, %r4, 4;
  add.u64 %d3, %p2, %d3;
  st.global.f32 [%d3], %f0;
DONE:
  ret;
)";

/// x, w (rows of this share) -> columns of y; grid (columns / 4, rows)
constexpr char kProjectBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.y;            // row
  mad.lo.u32 %r0, %r0, 4, %r1;      // column of the share
  cvt.u64.u32 %d0, %r0;
  add.u64 %d1, %d0, %p7;            // column
  setp.ge.u64 %q0, %d1, %p8;
  @%q0 bra DONE;
  mul.wide.u32 %d2, %r2, 32;
  add.u64 %d3, %p0, %d2;            // x
  shl.b64 %d4, %d0, 5;
  add.u64 %d4, %p1, %d4;            // w
  mov.f32 %f0, 0f00000000;
  mov.u32 %r3, 0;
LOOP:
  ld.global.f32 %f1, [%d3];
  ld.global.f32 %f2, [%d4];
  mul.rn.f32 %f1, %f1, %f2;
  add.rn.f32 %f0, %f0, %f1;
  add.u64 %d3, %d3, 4;
  add.u64 %d4, %d4, 4;
  add.u32 %r3, %r3, 1;
  setp.lt.u32 %q1, %r3, 8;
  @%q1 bra LOOP;
  shl.b64 %d5, %d1, 2;
  add.u64 %d5, %d5, %d2;
  add.u64 %d5, %p2, %d5;
  st.global.f32 [%d5], %f0;
DONE:
  ret;
)";

/// q, slots, sequences, page table -> pages; grid (columns of K and V, rows)
constexpr char kAppendBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %ctaid.y;            // row
  mul.wide.u32 %d0, %r1, 4;
  add.u64 %d1, %p1, %d0;
  ld.global.u32 %r2, [%d1];         // slot
  add.u64 %d1, %p2, %d0;
  ld.global.u32 %r3, [%d1];         // sequence
  shr.u32 %r4, %r2, 5;
  cvt.u64.u32 %d2, %r3;
  cvt.u64.u32 %d3, %r4;
  mad.lo.u64 %d2, %d2, %p7, %d3;
  shl.b64 %d2, %d2, 2;
  add.u64 %d2, %p3, %d2;
  ld.global.u32 %r5, [%d2];         // page
  cvt.u64.u32 %d3, %r5;
  mad.lo.u64 %d4, %d3, %p8, %p4;
  and.b32 %r6, %r2, 31;
  mul.wide.u32 %d5, %r6, 32;
  add.u64 %d4, %d4, %d5;            // K of this slot
  sub.u64 %d6, %p10, %p9;           // columns of K
  cvt.u64.u32 %d7, %r0;
  setp.ge.u64 %q0, %d7, %d6;
  add.u64 %d8, %d7, %p9;
  mov.f32 %f1, 0f3F800000;
  @!%q0 bra STORE;
  sub.u64 %d8, %d7, %d6;
  add.u64 %d8, %d8, %p11;
  add.u64 %d4, %d4, 1024;           // V follows 32 slots of K
  mov.f32 %f1, 0f40000000;
STORE:
  shl.b64 %d8, %d8, 2;
  mul.wide.u32 %d9, %r1, 32;
  add.u64 %d9, %p0, %d9;
  add.u64 %d9, %d9, %d8;
  ld.global.f32 %f0, [%d9];
  mul.rn.f32 %f0, %f0, %f1;
  add.u64 %d4, %d4, %d8;
  st.global.f32 [%d4], %f0;
  ret;
)";

/// slots, tiles, page table, pages, states -> columns of a; grid (tiles, columns), a thread a row
constexpr char kAttendBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %ctaid.y;
  mov.u32 %r2, %tid.x;
  mul.wide.u32 %d0, %r0, 16;
  add.u64 %d0, %p1, %d0;
  ld.global.u32 %r3, [%d0];         // first row
  ld.global.u32 %r4, [%d0+4];       // rows
  ld.global.u32 %r5, [%d0+8];       // sequence
  setp.ge.u32 %q0, %r2, %r4;
  @%q0 bra DONE;
  add.u32 %r3, %r3, %r2;            // row
  cvt.u64.u32 %d1, %r1;
  add.u64 %d1, %d1, %p10;
  shl.b64 %d1, %d1, 2;              // column in bytes
  mul.wide.u32 %d2, %r3, 4;
  add.u64 %d2, %p0, %d2;
  ld.global.u32 %r6, [%d2];         // own slot
  cvt.u64.u32 %d3, %r5;
  mul.lo.u64 %d3, %d3, %p8;
  shl.b64 %d3, %d3, 2;
  add.u64 %d3, %p2, %d3;            // this sequence's pages
  mov.u32 %r7, 0;
  mov.f32 %f0, 0f00000000;
LOOP:
  shr.u32 %r8, %r7, 5;
  mul.wide.u32 %d4, %r8, 4;
  add.u64 %d4, %d3, %d4;
  ld.global.u32 %r9, [%d4];
  cvt.u64.u32 %d5, %r9;
  mad.lo.u64 %d5, %d5, %p9, %p3;
  and.b32 %r10, %r7, 31;
  mul.wide.u32 %d6, %r10, 32;
  add.u64 %d5, %d5, %d6;
  add.u64 %d5, %d5, %d1;
  ld.global.f32 %f1, [%d5];
  ld.global.f32 %f2, [%d5+1024];
  add.u32 %r7, %r7, 1;
  cvt.rn.f32.u32 %f3, %r7;
  mov.f32 %f4, 0f3E800000;
  div.rn.f32 %f3, %f4, %f3;
  mul.rn.f32 %f1, %f1, %f2;
  mul.rn.f32 %f1, %f1, %f3;
  add.rn.f32 %f0, %f0, %f1;
  setp.le.u32 %q1, %r7, %r6;
  @%q1 bra LOOP;
  mul.wide.u32 %d7, %r3, 32;
  add.u64 %d7, %p4, %d7;
  add.u64 %d7, %d7, %d1;
  st.global.f32 [%d7], %f0;
DONE:
  ret;
)";

/// columns of a, w (columns of this share) -> this share's partial result; grid (8 columns, rows)
constexpr char kReduceIntoBody[] = R"(
  mov.u32 %r0, %ctaid.x;            // column
  mov.u32 %r1, %ctaid.y;            // row
  sub.u64 %d0, %p8, %p7;            // width
  mul.wide.u32 %d1, %r1, 32;
  shl.b64 %d2, %p7, 2;
  add.u64 %d3, %p0, %d1;
  add.u64 %d3, %d3, %d2;            // a
  cvt.u64.u32 %d4, %r0;
  mul.lo.u64 %d5, %d4, %d0;
  shl.b64 %d5, %d5, 2;
  add.u64 %d5, %p1, %d5;            // w
  mov.f32 %f0, 0f00000000;
  mov.u64 %d6, 0;
LOOP:
  setp.ge.u64 %q0, %d6, %d0;
  @%q0 bra STORE;
  ld.global.f32 %f1, [%d3];
  ld.global.f32 %f2, [%d5];
  mul.rn.f32 %f1, %f1, %f2;
  add.rn.f32 %f0, %f0, %f1;
  add.u64 %d3, %d3, 4;
  add.u64 %d5, %d5, 4;
  add.u64 %d6, %d6, 1;
  bra LOOP;
STORE:
  shl.b64 %d4, %d4, 2;
  add.u64 %d1, %p2, %d1;
  add.u64 %d1, %d1, %d4;
  st.global.f32 [%d1], %f0;
  ret;
)";

/// x, partial results, number of shares -> x; a block a row
constexpr char kAddBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %tid.x;
  mad.lo.u32 %r2, %r0, 8, %r1;
  mul.wide.u32 %d0, %r2, 4;
  add.u64 %d1, %p0, %d0;
  ld.global.f32 %f0, [%d1];
  ld.global.f32 %f1, [%p2];
  cvt.rzi.u32.f32 %r3, %f1;         // shares
  add.u64 %d2, %p1, %d0;
  shl.b64 %d3, %p3, 5;              // bytes of a copy
  mov.u32 %r4, 0;
LOOP:
  ld.global.f32 %f2, [%d2];
  add.rn.f32 %f0, %f0, %f2;
  add.u64 %d2, %d2, %d3;
  add.u32 %r4, %r4, 1;
  setp.lt.u32 %q0, %r4, %r3;
  @%q0 bra LOOP;
  st.global.f32 [%d1], %f0;
  ret;
)";

/// x, logit rows -> y; a block a row
constexpr char kSelectBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d0, %r0, 4;
  add.u64 %d0, %p1, %d0;
  ld.global.u32 %r2, [%d0];
  mad.lo.u32 %r2, %r2, 8, %r1;
  mul.wide.u32 %d1, %r2, 4;
  add.u64 %d1, %p0, %d1;
  ld.global.f32 %f0, [%d1];
  mad.lo.u32 %r3, %r0, 8, %r1;
  mul.wide.u32 %d2, %r3, 4;
  add.u64 %d2, %p2, %d2;
  st.global.f32 [%d2], %f0;
  ret;
)";

/// y, head (rows of this share), bias -> columns of the logits; grid (columns / 32, rows).
/// A row of y is read once into shared memory.
constexpr char kHeadBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.y;            // row
  setp.ge.u32 %q0, %r1, 8;
  @%q0 bra LOADED;
  mad.lo.u32 %r3, %r2, 8, %r1;
  mul.wide.u32 %d0, %r3, 4;
  add.u64 %d0, %p0, %d0;
  ld.global.f32 %f0, [%d0];
  mov.u32 %r4, row;
  shl.b32 %r5, %r1, 2;
  add.u32 %r4, %r4, %r5;
  st.shared.f32 [%r4], %f0;
LOADED:
  bar.sync 0;
  mad.lo.u32 %r6, %r0, 32, %r1;     // column of the share
  cvt.u64.u32 %d1, %r6;
  sub.u64 %d2, %p9, %p8;
  setp.ge.u64 %q1, %d1, %d2;
  @%q1 bra DONE;
  shl.b64 %d3, %d1, 5;
  add.u64 %d3, %p1, %d3;            // w
  mov.u32 %r7, row;
  mov.f32 %f1, 0f00000000;
  mov.u32 %r8, 0;
LOOP:
  ld.shared.f32 %f2, [%r7];
  ld.global.f32 %f3, [%d3];
  mul.rn.f32 %f2, %f2, %f3;
  add.rn.f32 %f1, %f1, %f2;
  add.u32 %r7, %r7, 4;
  add.u64 %d3, %d3, 4;
  add.u32 %r8, %r8, 1;
  setp.lt.u32 %q2, %r8, 8;
  @%q2 bra LOOP;
  add.u64 %d4, %d1, %p8;            // column
  shl.b64 %d4, %d4, 2;
  add.u64 %d5, %p2, %d4;
  ld.global.f32 %f4, [%d5];
  add.rn.f32 %f1, %f1, %f4;
  mul.wide.u32 %d6, %r2, 1088;      // bytes of a row of logits
  add.u64 %d6, %p3, %d6;
  add.u64 %d6, %d6, %d4;
  st.global.f32 [%d6], %f1;
DONE:
  ret;
)";

/// logits, values, tokens: the COUNT best of a row, by one thread that looks for the largest key
/// below the one before
constexpr char kTopBody[] = R"(
  mov.u32 %r0, %ctaid.x;
  mul.wide.u32 %d0, %r0, 1088;      // bytes of a row of logits
  add.u64 %d0, %p0, %d0;
  mov.u64 %d1, 0x7fffffffffffffff;
  mov.u32 %r1, 0;
NEXT:
  mov.u64 %d2, 0x8000000000000000;
  mov.u32 %r2, 0;
SCAN:
  mul.wide.u32 %d3, %r2, 4;
  add.u64 %d3, %d0, %d3;
  ld.global.u32 %r3, [%d3];
  sub.u32 %r4, 0x7fffffff, %r3;
  setp.lt.s32 %q0, %r3, 0;
  selp.b32 %r3, %r4, %r3, %q0;      // in the order of the floats
  not.b32 %r4, %r2;
  mov.b64 %d4, {%r4, %r3};
  setp.lt.s64 %q1, %d4, %d1;
  max.s64 %d5, %d2, %d4;
  selp.b64 %d2, %d5, %d2, %q1;
  add.u32 %r2, %r2, 1;
  setp.lt.u32 %q2, %r2, 272;
  @%q2 bra SCAN;
  mov.u64 %d1, %d2;
  cvt.u32.u64 %r5, %d2;
  not.b32 %r5, %r5;                 // token
  mul.wide.u32 %d6, %r5, 4;
  add.u64 %d6, %d0, %d6;
  ld.global.u32 %r6, [%d6];
  mad.lo.u32 %r7, %r0, COUNT, %r1;
  mul.wide.u32 %d7, %r7, 4;
  add.u64 %d8, %p1, %d7;
  st.global.u32 [%d8], %r6;
  add.u64 %d8, %p2, %d7;
  st.global.u32 [%d8], %r5;
  add.u32 %r1, %r1, 1;
  setp.lt.u32 %q3, %r1, COUNT;
  @%q3 bra NEXT;
  ret;
)";

std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from)) {
    text.replace(at, from.size(), to);
  }
  return text;
}

struct Launch {
  FakeKernel kernel;
  const char* entry;
  uint32_t block_threads;
  uint32_t shared_bytes;
  std::vector<GridFactor> grid;
};

std::vector<Launch> Launches() {
  const GridFactor rows(1, GridCount::Rows);
  return {
      {kProject, "project", 4, 0, {{4, GridCount::Columns}, rows}},
      {kAppend, "append", 1, 0, {{1, GridCount::Columns}, rows}},
      {kAttend, "attend", 16, 0, {{1, GridCount::AttentionTiles}, {1, GridCount::Columns0}}},
      {kReduceInto, "reduce_into", 1, 0, {{8, GridCount::One}, rows}},
      {kAdd, "add", 8, 0, {rows}},
      {kSelect, "select", 8, 0, {rows}},
      {kHead, "head", 32, 32, {{32, GridCount::Columns}, rows}},
  };
}

std::unique_ptr<schema::GpuKernelCodeT> Code(uint32_t target, schema::Role role, std::string entry,
                                             const Launch& launch) {
  auto code = std::make_unique<schema::GpuKernelCodeT>();
  code->target = target;
  code->role = role;
  code->entry = std::move(entry);
  code->block_threads = launch.block_threads;
  code->shared_bytes = launch.shared_bytes;
  code->grid = launch.grid;
  return code;
}

void AddCode(schema::KernelT& kernel, uint32_t target, schema::Role role, std::string entry,
             const Launch& launch) {
  kernel.gpu_codes.push_back(Code(target, role, std::move(entry), launch));
}

void AddSamplers(schema::ManifestT& manifest, uint32_t target) {
  const Launch launch = {kHead, "", 1, 0, {{1, GridCount::Rows}}};
  for (size_t i = 0; i < std::size(kFakeCandidates); ++i) {
    if (manifest.samplers.size() == i) {
      manifest.samplers.push_back(std::make_unique<schema::GpuSamplerT>());
      manifest.samplers[i]->candidates = kFakeCandidates[i];
    }
    manifest.samplers[i]->codes.push_back(
        Code(target, schema::Role::Decode, "top_" + std::to_string(kFakeCandidates[i]), launch));
  }
}

}  // namespace

std::string PtxHeader(std::string_view target, uint32_t version) {
  return ".version " + std::to_string(version / 10) + "." + std::to_string(version % 10) +
         "\n.target " + std::string(target) + "\n.address_size 64\n";
}

std::string PtxEntry(std::string_view name, int parameters, std::string_view body) {
  const std::string prefix = std::string(name) + "_param_";
  std::string text = ".visible .entry " + std::string(name) + "(\n";
  for (int i = 0; i < parameters; ++i) {
    text += "  .param .u64 " + prefix + std::to_string(i) + (i + 1 < parameters ? ",\n" : "\n");
  }
  text +=
      ")\n{\n  .reg .b64 %p<32>;\n  .reg .b64 %d<32>;\n  .reg .b32 %r<32>;\n"
      "  .reg .f32 %f<32>;\n  .reg .pred %q<32>;\n";
  for (int i = 0; i < parameters; ++i) {
    const std::string number = std::to_string(i);
    text += "  ld.param.u64 %p" + number + ", [" + prefix + number + "];\n";
  }
  return text + std::string(body) + "}\n";
}

namespace {

std::string Tops() {
  std::string text;
  for (uint32_t count : kFakeCandidates) {
    const std::string number = std::to_string(count);
    text += PtxEntry("top_" + number, 9, Replaced(kTopBody, "COUNT", number));
  }
  return text;
}

}  // namespace

std::string FakePtx(std::string_view target, uint32_t version) {
  return PtxHeader(target, version) + ".extern .shared .align 16 .b8 row[];\n" +
         PtxEntry("embed_decode", 9, Replaced(kEmbedBody, "SCALE", "0f3FC00000")) +
         PtxEntry("embed_prefill", 9, Replaced(kEmbedBody, "SCALE", "0f3F800000")) +
         PtxEntry("project", 9, kProjectBody) + PtxEntry("append", 13, kAppendBody) +
         PtxEntry("attend", 12, kAttendBody) + PtxEntry("reduce_into", 9, kReduceIntoBody) +
         PtxEntry("add", 9, kAddBody) + PtxEntry("select", 9, kSelectBody) +
         PtxEntry("head", 10, kHeadBody) + Tops();
}

void AddGpuTargets(FakeModel& model) {
  using schema::Role;
  const struct {
    const char* name;
    uint32_t sm;
    bool exact;
    uint32_t ptx;
  } targets[] = {{"sm_80", 80, false, 80}, {"sm_90a", 90, true, 83}};
  for (const auto& each : targets) {
    const auto index = static_cast<uint32_t>(model.manifest.targets.size());
    auto target = std::make_unique<schema::TargetT>();
    target->name = each.name;
    target->kind = schema::TargetKind::Gpu;
    target->gpu_sm = each.sm;
    target->gpu_exact = each.exact;
    target->ptx_version = each.ptx;
    target->code_segment = 3 + static_cast<uint32_t>(model.ptx.size());  // behind the tokenizer
    model.manifest.targets.push_back(std::move(target));
    model.ptx.push_back(FakePtx(each.name, each.ptx));
    AddSamplers(model.manifest, index);
    const Launch embed = {kEmbed, "", 16, 0, {{2, GridCount::Rows}}};
    AddCode(*model.manifest.kernels[kEmbed], index, Role::Decode, "embed_decode", embed);
    AddCode(*model.manifest.kernels[kEmbed], index, Role::Prefill, "embed_prefill", embed);
    for (const Launch& launch : Launches()) {
      for (Role role : {Role::Decode, Role::Prefill}) {
        AddCode(*model.manifest.kernels[launch.kernel], index, role, launch.entry, launch);
      }
    }
  }
}

}  // namespace quern::testing

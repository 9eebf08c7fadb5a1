// Every arithmetic instruction against its definition in the PTX ISA, written in plain C++.
#include <cmath>

#include "tests/runtime/device/ptx_emulator/instruction_case.h"
#include "tests/runtime/device/ptx_emulator/run_kernel.h"

namespace quern::ptx {
namespace {

const Case kCases[] = {
    // Integers
    {"add.s32", "www", [](U a, U b, U) { return a + b; }},
    {"add.u64", "lll", [](U a, U b, U) { return a + b; }},
    {"max.f32", "ffff",
     [](U a, U b, U c) { return B(std::fmax(F(a), std::fmax(F(b), F(c)))); }},
    {"min.f32", "ffff",
     [](U a, U b, U c) { return B(std::fmin(F(a), std::fmin(F(b), F(c)))); }},
    {"add.rn.f32.f16", "fef", [](U a, U b, U) { return B(static_cast<float>(H(a)) + F(b)); }},
    {"sub.rn.f32.f16", "fef", [](U a, U b, U) { return B(static_cast<float>(H(a)) - F(b)); }},
    {"fma.rn.f32.f16", "feef",
     [](U a, U b, U c) {
       return B(std::fma(static_cast<float>(H(a)), static_cast<float>(H(b)), F(c)));
     }},
    {"add.rn.f32.bf16", "fzf", [](U a, U b, U) { return B(static_cast<float>(FromBf16(a)) + F(b)); }},
    {"sub.rn.f32.bf16", "fzf", [](U a, U b, U) { return B(static_cast<float>(FromBf16(a)) - F(b)); }},
    {"fma.rn.f32.bf16", "fzzf",
     [](U a, U b, U c) {
       return B(std::fma(static_cast<float>(FromBf16(a)), static_cast<float>(FromBf16(b)), F(c)));
     }},
    {"add.s16", "hhh", [](U a, U b, U) { return a + b; }},
    {"add.sat.s32", "www", [](U a, U b, U) { return static_cast<U>(std::clamp<int64_t>(int64_t{S(a)} + S(b), INT32_MIN, INT32_MAX)); }},
    {"sub.u32", "www", [](U a, U b, U) { return a - b; }},
    {"sub.s64", "lll", [](U a, U b, U) { return a - b; }},
    {"mul.lo.u32", "www", [](U a, U b, U) { return a * b; }},
    {"mul.lo.s64", "lll", [](U a, U b, U) { return a * b; }},
    {"mul.lo.u16", "hhh", [](U a, U b, U) { return a * b; }},
    {"mul.hi.u32", "www", [](U a, U b, U) { return (U{W(a)} * W(b)) >> 32; }},
    {"mul.hi.s32", "www", [](U a, U b, U) { return static_cast<U>((int64_t{S(a)} * S(b)) >> 32); }},
    {"mul.hi.u64", "lll", [](U a, U b, U) { return static_cast<U>((static_cast<unsigned __int128>(a) * b) >> 64); }},
    {"mul.hi.s64", "lll", [](U a, U b, U) { return static_cast<U>((static_cast<__int128>(L(a)) * L(b)) >> 64); }},
    {"mul.wide.u32", "lww", [](U a, U b, U) { return U{W(a)} * W(b); }},
    {"mul.wide.s32", "lww", [](U a, U b, U) { return static_cast<U>(int64_t{S(a)} * S(b)); }},
    {"mul.wide.s16", "whh", [](U a, U b, U) { return static_cast<U>(int32_t{static_cast<int16_t>(a)} * static_cast<int16_t>(b)); }},
    {"mul.wide.u16", "whh", [](U a, U b, U) { return U{uint32_t(a & 0xffff) * uint32_t(b & 0xffff)}; }},
    {"mad.lo.s32", "wwww", [](U a, U b, U c) { return a * b + c; }},
    {"mad.lo.u64", "llll", [](U a, U b, U c) { return a * b + c; }},
    {"mad.hi.u32", "wwww", [](U a, U b, U c) { return ((U{W(a)} * W(b)) >> 32) + c; }},
    {"mad.wide.u32", "lwwl", [](U a, U b, U c) { return U{W(a)} * W(b) + c; }},
    {"mad.wide.s32", "lwwl", [](U a, U b, U c) { return static_cast<U>(int64_t{S(a)} * S(b)) + c; }},
    {"div.u32", "www", [](U a, U b, U) { return W(b) ? W(a) / W(b) : ~U{0}; }},
    {"div.s32", "www", [](U a, U b, U) { return !W(b) ? ~U{0} : static_cast<U>(int64_t{S(a)} / S(b)); }},
    {"div.u64", "lll", [](U a, U b, U) { return b ? a / b : ~U{0}; }},
    {"rem.u32", "www", [](U a, U b, U) { return W(b) ? W(a) % W(b) : W(a); }},
    {"rem.s32", "www", [](U a, U b, U) { return !W(b) ? W(a) : static_cast<U>(int64_t{S(a)} % S(b)); }},
    {"min.s32", "www", [](U a, U b, U) { return static_cast<U>(std::min(S(a), S(b))); }},
    {"max.s32", "www", [](U a, U b, U) { return static_cast<U>(std::max(S(a), S(b))); }},
    {"min.u32", "www", [](U a, U b, U) { return U{std::min(W(a), W(b))}; }},
    {"max.u64", "lll", [](U a, U b, U) { return std::max(a, b); }},
    {"min.s64", "lll", [](U a, U b, U) { return static_cast<U>(std::min(L(a), L(b))); }},
    {"max.s16", "hhh", [](U a, U b, U) { return static_cast<U>(std::max(static_cast<int16_t>(a), static_cast<int16_t>(b))); }},
    {"abs.s32", "ww", [](U a, U, U) { return static_cast<U>(std::llabs(int64_t{S(a)})); }},
    {"neg.s32", "ww", [](U a, U, U) { return 0 - a; }},
    {"neg.s64", "ll", [](U a, U, U) { return 0 - a; }},
    {"sad.u32", "wwww", [](U a, U b, U c) { return (W(a) < W(b) ? W(b) - W(a) : W(a) - W(b)) + c; }},
    {"popc.b32", "ww", [](U a, U, U) { return U(std::popcount(W(a))); }},
    {"popc.b64", "wl", [](U a, U, U) { return U(std::popcount(a)); }},
    {"clz.b32", "ww", [](U a, U, U) { return U(std::countl_zero(W(a))); }},
    {"clz.b64", "wl", [](U a, U, U) { return U(std::countl_zero(a)); }},
    {"brev.b32", "ww", [](U a, U, U) { U r = 0; for (int i = 0; i < 32; ++i) if (a >> i & 1) r |= U{1} << (31 - i); return r; }},
    {"bfind.u32", "ww", [](U a, U, U) { return W(a) ? U(31 - std::countl_zero(W(a))) : ~U{0}; }},
    {"bfind.shiftamt.u32", "ww", [](U a, U, U) { return W(a) ? U(std::countl_zero(W(a))) : ~U{0}; }},
    {"bfind.s32", "ww", [](U a, U, U) { const uint32_t m = S(a) < 0 ? ~W(a) : W(a); return m ? U(31 - std::countl_zero(m)) : ~U{0}; }},
    // The ISA gives bfe and bfi bit by bit.
    {"bfe.u32", "wwnn", [](U a, U b, U c) { U d = 0; for (U i = 0; i < c; ++i) if (b + i < 32 && a >> (b + i) & 1) d |= U{1} << i; return d; }},
    {"bfe.s32", "wwnn", [](U a, U b, U c) {
       const U top = std::min<U>(b + c - 1, 31); const U sign = c == 0 ? 0 : a >> top & 1; U d = 0;
       for (U i = 0; i < 32; ++i) { const U bit = i < c && b + i < 32 ? a >> (b + i) & 1 : sign; d |= bit << i; } return d; }},
    {"bfe.u64", "llnn", [](U a, U b, U c) { U d = 0; for (U i = 0; i < c; ++i) if (b + i < 64 && a >> (b + i) & 1) d |= U{1} << i; return d; }},
    {"and.b32", "www", [](U a, U b, U) { return a & b; }},
    {"or.b64", "lll", [](U a, U b, U) { return a | b; }},
    {"xor.b16", "hhh", [](U a, U b, U) { return a ^ b; }},
    {"not.b32", "ww", [](U a, U, U) { return ~a; }},
    {"cnot.b32", "ww", [](U a, U, U) { return U{W(a) == 0}; }},
    {"and.pred", "ppp", [](U a, U b, U) { return a & b; }},
    {"xor.pred", "ppp", [](U a, U b, U) { return a ^ b; }},
    {"not.pred", "pp", [](U a, U, U) { return a ^ 1; }},
    {"shl.b32", "wwn", [](U a, U b, U) { return b > 31 ? 0 : a << b; }},
    {"shl.b64", "lln", [](U a, U b, U) { return b > 63 ? 0 : a << b; }},
    {"shl.b16", "hhn", [](U a, U b, U) { return b > 15 ? 0 : a << b; }},
    {"shr.u32", "wwn", [](U a, U b, U) { return b > 31 ? 0 : U{W(a) >> b}; }},
    {"shr.s32", "wwn", [](U a, U b, U) { return static_cast<U>(S(a) >> std::min<U>(b, 31)); }},
    {"shr.s64", "lln", [](U a, U b, U) { return static_cast<U>(L(a) >> std::min<U>(b, 63)); }},
    {"shr.b32", "wwn", [](U a, U b, U) { return b > 31 ? 0 : U{W(a) >> b}; }},
    {"shf.l.wrap.b32", "wwwn", [](U a, U b, U c) { return ((b << 32 | W(a)) << (c & 31)) >> 32; }},
    {"shf.r.wrap.b32", "wwwn", [](U a, U b, U c) { return (b << 32 | W(a)) >> (c & 31); }},
    {"shf.l.clamp.b32", "wwwn", [](U a, U b, U c) { return ((b << 32 | W(a)) << std::min<U>(c, 32)) >> 32; }},
    {"shf.r.clamp.b32", "wwwn", [](U a, U b, U c) { return (b << 32 | W(a)) >> std::min<U>(c, 32); }},
    {"prmt.b32", "wwww", [](U a, U b, U c) {
       U d = 0; for (int i = 0; i < 4; ++i) { const U s = c >> (4 * i); U byte = ((b << 32 | W(a)) >> (8 * (s & 7))) & 255; if (s & 8) byte = byte & 128 ? 255 : 0; d |= byte << (8 * i); } return d; }},
    {"prmt.b32.f4e", "wwww", [](U a, U b, U c) { return (b << 32 | W(a)) >> (8 * (c & 3)); }},
    {"prmt.b32.rc8", "wwww", [](U a, U, U c) { return ((W(a) >> (8 * (c & 3))) & 255) * U{0x01010101}; }},
    {"dp4a.s32.s32", "wwww", [](U a, U b, U c) { U d = c; for (int i = 0; i < 32; i += 8) d += static_cast<U>(int8_t(a >> i) * int8_t(b >> i)); return d; }},
    {"dp4a.u32.s32", "wwww", [](U a, U b, U c) { U d = c; for (int i = 0; i < 32; i += 8) d += static_cast<U>(uint8_t(a >> i) * int8_t(b >> i)); return d; }},
    {"dp2a.lo.s32.s32", "wwww", [](U a, U b, U c) { return c + static_cast<U>(int16_t(a) * int8_t(b)) + static_cast<U>(int16_t(a >> 16) * int8_t(b >> 8)); }},
    {"dp2a.hi.u32.u32", "wwww", [](U a, U b, U c) { return c + U{uint16_t(a)} * uint8_t(b >> 16) + U{uint16_t(a >> 16)} * uint8_t(b >> 24); }},
    // Floats
    {"add.f32", "fff", [](U a, U b, U) { return B(F(a) + F(b)); }},
    {"add.ftz.f32", "fff", [](U a, U b, U) {
       const auto flush = [](float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; };
       return B(flush(flush(F(a)) + flush(F(b)))); }},
    {"sub.f32", "fff", [](U a, U b, U) { return B(F(a) - F(b)); }},
    {"mul.f32", "fff", [](U a, U b, U) { return B(F(a) * F(b)); }},
    {"fma.rn.f32", "ffff", [](U a, U b, U c) { return B(std::fma(F(a), F(b), F(c))); }},
    {"div.rn.f32", "fff", [](U a, U b, U) { return B(F(a) / F(b)); }},
    {"rcp.rn.f32", "ff", [](U a, U, U) { return B(1.0f / F(a)); }},
    {"sqrt.rn.f32", "ff", [](U a, U, U) { return B(std::sqrt(F(a))); }},
    {"min.f32", "fff", [](U a, U b, U) { return B(std::isnan(F(a)) ? F(b) : std::isnan(F(b)) ? F(a) : F(a) == F(b) ? F(a | b) : std::min(F(a), F(b))); }},
    {"max.f32", "fff", [](U a, U b, U) { return B(std::isnan(F(a)) ? F(b) : std::isnan(F(b)) ? F(a) : F(a) == F(b) ? F(a & b) : std::max(F(a), F(b))); }},
    {"max.NaN.f32", "fff", [](U a, U b, U) { return std::isnan(F(a)) || std::isnan(F(b)) ? U{0x7fffffff} : B(F(a) == F(b) ? F(a & b) : std::max(F(a), F(b))); }},
    {"abs.f32", "ff", [](U a, U, U) { return a & 0x7fffffff; }},
    {"neg.f32", "ff", [](U a, U, U) { return a ^ 0x80000000; }},
    {"copysign.f32", "fff", [](U a, U b, U) { return (b & 0x7fffffff) | (a & 0x80000000); }},
    {"testp.finite.f32", "pf", [](U a, U, U) { return U{std::isfinite(F(a))}; }},
    {"testp.subnormal.f32", "pf", [](U a, U, U) { return U{std::fpclassify(F(a)) == FP_SUBNORMAL}; }},
    {"add.f64", "ggg", [](U a, U b, U) { return B(D(a) + D(b)); }},
    {"fma.rn.f64", "gggg", [](U a, U b, U c) { return B(std::fma(D(a), D(b), D(c))); }},
    {"add.f16", "eee", [](U a, U b, U) { return B(static_cast<_Float16>(float(H(a)) + float(H(b)))); }},
    {"mul.f16x2", "xxx", [](U a, U b, U) { return Each16(a, b, 0, [](U x, U y, U) { return B(static_cast<_Float16>(float(H(x)) * float(H(y)))); }); }},
    {"sub.f16x2", "xxx", [](U a, U b, U) { return Each16(a, b, 0, [](U x, U y, U) { return B(static_cast<_Float16>(float(H(x)) - float(H(y)))); }); }},
    {"fma.rn.f16", "eeee", [](U a, U b, U c) { return B(static_cast<_Float16>(static_cast<double>(H(a)) * H(b) + H(c))); }},
    {"add.rn.bf16", "zzz", [](U a, U b, U) { return ToBf16(FromBf16(a) + FromBf16(b)); }},
    {"mul.bf16x2", "yyy", [](U a, U b, U) { return Each16(a, b, 0, [](U x, U y, U) { return ToBf16(FromBf16(x) * FromBf16(y)); }); }},
    {"neg.f16x2", "xx", [](U a, U, U) { return a ^ 0x80008000; }},
    // Comparison and selection
    {"setp.lt.s32", "pww", [](U a, U b, U) { return U{S(a) < S(b)}; }},
    {"setp.lo.u32", "pww", [](U a, U b, U) { return U{W(a) < W(b)}; }},
    {"setp.ge.u64", "pll", [](U a, U b, U) { return U{a >= b}; }},
    {"setp.ne.b16", "phh", [](U a, U b, U) { return U{(a & 0xffff) != (b & 0xffff)}; }},
    {"setp.lt.f32", "pff", [](U a, U b, U) { return U{F(a) < F(b)}; }},
    {"setp.geu.f32", "pff", [](U a, U b, U) { return U{!(F(a) < F(b))}; }},
    {"setp.ne.f32", "pff", [](U a, U b, U) { return U{F(a) < F(b) || F(a) > F(b)}; }},
    {"setp.neu.f32", "pff", [](U a, U b, U) { return U{F(a) != F(b)}; }},
    {"setp.nan.f32", "pff", [](U a, U b, U) { return U{std::isnan(F(a)) || std::isnan(F(b))}; }},
    {"setp.num.f64", "pgg", [](U a, U b, U) { return U{!std::isnan(D(a)) && !std::isnan(D(b))}; }},
    {"setp.gt.f16", "pee", [](U a, U b, U) { return U{H(a) > H(b)}; }},
    {"setp.eq.and.s32", "pwwp", [](U a, U b, U c) { return U{S(a) == S(b)} & c; }},
    {"setp.le.or.f32", "pffp", [](U a, U b, U c) { return U{F(a) <= F(b)} | c; }},
    {"setp.gt.xor.u32", "pwwp", [](U a, U b, U c) { return U{W(a) > W(b)} ^ c; }},
    {"set.lt.u32.f32", "wff", [](U a, U b, U) { return F(a) < F(b) ? 0xffffffff : U{0}; }},
    {"set.ge.f32.s32", "www", [](U a, U b, U) { return S(a) >= S(b) ? B(1.0f) : U{0}; }},
    {"selp.b32", "wwwp", [](U a, U b, U c) { return c ? a : b; }},
    {"selp.b64", "lllp", [](U a, U b, U c) { return c ? a : b; }},
    {"slct.b32.s32", "wwww", [](U a, U b, U c) { return S(c) >= 0 ? a : b; }},
    // Conversion
    {"cvt.u64.u32", "lw", [](U a, U, U) { return U{W(a)}; }},
    {"cvt.s64.s32", "lw", [](U a, U, U) { return static_cast<U>(int64_t{S(a)}); }},
    {"cvt.u32.u64", "wl", [](U a, U, U) { return a; }},
    {"cvt.s32.s8", "ww", [](U a, U, U) { return static_cast<U>(int64_t{int8_t(a)}); }},
    {"cvt.u16.u32", "hw", [](U a, U, U) { return a; }},
    {"cvt.sat.s8.s32", "ww", [](U a, U, U) { return static_cast<U>(std::clamp(S(a), -128, 127)); }},
    {"cvt.sat.u8.s32", "ww", [](U a, U, U) { return static_cast<U>(std::clamp(S(a), 0, 255)); }},
    {"cvt.rn.f32.s32", "ww", [](U a, U, U) { return B(static_cast<float>(S(a))); }},
    {"cvt.rn.f32.u64", "wl", [](U a, U, U) { return B(static_cast<float>(a)); }},
    {"cvt.rn.f32.s64", "wl", [](U a, U, U) { return B(static_cast<float>(L(a))); }},
    {"cvt.rn.f64.u32", "lw", [](U a, U, U) { return B(static_cast<double>(W(a))); }},
    {"cvt.rn.f16.s16", "hh", [](U a, U, U) { return B(static_cast<_Float16>(int16_t(a))); }},
    {"cvt.rzi.s32.f32", "wf", [](U a, U, U) { const float x = F(a); return std::isnan(x) ? 0 : static_cast<U>(int64_t(std::clamp(std::trunc(double{x}), -2147483648.0, 2147483647.0))); }},
    {"cvt.rni.s32.f32", "wf", [](U a, U, U) { const float x = F(a); return std::isnan(x) ? 0 : static_cast<U>(int64_t(std::clamp(std::nearbyint(double{x}), -2147483648.0, 2147483647.0))); }},
    {"cvt.rmi.s32.f32", "wf", [](U a, U, U) { const float x = F(a); return std::isnan(x) ? 0 : static_cast<U>(int64_t(std::clamp(std::floor(double{x}), -2147483648.0, 2147483647.0))); }},
    {"cvt.rpi.u32.f32", "wf", [](U a, U, U) { const float x = F(a); return std::isnan(x) ? 0 : static_cast<U>(int64_t(std::clamp(std::ceil(double{x}), 0.0, 4294967295.0))); }},
    {"cvt.rni.f32.f32", "ff", [](U a, U, U) { return B(std::nearbyint(F(a))); }},
    {"cvt.f64.f32", "gf", [](U a, U, U) { return B(static_cast<double>(F(a))); }},
    {"cvt.rn.f32.f64", "fg", [](U a, U, U) { return B(static_cast<float>(D(a))); }},
    {"cvt.f32.f16", "fe", [](U a, U, U) { return B(static_cast<float>(H(a))); }},
    {"cvt.f32.bf16", "fz", [](U a, U, U) { return a << 16; }},
    {"cvt.rn.f16.f32", "ef", [](U a, U, U) { return B(static_cast<_Float16>(F(a))); }},
    {"cvt.rz.f16.f32", "ef", [](U a, U, U) {
       const float x = F(a); if (std::isnan(x) || std::isinf(x)) return B(static_cast<_Float16>(x));
       U near = B(static_cast<_Float16>(std::clamp(x, -65504.0f, 65504.0f)));
       if (std::fabs(float(H(near))) > std::fabs(x)) --near; return near; }},
    {"cvt.rn.bf16.f32", "zf", [](U a, U, U) { return ToBf16(F(a)); }},
    {"cvt.rn.f16x2.f32", "xff", [](U a, U b, U) { return B(static_cast<_Float16>(F(a))) << 16 | B(static_cast<_Float16>(F(b))); }},
    {"cvt.rn.bf16x2.f32", "yff", [](U a, U b, U) { return ToBf16(F(a)) << 16 | ToBf16(F(b)); }},
};

TEST(Instructions, AgreeWithTheirDefinitions) {
  for (const Case& c : kCases) CheckCase(c);
}

/// Instructions whose operands do not fit the table.
U One(const std::string& body, std::vector<uint32_t> in = {}) {
  const Outcome outcome = RunBody(body, in, 1);
  EXPECT_TRUE(outcome.status.ok()) << body << outcome.message();
  return outcome.out[0];
}

TEST(Instructions, Lop3FollowsItsTable) {
  for (uint32_t table : {0x80u, 0xfeu, 0x96u, 0xeau, 0x01u, 0xe4u, 0u, 255u}) {
    const uint32_t a = 0xF0F0A5C3, b = 0x12345678, c = 0xDEADBEEF;
    uint32_t want = 0;
    for (int i = 0; i < 32; ++i)
      want |= (table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i;
    EXPECT_EQ(One("ld.global.b32 %r1, [%in];\nld.global.b32 %r2, [%in+4];\nld.global.b32 %r3, "
                  "[%in+8];\nlop3.b32 %r4, %r1, %r2, %r3, " +
                      std::to_string(table) + ";\nst.global.b32 [%out], %r4;",
                  {a, b, c}),
              want);
  }
}

TEST(Instructions, BfiPlacesAField) {
  EXPECT_EQ(One("mov.b32 %r1, 0xAB;\nmov.b32 %r2, 0xFFFFFFFF;\nbfi.b32 %r3, %r1, %r2, 8, "
                "8;\nst.global.b32 [%out], %r3;"),
            0xFFFFABFFu);
  EXPECT_EQ(One("mov.b32 %r1, 0xAB;\nmov.b32 %r2, 0x11;\nbfi.b32 %r3, %r1, %r2, 28, "
                "8;\nst.global.b32 [%out], %r3;"),
            0xB0000011u);
}

TEST(Instructions, SaturateClampsToOneAndZero) {
  for (auto [x, want] : {std::pair(0.25f, 0.5f), {3.0f, 1.0f}, {-2.0f, 0.0f}, {NAN, 0.0f}})
    EXPECT_EQ(
        One("ld.global.b32 %f1, [%in];\nadd.sat.f32 %f2, %f1, %f1;\nst.global.b32 [%out], %f2;",
            {W(B(x))}),
        B(want));
}

TEST(Instructions, CarriesChain) {
  const std::string body =
      "ld.global.v2.b32 {%r1, %r2}, [%in];\nld.global.v2.b32 {%r3, %r4}, [%in+8];\nadd.cc.u32 %r5, "
      "%r1, %r3;\naddc.u32 %r6, %r2, %r4;\n"
      "st.global.b32 [%out], %r6;";
  EXPECT_EQ(One(body, {0xffffffff, 1, 1, 2}), 4u);
  EXPECT_EQ(One(body, {0xfffffffe, 1, 1, 2}), 3u);
  const std::string product =
      "ld.global.v2.b32 {%r1, %r2}, [%in];\nmad.lo.cc.u32 %r3, %r1, %r2, 0xFFFFFFFF;\nmadc.hi.u32 "
      "%r4, %r1, %r2, 7;\nst.global.b32 [%out], %r4;";
  EXPECT_EQ(One(product, {0x10000, 0x10001}),
            ((uint64_t{0x10000} * 0x10001 + 0xffffffff) >> 32) + 7);
}

TEST(Instructions, ApproximationsAreClose) {
  const std::pair<const char*, float (*)(float)> kFunctions[] = {
      {"ex2.approx.f32", [](float x) { return std::exp2(x); }},
      {"lg2.approx.f32", [](float x) { return std::log2(x); }},
      {"rcp.approx.ftz.f32", [](float x) { return 1 / x; }},
      {"rsqrt.approx.f32", [](float x) { return 1 / std::sqrt(x); }},
      {"sin.approx.f32", [](float x) { return std::sin(x); }},
      {"cos.approx.f32", [](float x) { return std::cos(x); }},
      {"tanh.approx.f32", [](float x) { return std::tanh(x); }},
      {"sqrt.approx.f32", [](float x) { return std::sqrt(x); }}};
  for (const auto& [name, want] : kFunctions)
    for (float x : {0.1f, 0.75f, 1.0f, 3.25f}) {
      const float got = F(One(std::string("ld.global.b32 %f1, [%in];\n") + name +
                                  " %f2, %f1;\nst.global.b32 [%out], %f2;",
                              {W(B(x))}));
      EXPECT_NEAR(got, want(x), 1e-6f * std::max(1.0f, std::fabs(want(x)))) << name << " " << x;
    }
}

/// Every e4m3 and every midpoint of two neighbours, from f32: numbers below a midpoint go down,
/// those above up, the midpoint itself to the even code.
TEST(Instructions, RoundsToTheNearestE4m3) {
  std::vector<uint32_t> in, want;
  const auto value = [](uint32_t code) {
    const uint32_t e = code >> 3, m = code & 7;
    return e == 0 ? std::ldexp(static_cast<float>(m), -9)
                  : std::ldexp(static_cast<float>(8 + m), static_cast<int>(e) - 10);
  };
  const auto add = [&](float x, uint32_t code) {
    in.push_back(W(B(x))), want.push_back(code);
    in.push_back(W(B(-x))), want.push_back(code | 0x80);
  };
  for (uint32_t code = 0; code < 0x7e; ++code) {  // 0x7e is 448, the largest.
    const float low = value(code), high = value(code + 1), middle = (low + high) / 2;
    add(low, code);
    add(std::nextafter(middle, 0.0f), code);
    add(middle, code % 2 == 0 ? code : code + 1);
    add(std::nextafter(middle, 1000.0f), code + 1);
  }
  for (const float x : {448.0f, 463.9f, 464.0f, 1e30f, INFINITY}) add(x, 0x7e);
  in.resize(1024), want.resize(1024);
  const Outcome outcome = RunBody(
      "mul.wide.u32 %l1, %r0, 4;\nadd.u64 %l2, %in, %l1;\nadd.u64 %l3, %out, %l1;\n"
      "ld.global.b32 %f1, [%l2];\nmov.b32 %f2, 0;\n"
      "cvt.rn.satfinite.e4m3x2.f32 %h1, %f2, %f1;\ncvt.u32.u16 %r1, %h1;\n"
      "st.global.b32 [%l3], %r1;",
      in, in.size(), {.block = {1024, 1, 1}});
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(outcome.out[i], want[i]) << std::hex << in[i];
}

/// e4m3 has 3 bits of mantissa, bias 7, no infinity, largest 448; e5m2 is the upper half of f16.
TEST(Instructions, ConvertsFp8) {
  const auto e4m3 = [](float hi, float lo) {
    return One(
        "ld.global.b32 %f1, [%in];\nld.global.b32 %f2, [%in+4];\ncvt.rn.satfinite.e4m3x2.f32 %h1, "
        "%f1, %f2;\ncvt.u32.u16 %r1, %h1;\nst.global.b32 [%out], %r1;",
        {W(B(hi)), W(B(lo))});
  };
  EXPECT_EQ(e4m3(1.0f, -2.0f), 0x38C0u);
  EXPECT_EQ(e4m3(448.0f, 1000.0f), 0x7E7Eu);    // Saturates.
  EXPECT_EQ(e4m3(1.0625f, 1.1875f), 0x383Au);   // Ties to even: 1.0 and 1.25.
  EXPECT_EQ(e4m3(0x1p-9f, 0x1p-10f), 0x0100u);  // The least subnormal; half of it rounds to 0.
  EXPECT_EQ(e4m3(NAN, -0.0f), 0x7F80u);
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const U half =
        One("ld.global.b32 %r1, [%in];\ncvt.u16.u32 %h1, %r1;\ncvt.rn.f16x2.e4m3x2 %r2, "
            "%h1;\nst.global.b32 [%out], %r2;",
            {bits | 0x3800});
    const int e = bits >> 3 & 15, m = bits & 7;
    const double want =
        (bits & 128 ? -1 : 1) * (e == 0 ? std::ldexp(m, -9) : std::ldexp(8 + m, e - 10));
    if ((bits & 127) == 127)
      EXPECT_TRUE((half & 0x7fff) > 0x7c00);
    else
      EXPECT_EQ(double(H(half)), want) << bits;
    EXPECT_EQ(half >> 16, 0x3C00u);
  }
  EXPECT_EQ(One("mov.b32 %f1, 0f3F800000;\nmov.b32 %f2, 0fC2C80000;\ncvt.rn.satfinite.e5m2x2.f32 "
                "%h1, %f1, %f2;\ncvt.u32.u16 %r1, %h1;\nst.global.b32 [%out], %r1;"),
            0x3CD6u);  // 1 and -96: -100 rounds to 1.5 * 2^6.
}

TEST(Instructions, Tf32DropsThirteenBits) {
  EXPECT_EQ(One("mov.b32 %f1, 0f3F801000;\ncvt.rna.tf32.f32 %r1, %f1;\nst.global.b32 [%out], %r1;"),
            0x3F802000u);
  EXPECT_EQ(One("mov.b32 %f1, 0f3F800FFF;\ncvt.rna.tf32.f32 %r1, %f1;\nst.global.b32 [%out], %r1;"),
            0x3F800000u);
}

TEST(Instructions, MovesPackAndUnpack) {
  EXPECT_EQ(One("mov.b16 %h1, 0x1234;\nmov.b16 %h2, 0xABCD;\nmov.b32 %r1, {%h1, "
                "%h2};\nst.global.b32 [%out], %r1;"),
            0xABCD1234u);
  EXPECT_EQ(
      One("mov.b64 %l1, 0x1122334455667788;\nmov.b64 {%r1, %r2}, %l1;\nst.global.b32 [%out], %r2;"),
      0x11223344u);
  EXPECT_EQ(One("mov.b32 %r1, 0x1234ABCD;\nmov.b32 {_, %h2}, %r1;\ncvt.u32.u16 %r2, "
                "%h2;\nst.global.b32 [%out], %r2;"),
            0x1234u);
}

TEST(Instructions, SpecialRegistersDescribeTheThread) {
  const Outcome outcome =
      RunText(Header() + SimpleKernel(
                             "k",
                             "mov.u32 %r1, %tid.y;\nmov.u32 %r2, %ntid.x;\nmov.u32 %r3, "
                             "%ctaid.z;\nmov.u32 %r4, %nctaid.z;\nmov.u32 %r5, %laneid;\n"
                             "mov.u32 %r6, %warpid;\nmov.u32 %r7, %lanemask_lt;\nmad.lo.u32 %r8, "
                             "%r1, %r2, %r0;\nsetp.ne.u32 %p1, %r8, 37;\nsetp.ne.u32 %p2, %r3, 1;\n"
                             "@%p1 bra DONE;\n@%p2 bra DONE;\nst.global.v4.b32 [%out], {%r1, %r2, "
                             "%r3, %r4};\nst.global.b32 [%out+16], %r5;\n"
                             "st.global.b32 [%out+20], %r6;\nst.global.b32 [%out+24], %r7;\nDONE:"),
              {}, 7, {.grid = {1, 1, 3}, .block = {8, 5, 1}});
  ASSERT_TRUE(outcome.status.ok()) << outcome.message();
  EXPECT_EQ(outcome.out, (std::vector<uint32_t>{4, 8, 1, 3, 5, 1, 31}));
}

}  // namespace
}  // namespace quern::ptx

#include "tests/runtime/device/ptx_emulator/instruction_case.h"

#include <random>

#include "tests/runtime/device/ptx_emulator/run_kernel.h"

namespace quern::ptx {

U ToBf16(double x) {
  if (std::isnan(x)) return 0x7fff;
  if (x == 0 || std::isinf(x)) return B(static_cast<float>(x)) >> 16;
  const int exponent = std::max(std::ilogb(x), -126);
  return B(static_cast<float>(
             std::ldexp(std::nearbyint(std::ldexp(x, 7 - exponent)), exponent - 7))) >>
         16;
}
namespace {

char Width(char kind) {
  switch (kind) {
    case 'p':
      return 'p';
    case 'h':
    case 'e':
    case 'z':
      return 'h';
    case 'l':
    case 'g':
      return 'l';
    default:
      return 'w';
  }
}

/// Values that find mistakes: borders, signs, NaN, halves; the rest random.
U Value(char kind, std::mt19937_64& random) {
  static const float kFloats[] = {0.0f,      -0.0f,    1.0f,   -1.0f,   0.5f,        1.5f,
                                  2.5f,      -2.5f,    3.0e9f, -3.0e9f, 65504.0f,    65520.0f,
                                  1e-7f,     5.96e-8f, 1e-40f, -1e-40f, 3e38f,       INFINITY,
                                  -INFINITY, NAN,      127.5f, -128.5f, 0.99999994f, 1e-45f};
  static const U kIntegers[] = {0,
                                1,
                                2,
                                31,
                                32,
                                63,
                                127,
                                128,
                                255,
                                256,
                                0x7fff,
                                0x8000,
                                0xffff,
                                0x7fffffff,
                                0x80000000,
                                0xffffffff,
                                0x100000000,
                                0x7fffffffffffffff,
                                0x8000000000000000,
                                ~U{0}};
  const U r = random();
  const float plain = static_cast<float>(static_cast<double>(static_cast<int64_t>(random())) *
                                         std::ldexp(1.0, -60));
  const float f = r % 3 == 0 ? kFloats[r / 3 % std::size(kFloats)] : plain;
  switch (kind) {
    case 'p':
      return r & 1;
    case 'n':
      return r % 70;
    case 'f':
      return B(f);
    case 'g':
      return B(r % 5 == 0 ? static_cast<double>(f) : static_cast<double>(f) * 1.0000001);
    case 'e':
      return B(static_cast<_Float16>(f));
    case 'x':
      return B(static_cast<_Float16>(f)) | (r & 0x7bff) << 16;
    case 'z':
      return ToBf16(f);
    case 'y':
      return ToBf16(f) | (r & 0x7f7f) << 16;
    default:
      return r % 3 == 0 ? kIntegers[r / 3 % std::size(kIntegers)] : random();
  }
}

std::string Load(char kind, int number) {
  const std::string n = std::to_string(number), at = "[%l8+" + std::to_string(8 * number) + "];\n";
  switch (Width(kind)) {
    case 'p':
      return "ld.global.b32 %r4" + n + ", " + at + "setp.ne.u32 %p" + n + ", %r4" + n + ", 0;\n";
    case 'h':
      return "ld.global.b16 %h" + n + ", " + at;
    case 'l':
      return "ld.global.b64 %l" + n + ", " + at;
    default:
      return "ld.global.b32 %r" + n + ", " + at;
  }
}

std::string Name(char kind, int number) {
  return std::string("%") + (Width(kind) == 'w' ? 'r' : Width(kind)) + std::to_string(number);
}

U WidthMask(char kind) {
  switch (Width(kind)) {
    case 'p':
      return 1;
    case 'h':
      return 0xffff;
    case 'l':
      return ~U{0};
    default:
      return 0xffffffff;
  }
}

bool IsNan(char kind, U bits) {
  switch (kind) {
    case 'f':
      return std::isnan(F(bits));
    case 'g':
      return std::isnan(D(bits));
    case 'e':
      return (bits & 0x7fff) > 0x7c00;
    case 'z':
      return (bits & 0x7fff) > 0x7f80;
    default:
      return false;
  }
}

/// Within the tolerance, or both NaN; of packed kinds, half by half.
bool Same(char kind, U got, U want, U tolerance) {
  if (kind == 'x' || kind == 'y') {
    const char half = kind == 'x' ? 'e' : 'z';
    return Same(half, got & 0xffff, want & 0xffff, tolerance) &&
           Same(half, got >> 16, want >> 16, tolerance);
  }
  const U difference = got > want ? got - want : want - got;
  return difference <= tolerance || (IsNan(kind, got) && IsNan(kind, want));
}

}  // namespace

void CheckCase(const Case& c) {
  const std::string& operands = c.operands;
  constexpr uint32_t kThreads = 128;
  std::mt19937_64 random(std::hash<std::string>()(c.instruction));
  std::vector<U> in(kThreads * 4);
  for (uint32_t t = 0; t < kThreads; ++t)
    for (size_t i = 1; i < operands.size(); ++i) in[4 * t + i - 1] = Value(operands[i], random);
  std::string body =
      "mul.wide.u32 %l8, %r0, 32;\nadd.u64 %l8, %in, %l8;\nmul.wide.u32 %l7, %r0, 8;\nadd.u64 "
      "%l7, %out, %l7;\n";
  std::string list = Name(operands[0], 9);
  for (size_t i = 1; i < operands.size(); ++i) {
    body += Load(operands[i], static_cast<int>(i) - 1);
    list += ", " + Name(operands[i], static_cast<int>(i) - 1);
  }
  body += std::string(c.instruction) + " " + list + ";\n";
  if (operands[0] == 'p')
    body += "selp.u32 %r50, 1, 0, %p9;\nst.global.b32 [%l7], %r50;";
  else
    body += std::string("st.global.b") +
            (Width(operands[0]) == 'h'   ? "16"
             : Width(operands[0]) == 'l' ? "64"
                                         : "32") +
            " [%l7], " + Name(operands[0], 9) + ";";
  const std::span<const uint32_t> words(reinterpret_cast<const uint32_t*>(in.data()),
                                        in.size() * 2);
  const Outcome outcome = RunBody(body, words, 2 * kThreads, {.block = {kThreads, 1, 1}});
  ASSERT_TRUE(outcome.status.ok()) << c.instruction << ": " << outcome.message();
  for (uint32_t t = 0; t < kThreads; ++t) {
    U args[3] = {in[4 * t], in[4 * t + 1], in[4 * t + 2]};
    for (size_t i = 1; i < operands.size(); ++i) args[i - 1] &= WidthMask(operands[i]);
    const U mask = WidthMask(operands[0]);
    const U got = (outcome.out[2 * t] | U{outcome.out[2 * t + 1]} << 32) & mask;
    const U want = c.want(args[0], args[1], args[2]) & mask;
    EXPECT_TRUE(Same(operands[0], got, want, c.tolerance))
        << c.instruction << std::hex << " gives " << got << ", not " << want << " of " << args[0]
        << ", " << args[1] << ", " << args[2];
  }
}

}  // namespace quern::ptx

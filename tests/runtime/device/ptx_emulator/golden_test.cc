// Kernels that Triton compiled agree with torch, under several schedules, without a finding.
#include "tests/runtime/device/ptx_emulator/golden_kernel.h"

namespace quern::ptx {
namespace {

class Golden : public ::testing::TestWithParam<const char*> {};

TEST_P(Golden, AgreesWithTorch) {
  const GoldenKernel kernel(GetParam());
  for (const uint64_t seed : {0, 1, 2}) {
    const GoldenOutcome outcome =
        kernel.Run(kernel.ptx, {.seed = seed, .threads = 2, .check_races = true});
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_TRUE(outcome.right) << "error " << outcome.error << " with seed " << seed;
    for (const auto* findings : {&outcome.report.races, &outcome.report.lints})
      for (const Finding& finding : *findings) ADD_FAILURE() << finding.message;
  }
}

INSTANTIATE_TEST_SUITE_P(Triton, Golden,
                         ::testing::Values("arg_max", "attention_sm80", "attention_sm90", "gather",
                                           "gemm_bf16_sm80", "gemm_bf16_sm90", "gemm_f16_sm80",
                                           "gemm_f16_sm90", "gemm_fp8_sm89", "gemm_fp8_sm90",
                                           "gemm_int4_sm80", "gemm_s8_sm80", "gemm_tf32_sm80",
                                           "gemm_tma_sm90", "histogram", "layer_norm", "rms_norm",
                                           "rope", "scan", "softmax", "sort", "swiglu"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace quern::ptx

#include "tests/codegen/kernel_proof.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <set>
#include <vector>

#include "codegen/ptx/Kernel.h"

namespace quern::test {
namespace {

using Values = std::vector<std::string>;

/// `test` compares kernels of `generator` at all of `values` of `axis`.
struct Demand {
  std::string_view generator, test, axis;
  Values values;
};

// Machines are those whose code differs: for the others these kernels are the same text, or run
// with QUERN_FULL_MATRIX only.
std::vector<Demand> MakeDemands() {
  constexpr std::string_view kMatmul = "tensor_matmul_kernel_test",
                             kAttention = "attention_kernel_test", kRows = "rowwise_kernel_test",
                             kInt8 = "int8_cache_kernel_test";
  const Values formats = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k",
                          "q4_k", "q5_k", "q6_k", "f16",  "bf16", "f32"};
  const Values both = {"sm_80_decode", "sm_80_prefill", "sm_90a_decode", "sm_90a_prefill"};
  std::vector<Demand> demands = {
      {"vector-matmul", "matmul_kernel_test", "machine", both},
      {"vector-matmul", "matmul_kernel_test", "format", formats},
      {"vector-attention", kAttention, "machine", both},
      {"vector-attention", kAttention, "context", {"1", "31", "33", "100"}},
      {"rope-append", kRows, "machine", both},
      {"rope-append", kInt8, "machine", both},
      {"lookup", kRows, "machine", both},
      {"lookup", kRows, "machine", {"sm_120a_decode"}},
      {"rowwise", kRows, "machine", both},
      {"top-k", "top_k_kernel_test", "machine", {"sm_80_decode", "sm_90a_decode"}},
  };
  const std::pair<std::string_view, Values> matmuls[] = {
      {"tensor-matmul",
       {"sm_80_decode", "sm_80_prefill", "sm_89_decode", "sm_89_prefill", "sm_90a_decode"}},
      {"wgmma-matmul", {"sm_90a_prefill"}},
      {"tensor-memory-matmul", {"sm_100a_prefill"}}};
  for (const auto& [generator, machines] : matmuls) {
    demands.push_back({generator, kMatmul, "machine", machines});
    demands.push_back({generator, kMatmul, "format", formats});
    demands.push_back({generator, kMatmul, "rows", {"1", "7", "8", "63", "65", "129"}});
    demands.push_back({generator, kMatmul, "outputs", {"8", "33", "50", "144", "272"}});
    demands.push_back({generator, kMatmul, "depth", {"32", "64", "96", "608", "1536"}});
  }
  const std::pair<std::string_view, Values> attention[] = {
      {"split-attention", {"sm_80_decode", "sm_90a_decode", "sm_120a_decode"}},
      {"tensor-attention", {"sm_80_prefill", "sm_120a_prefill"}},
      {"wgmma-attention", {"sm_90a_prefill"}}};
  for (const auto& [generator, machines] : attention) {
    demands.push_back({generator, kAttention, "machine", machines});
    demands.push_back({generator, kAttention, "context", {"1", "63", "4097"}});
    demands.push_back({generator, kAttention, "queries a key", {"1", "3", "8"}});
    demands.push_back({generator, kAttention, "head size", {"64", "96", "128", "256"}});
    demands.push_back({generator, kAttention, "window", {"0", "1", "31", "32", "1000"}});
  }
  for (std::string_view generator : {"split-attention", "tensor-attention"})
    demands.push_back({generator, kAttention, "cache", {"f16", "int8"}});
  return demands;
}

const std::vector<Demand>& Demands() {
  static const auto* const kDemands = new std::vector<Demand>(MakeDemands());
  return *kDemands;
}

using Proofs = std::map<std::pair<std::string, std::string>, std::set<std::string>>;
Proofs& Noted() {
  static auto* const kNoted = new Proofs;  // of (generator, axis)
  return *kNoted;
}

class Check : public testing::Environment {
 public:
  void TearDown() override {
    for (const auto& generator : nvptx::kernelGenerators()) {
      bool known = false;
      for (const Demand& demand : Demands())
        known |= demand.generator == std::string_view(generator.name);
      EXPECT_TRUE(known) << "no row of kernel_proof.cc tells which test compares kernels of "
                         << generator.name.str();
    }
    // On a GPU, kernels of other targets do not run.
    if (GTEST_FLAG_GET(filter) != "*" || std::getenv("QUERN_TEST_GPU")) return;
    for (const Demand& demand : Demands()) {
      if (demand.test != program_invocation_short_name) continue;
      const std::set<std::string>& noted =
          Noted()[{std::string(demand.generator), std::string(demand.axis)}];
      for (const std::string& value : demand.values)
        EXPECT_TRUE(noted.count(value)) << "no test compares a kernel of " << demand.generator
                                        << " at " << demand.axis << " " << value;
    }
  }
};

[[maybe_unused]] const auto* const kCheck = testing::AddGlobalTestEnvironment(new Check);

}  // namespace

void NoteProof(std::string_view generator, std::string_view axis, std::string value) {
  Noted()[{std::string(generator), std::string(axis)}].insert(std::move(value));
}

}  // namespace quern::test

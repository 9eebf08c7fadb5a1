// The fake model behind llm::Model, and the comparison of logits, for tests of sessions.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "runtime/llm/model.h"
#include "tests/runtime/support/fake_model.h"

namespace quern::testing {

/// Floats of a row of logits.
inline constexpr auto kRow = static_cast<size_t>(kVocab);

/// A fake model as an artifact, loaded.
struct LoadedModel {
  explicit LoadedModel(FakeModel fake, const std::function<void(schema::ManifestT&)>& mutate = {})
      : made(std::move(fake)) {
    Result<FileBytes> file = FileBytes::FromBytes(Assemble(made, mutate));
    auto artifact = Artifact::FromBytes(std::move(file).value());
    EXPECT_TRUE(artifact.ok()) << artifact.status().message();
    auto loaded = Model::FromArtifact(std::move(artifact).value());
    EXPECT_TRUE(loaded.ok()) << loaded.status().message();
    model = std::move(loaded).value();
  }

  /// Logits (tokens, vocab) of a sequence whose first `prefilled` tokens are its prompt.
  std::vector<float> Expected(std::span<const int32_t> tokens, size_t prefilled) const {
    std::vector<schema::Role> roles(tokens.size(), schema::Role::Decode);
    std::fill_n(roles.begin(), std::min(prefilled, roles.size()), schema::Role::Prefill);
    return Reference(made, tokens, roles);
  }

  FakeModel made;
  std::shared_ptr<const Model> model;
};

/// Whether rows of logits are the same bytes.
inline ::testing::AssertionResult SameBits(std::span<const float> got,
                                           std::span<const float> wanted) {
  if (got.size() != wanted.size()) {
    return ::testing::AssertionFailure() << got.size() << " floats, wanted " << wanted.size();
  }
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &wanted[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure() << "row " << i / kRow << " column " << i % kRow << " is "
                                           << got[i] << ", wanted " << wanted[i];
    }
  }
  return ::testing::AssertionSuccess();
}

/// The last row of (tokens, vocab).
inline std::span<const float> LastRow(std::span<const float> logits) { return logits.last(kRow); }

}  // namespace quern::testing

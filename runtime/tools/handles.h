// Owners of what quern.h hands out.
#pragma once

#include <memory>
#include <string>

#include "quern.h"
#include "runtime/tools/error.h"

namespace quern::tools {

struct FreeHandle {
  void operator()(quern_model* model) const { quern_model_free(model); }
  void operator()(quern_session* session) const { quern_session_free(session); }
  void operator()(quern_sequence* sequence) const { quern_sequence_free(sequence); }
  void operator()(char* text) const { quern_free(text); }
  void operator()(int32_t* tokens) const { quern_free(tokens); }
};

using ModelHandle = std::unique_ptr<quern_model, FreeHandle>;
using SessionHandle = std::unique_ptr<quern_session, FreeHandle>;
using SequenceHandle = std::unique_ptr<quern_sequence, FreeHandle>;
using TextHandle = std::unique_ptr<char, FreeHandle>;
using TokensHandle = std::unique_ptr<int32_t, FreeHandle>;

/// `trusted_keys`: empty: no signature is asked for.
inline quern_model_options ModelOptions(bool check_weights, const std::string& trusted_keys) {
  quern_model_options options = QUERN_MODEL_OPTIONS_INIT;
  options.check_weights = check_weights;
  options.trusted_keys = trusted_keys.empty() ? nullptr : trusted_keys.c_str();
  return options;
}

inline ModelHandle LoadModel(const std::string& path, bool check_weights,
                             const std::string& trusted_keys = {}) {
  const quern_model_options options = ModelOptions(check_weights, trusted_keys);
  quern_model* model = nullptr;
  quern_error error = {};
  Check(quern_model_load(path.c_str(), &options, &model, &error), error);
  return ModelHandle(model);
}

}  // namespace quern::tools

// Sessions and sequences: tokens in, logits out, over the executor's steps.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/executor/open_executor.h"
#include "runtime/llm/model.h"
#include "runtime/llm/sampler.h"

namespace quern {

class Sequence;

/// Zero means the default.
struct SessionOptions {
  /// As many as the process may use CPUs.
  int threads = 0;
  bool pin_threads = false;
  /// "cpu" (also when empty), "cuda", "cuda:N", "ptx-emulator", "ptx-emulator:sm_80".
  std::string device = {};
  /// A target's name; empty: the best that the device can run.
  std::string isa = {};
  /// Most tokens of one sequence: the model's.
  int64_t context = 0;
  /// Slots of keys and values of all sequences: `context`.
  int64_t kv_tokens = 0;
  /// Most rows of a step: kDefaultRows.
  int64_t max_rows = 0;
  /// See ExecutorOptions.
  std::function<void(uint64_t done, uint64_t total)> progress = {};

  static constexpr int64_t kDefaultRows = 512;
};

/// A model made ready to run. Calls on a session and its sequences must not overlap, but for
/// Cancel. The session must outlive its sequences.
class Session {
 public:
  /// Errors: kIncompatible (no target runs here), kUsage, kOutOfMemory.
  static Result<std::unique_ptr<Session>> Create(std::shared_ptr<const Model> model,
                                                 const SessionOptions& options = {});
  /// The same with an executor that `make` gives, for `options` but device and isa.
  using ExecutorFactory =
      std::function<Result<OpenedExecutor>(const Artifact&, const ExecutorOptions&)>;
  static Result<std::unique_ptr<Session>> CreateWith(std::shared_ptr<const Model> model,
                                                     const SessionOptions& options,
                                                     const ExecutorFactory& make);

  std::unique_ptr<Sequence> NewSequence();

  /// Appends tokens[i] to sequences[i], as decoded tokens, in as few steps as possible. Errors:
  /// kUsage (a sequence twice, or of another session; a token out of range; a full context),
  /// kOutOfMemory, kCancelled; a sequence then has its token or is unchanged.
  Status Decode(std::span<Sequence* const> sequences, std::span<const int32_t> tokens);

  /// Makes the call in progress, or the next one, end with kCancelled. Safe in signal handlers.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  /// kCancelled, once, when Cancel was called.
  Status TakeCancel();

  const Model& model() const { return *model_; }
  Executor& executor() { return *opened_.executor; }
  const Executor& executor() const { return *opened_.executor; }
  int64_t context() const { return context_; }
  int64_t max_rows() const { return executor().max_rows(); }
  /// Names of the chosen target and device.
  const std::string& target() const { return opened_.target; }
  const std::string& device() const { return opened_.device; }

 private:
  friend class Sequence;

  /// Consecutive new tokens of one sequence.
  struct Run {
    Sequence* sequence;
    std::span<const int32_t> tokens;
  };
  enum class Want { kNothing, kLastRows, kAllRows };

  Session() = default;
  /// Checks tokens and room. Error: kUsage.
  Status CheckRun(const Run& run) const;
  /// One step: prepares pages, runs, appends the tokens. With kLastRows `logits` gets a row a run;
  /// where it is null, they stay with the executor. On failure no sequence changed.
  Status Step(std::span<const Run> runs, schema::Role role, Want want, float* logits);
  /// A step that gives every run's sequence the logits behind it.
  Status StepToLogits(std::span<const Run> runs, schema::Role role);
  /// Copies kept logits of sequences that are not in `runs`, before the executor forgets them.
  Status SaveKept(std::span<const Run> runs);

  std::shared_ptr<const Model> model_;
  OpenedExecutor opened_;
  int64_t context_ = 0;
  std::atomic<bool> cancelled_{false};
  // Rows of the step at hand; kept to reuse their memory.
  std::vector<int32_t> tokens_, slots_, rows_, logit_rows_;
  std::vector<std::span<const int32_t>> page_tables_;
  std::vector<float> logits_;
  std::vector<Sequence*> kept_;  // whose logits the executor keeps
};

/// One line of tokens with its pages, logits and sampler.
class Sequence {
 public:
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence();

  /// Appends `tokens`, in steps of at most max_rows rows; how they are cut does not matter to the
  /// results. Then logits() are those behind the last one. `all_logits`, unless null, gets
  /// (tokens, vocab). Errors: kUsage, before anything was done; kOutOfMemory and kCancelled, where
  /// the tokens of finished steps stay.
  Status Feed(std::span<const int32_t> tokens, schema::Role role, float* all_logits = nullptr);

  /// A second sequence with the same tokens, logits and sampler; pages are shared.
  std::unique_ptr<Sequence> Fork();

  /// Forgets all but the first `length` tokens, and the logits; the sampler starts anew. Error:
  /// kUsage when there are fewer.
  Status Truncate(int64_t length);

  Session& session() const { return *session_; }
  int64_t length() const { return static_cast<int64_t>(tokens_.size()); }
  std::span<const int32_t> tokens() const { return tokens_; }
  std::span<const int32_t> pages() const { return kv_.pages(); }
  /// (vocab) behind the last token; empty while there are none, and when a device that keeps them
  /// failed.
  std::span<const float> logits();

  /// How tokens are chosen; those the sequence has count for the penalty. Error: kUsage.
  Status SetSampling(const SamplerOptions& options);
  /// The next token by the logits; it is not appended. Error: kUsage without logits.
  Result<int32_t> Sample();

 private:
  friend class Session;
  explicit Sequence(Session* session, Sampler sampler);
  void Append(std::span<const int32_t> tokens);
  /// Copies the logits that the executor keeps, if it does.
  Status ReadKept();
  void ForgetLogits();

  Session* session_;
  KvSequence kv_;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;  // (vocab) once there are any here
  bool has_logits_ = false;    // here, or kept
  int64_t kept_row_ = -1;      // the executor's row of them; -1: they are here
  std::vector<Candidate> best_;
  Sampler sampler_;
};

}  // namespace quern

// A model at work: what `run`, `chat` and `bench` do with quern.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tools/flags.h"
#include "runtime/tools/handles.h"
#include "runtime/tools/npy_file.h"
#include "runtime/tools/signals.h"

namespace quern::tools {

/// What was chosen for a session.
struct SessionFacts {
  std::string target;
  uint64_t threads = 0;
  uint64_t context = 0;  ///< Most tokens of a sequence.
  uint64_t max_rows = 0;
  std::string device;
};

/// How a prompt is fed.
struct FeedOptions {
  quern_role role = QUERN_ROLE_PREFILL;
  /// Tokens of one call; 0: the session's max_rows.
  size_t chunk = 0;
  /// Gets a row for every token, unless null.
  NpyFile* logits = nullptr;
  /// Draw a progress bar.
  bool progress = false;
};

/// What came out of Generate.
struct Answer {
  std::string text;
  std::vector<int32_t> tokens;
  std::string finish;  ///< "length", "end", "stop", "context" or "interrupted".
  double seconds = 0;
};

/// A loaded model with one session and one sequence. Ctrl-C and SIGTERM cancel the session.
class Engine {
 public:
  /// `progress`: draw a bar while weights are copied to a GPU. Errors: those of quern_model_load
  /// and quern_session_create.
  Engine(const std::string& path, const SessionFlags& flags, bool progress);

  const quern_model* model() const { return model_.get(); }
  quern_session* session() const { return session_.get(); }
  quern_sequence* sequence() const { return sequence_.get(); }
  const SessionFacts& facts() const { return facts_; }
  size_t vocab() const { return quern_model_vocab(model_.get()); }

  /// Tokens of `text`; `flags`: QUERN_TOKENIZE_*.
  std::vector<int32_t> Tokenize(std::string_view text, uint32_t flags) const;
  /// Tokens of a conversation, up to the beginning of an answer.
  std::vector<int32_t> TokenizeChat(const std::string& messages_json) const;

  /// Appends `tokens`. Errors: USAGE when they do not fit; what quern_sequence_feed says.
  void Feed(std::span<const int32_t> tokens, const FeedOptions& options);

  /// Forgets all but the first `length` tokens.
  void Truncate(size_t length);

  /// Generates, writing the text to standard output as it comes if `stream`. An interrupted answer
  /// is returned too; see SignalSeen.
  Answer Generate(const GenerationFlags& flags, bool stream);

 private:
  ModelHandle model_;
  SessionHandle session_;
  CancelOnSignal cancel_;  // before the session goes, signals must forget it
  SequenceHandle sequence_;
  SessionFacts facts_;
};

}  // namespace quern::tools

#include "runtime/tools/engine.h"

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

/// Draws how far the weights are on their way to a GPU.
struct UploadBar {
  std::optional<ProgressBar> bar;
  bool enabled;
};

void ShowUpload(void* user, uint64_t done, uint64_t total) {
  auto& upload = *static_cast<UploadBar*>(user);
  if (!upload.bar) upload.bar.emplace("weights", total, upload.enabled);
  upload.bar->Update(done);
}

SessionHandle CreateSession(quern_model* model, const SessionFlags& flags, bool progress) {
  UploadBar upload = {std::nullopt, progress};
  quern_session_options options = QUERN_SESSION_OPTIONS_INIT;
  options.threads = flags.threads;
  options.device = flags.device.empty() ? nullptr : flags.device.c_str();
  options.isa = flags.isa.empty() ? nullptr : flags.isa.c_str();
  options.context = flags.context;
  options.kv_tokens = flags.kv_tokens;
  options.max_rows = flags.chunk;
  options.pin_threads = flags.pin_threads;
  options.progress = ShowUpload;
  options.progress_user = &upload;
  const BlockSignals block;  // the session's threads leave signals to the main thread
  quern_session* session = nullptr;
  quern_error error = {};
  Check(quern_session_create(model, &options, &session, &error), error);
  return SessionHandle(session);
}

SequenceHandle CreateSequence(quern_session* session) {
  quern_sequence* sequence = nullptr;
  quern_error error = {};
  Check(quern_sequence_create(session, &sequence, &error), error);
  return SequenceHandle(sequence);
}

SessionFacts ReadFacts(const quern_session* session) {
  const auto json = nlohmann::json::parse(quern_session_json(session));
  return {json.at("target"), json.at("threads"), json.at("context"), json.at("max_rows"),
          json.at("device")};
}

const char* FinishName(quern_finish finish) {
  switch (finish) {
    case QUERN_FINISH_LENGTH:
      return "length";
    case QUERN_FINISH_END:
      return "end";
    case QUERN_FINISH_STOP:
      return "stop";
    case QUERN_FINISH_CONTEXT:
      return "context";
    case QUERN_FINISH_CALLER:
    case QUERN_FINISH_CANCEL:
      return "interrupted";
  }
  return "interrupted";
}

/// What the text callback works on.
struct Receiver {
  Answer* answer;
  bool stream;
  std::exception_ptr failure;  // exceptions must not pass through the C interface
};

int32_t Receive(void* user, const char* text, size_t length, int32_t token) {
  auto& receiver = *static_cast<Receiver*>(user);
  try {
    RequireMappings();
    if (token >= 0) receiver.answer->tokens.push_back(token);
    receiver.answer->text.append(text, length);
    if (receiver.stream && length > 0) WriteOutput({text, length});
    return 0;
  } catch (...) {
    receiver.failure = std::current_exception();
    return 1;
  }
}

}  // namespace

Engine::Engine(const std::string& path, const SessionFlags& flags, bool progress)
    : model_(LoadModel(path, flags.check_weights, flags.trust.Keys())),
      session_(CreateSession(model_.get(), flags, progress)),
      cancel_(session_.get()),
      sequence_(CreateSequence(session_.get())),
      facts_(ReadFacts(session_.get())) {}

std::vector<int32_t> Engine::Tokenize(std::string_view text, uint32_t flags) const {
  int32_t* tokens = nullptr;
  size_t count = 0;
  quern_error error = {};
  Check(quern_tokenize(model(), text.data(), text.size(), flags, &tokens, &count, &error), error);
  const TokensHandle owner(tokens);
  return {tokens, tokens + count};
}

std::vector<int32_t> Engine::TokenizeChat(const std::string& messages_json) const {
  int32_t* tokens = nullptr;
  size_t count = 0;
  quern_error error = {};
  Check(quern_chat_tokenize(model(), messages_json.c_str(), 1, &tokens, &count, &error), error);
  const TokensHandle owner(tokens);
  return {tokens, tokens + count};
}

void Engine::Feed(std::span<const int32_t> tokens, const FeedOptions& options) {
  const size_t length = quern_sequence_length(sequence());
  if (tokens.size() > facts_.context - std::min<uint64_t>(facts_.context, length)) {
    const size_t most = quern_model_context(model());
    throw CommandError(
        QUERN_USAGE,
        "the prompt has " + std::to_string(length + tokens.size()) +
            " tokens but the context has room for " + std::to_string(facts_.context) +
            "; shorten it" +
            (facts_.context < most ? ", or raise --ctx-size up to " + std::to_string(most) : ""));
  }
  const size_t chunk = options.chunk ? options.chunk : facts_.max_rows;
  std::vector<float> rows(options.logits ? std::min(chunk, tokens.size()) * vocab() : 0);
  ProgressBar bar("prompt", tokens.size(), options.progress && tokens.size() > chunk);
  for (size_t done = 0; done < tokens.size();) {
    const size_t count = std::min(chunk, tokens.size() - done);
    quern_error error = {};
    const quern_status_code code =
        quern_sequence_feed(sequence(), tokens.data() + done, count, options.role,
                            options.logits ? rows.data() : nullptr, &error);
    RequireMappings();
    Check(code, error);
    if (options.logits) options.logits->Write(rows.data(), count * vocab() * sizeof(float));
    done += count;
    bar.Update(done);
  }
}

void Engine::Truncate(size_t length) {
  quern_error error = {};
  Check(quern_sequence_truncate(sequence(), length, &error), error);
}

Answer Engine::Generate(const GenerationFlags& flags, bool stream) {
  Answer answer;
  quern_error error = {};
  Check(quern_sequence_set_sampling(sequence(), &flags.sampling, &error), error);
  std::vector<const char*> stops;
  stops.reserve(flags.stop.size());
  for (const std::string& stop : flags.stop) stops.push_back(stop.c_str());
  quern_generate_options options = QUERN_GENERATE_OPTIONS_INIT;
  options.max_tokens = flags.max_tokens > 0 ? static_cast<uint64_t>(flags.max_tokens) : 0;
  options.stop = stops.data();
  options.stop_count = stops.size();
  options.ignore_end = flags.ignore_end;
  Receiver receiver = {&answer, stream, nullptr};
  quern_generate_result result = {};
  const Stopwatch watch;
  const quern_status_code code =
      quern_generate(sequence(), &options, Receive, &receiver, &result, &error);
  answer.seconds = watch.Seconds();
  if (receiver.failure) std::rethrow_exception(receiver.failure);
  RequireMappings();
  if (code != QUERN_CANCELLED) Check(code, error);
  answer.finish = FinishName(result.finish);
  return answer;
}

}  // namespace quern::tools

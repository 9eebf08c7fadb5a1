// quern.h: sessions, sequences, generating.

#include "runtime/api/describe.h"
#include "runtime/api/handles.h"
#include "runtime/llm/generate.h"

using quern::Status;
using quern::UsageError;
using quern::api::CopyOut;
using quern::api::Guard;
using quern::api::ReadOptions;
using quern::api::Require;

namespace {

/// Value of an unsigned option as the runtime's signed one.
quern::Result<int64_t> Signed(const char* name, uint64_t value) {
  if (value <= INT64_MAX) return static_cast<int64_t>(value);
  return UsageError(std::string(name) + " is " + std::to_string(value) + ", which is too large");
}

quern::Result<quern::SessionOptions> SessionOptionsFrom(const quern_session_options& given) {
  quern::SessionOptions options;
  if (given.threads > 4096) {
    return UsageError("threads is " + std::to_string(given.threads) + ", wanted 0 to 4096");
  }
  options.threads = static_cast<int>(given.threads);
  options.pin_threads = given.pin_threads != 0;
  options.isa = given.isa ? given.isa : "";
  options.device = given.device ? given.device : "";
  if (given.progress) {
    options.progress = [call = given.progress, user = given.progress_user](
                           uint64_t done, uint64_t total) { call(user, done, total); };
  }
  QUERN_ASSIGN_OR_RETURN(options.context, Signed("context", given.context));
  QUERN_ASSIGN_OR_RETURN(options.kv_tokens, Signed("kv_tokens", given.kv_tokens));
  options.max_rows = given.max_rows;
  return options;
}

quern::SamplerOptions SamplerOptionsFrom(const quern_sampling& given) {
  quern::SamplerOptions options;
  options.temperature = given.temperature;
  options.repeat_penalty = given.repeat_penalty == 0.0f ? 1.0f : given.repeat_penalty;
  options.repeat_last_n = given.repeat_last_n == 0 ? 64 : given.repeat_last_n;
  options.top_k = given.top_k;
  options.top_p = given.top_p == 0.0f ? 1.0f : given.top_p;
  options.min_p = given.min_p;
  options.seed = given.seed;
  return options;
}

/// Tokens and their count as a span; kUsage for NULL with a count.
quern::Result<std::span<const int32_t>> Tokens(const int32_t* tokens, size_t count) {
  QUERN_RETURN_IF_ERROR(count == 0 ? Status() : Require(tokens, "tokens"));
  return std::span<const int32_t>(tokens, count);
}

quern::Result<quern::schema::Role> RoleFrom(quern_role role) {
  switch (role) {
    case QUERN_ROLE_DECODE:
      return quern::schema::Role::Decode;
    case QUERN_ROLE_PREFILL:
      return quern::schema::Role::Prefill;
  }
  return UsageError("role is " + std::to_string(role) + ", wanted a quern_role");
}

}  // namespace

quern_status_code quern_session_create(quern_model* model, const quern_session_options* given,
                                       quern_session** session, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(model, "model"));
    QUERN_RETURN_IF_ERROR(Require(session, "session"));
    quern_session_options read = QUERN_SESSION_OPTIONS_INIT;
    QUERN_RETURN_IF_ERROR(ReadOptions(given, read));
    QUERN_ASSIGN_OR_RETURN(const quern::SessionOptions options, SessionOptionsFrom(read));
    QUERN_ASSIGN_OR_RETURN(auto created, quern::Session::Create(model->model, options));
    std::string json = quern::api::DescribeSession(*created);
    *session = new quern_session{std::move(created), std::move(json)};
    return {};
  });
}

void quern_session_free(quern_session* session) { delete session; }

const char* quern_session_json(const quern_session* session) {
  return session ? session->json.c_str() : "";
}

void quern_session_cancel(quern_session* session) {
  if (session) session->session->Cancel();
}

void quern_session_set_profiling(quern_session* session, int32_t enabled) {
  if (!session) return;
  // Without memory for the numbers there are none.
  Guard(nullptr, [&]() -> Status {
    session->session->executor().SetProfiling(enabled != 0);
    return {};
  });
}

quern_status_code quern_session_profile(quern_session* session, char** json, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(session, "session"));
    QUERN_RETURN_IF_ERROR(Require(json, "json"));
    return CopyOut(quern::api::DescribeProfile(session->session->executor()), json);
  });
}

quern_status_code quern_sequence_create(quern_session* session, quern_sequence** sequence,
                                        quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(session, "session"));
    QUERN_RETURN_IF_ERROR(Require(sequence, "sequence"));
    *sequence = new quern_sequence{session->session->NewSequence(), session};
    return {};
  });
}

void quern_sequence_free(quern_sequence* sequence) { delete sequence; }

quern_status_code quern_sequence_fork(const quern_sequence* sequence, quern_sequence** fork,
                                      quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(sequence, "sequence"));
    QUERN_RETURN_IF_ERROR(Require(fork, "fork"));
    *fork = new quern_sequence{sequence->sequence->Fork(), sequence->owner};
    return {};
  });
}

size_t quern_sequence_length(const quern_sequence* sequence) {
  return sequence ? static_cast<size_t>(sequence->sequence->length()) : 0;
}

const int32_t* quern_sequence_tokens(const quern_sequence* sequence) {
  return sequence ? sequence->sequence->tokens().data() : nullptr;
}

quern_status_code quern_sequence_truncate(quern_sequence* sequence, size_t length,
                                          quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(sequence, "sequence"));
    QUERN_ASSIGN_OR_RETURN(const int64_t kept, Signed("length", length));
    return sequence->sequence->Truncate(kept);
  });
}

quern_status_code quern_sequence_feed(quern_sequence* sequence, const int32_t* tokens, size_t count,
                                      quern_role role, float* all_logits, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(sequence, "sequence"));
    QUERN_ASSIGN_OR_RETURN(const auto ids, Tokens(tokens, count));
    QUERN_ASSIGN_OR_RETURN(const auto numerics, RoleFrom(role));
    return sequence->sequence->Feed(ids, numerics, all_logits);
  });
}

quern_status_code quern_decode(quern_session* session, quern_sequence* const* sequences,
                               const int32_t* tokens, size_t count, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(session, "session"));
    QUERN_RETURN_IF_ERROR(count == 0 ? Status() : Require(sequences, "sequences"));
    QUERN_ASSIGN_OR_RETURN(const auto ids, Tokens(tokens, count));
    std::vector<quern::Sequence*> list;
    for (size_t i = 0; i < count; ++i) {
      QUERN_RETURN_IF_ERROR(Require(sequences[i], "a sequence"));
      list.push_back(sequences[i]->sequence.get());
    }
    return session->session->Decode(list, ids);
  });
}

const float* quern_sequence_logits(const quern_sequence* sequence) {
  if (!sequence) return nullptr;
  const std::span<const float> logits = sequence->sequence->logits();
  return logits.empty() ? nullptr : logits.data();
}

quern_status_code quern_sequence_set_sampling(quern_sequence* sequence,
                                              const quern_sampling* sampling, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(sequence, "sequence"));
    quern_sampling read = QUERN_SAMPLING_INIT;
    QUERN_RETURN_IF_ERROR(ReadOptions(sampling, read));
    return sequence->sequence->SetSampling(SamplerOptionsFrom(read));
  });
}

quern_status_code quern_sequence_sample(quern_sequence* sequence, int32_t* token,
                                        quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(sequence, "sequence"));
    QUERN_RETURN_IF_ERROR(Require(token, "token"));
    QUERN_ASSIGN_OR_RETURN(*token, sequence->sequence->Sample());
    return {};
  });
}

quern_status_code quern_generate(quern_sequence* sequence, const quern_generate_options* given,
                                 quern_text_callback callback, void* user,
                                 quern_generate_result* result, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(sequence, "sequence"));
    quern_generate_options read = QUERN_GENERATE_OPTIONS_INIT;
    QUERN_RETURN_IF_ERROR(ReadOptions(given, read));
    quern::GenerateOptions options;
    options.max_tokens = read.max_tokens;
    options.ignore_end = read.ignore_end != 0;
    options.show_control = read.show_control != 0;
    QUERN_RETURN_IF_ERROR(read.stop_count == 0 ? Status() : Require(read.stop, "stop"));
    for (size_t i = 0; i < read.stop_count; ++i) {
      QUERN_RETURN_IF_ERROR(Require(read.stop[i], "a stop string"));
      options.stop.emplace_back(read.stop[i]);
    }
    quern::TextCallback show;
    if (callback) {
      show = [&](std::string_view text, int32_t token) {
        return callback(user, text.data(), text.size(), token) == 0;
      };
    }
    quern::GenerateResult done;
    const Status status = quern::Generate(*sequence->sequence, options, show, done);
    if (result) *result = {static_cast<quern_finish>(done.finish), done.tokens};
    return status;
  });
}

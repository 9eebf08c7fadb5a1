// quern.h: version, models, text.
#include <cstdlib>

#include "runtime/api/describe.h"
#include "runtime/api/handles.h"
#include "runtime/llm/chat.h"

using quern::Status;
using quern::api::CopyOut;
using quern::api::Guard;
using quern::api::ReadOptions;
using quern::api::Require;

namespace {

quern::Result<quern::LoadOptions> LoadOptionsFrom(const quern_model_options* given) {
  quern_model_options read = QUERN_MODEL_OPTIONS_INIT;
  QUERN_RETURN_IF_ERROR(ReadOptions(given, read));
  quern::LoadOptions options;
  options.copy = read.copy != 0;
  options.check_weights = read.check_weights != 0;
  if (read.trusted_keys) {
    QUERN_ASSIGN_OR_RETURN(options.trusted_keys, quern::ParsePublicKeys(read.trusted_keys));
  }
  return options;
}

}  // namespace

uint32_t quern_api_version(void) { return QUERN_API_VERSION; }

const char* quern_version(void) { return QUERN_VERSION; }

void quern_free(void* memory) { std::free(memory); }

quern_status_code quern_model_load(const char* path, const quern_model_options* given,
                                   quern_model** model, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(path, "path"));
    QUERN_RETURN_IF_ERROR(Require(model, "model"));
    QUERN_ASSIGN_OR_RETURN(const quern::LoadOptions options, LoadOptionsFrom(given));
    QUERN_ASSIGN_OR_RETURN(auto loaded, quern::Model::Load(path, options));
    std::string json = quern::api::DescribeModel(*loaded);
    *model = new quern_model{std::move(loaded), std::move(json)};
    return {};
  });
}

void quern_model_free(quern_model* model) { delete model; }

const char* quern_model_json(const quern_model* model) { return model ? model->json.c_str() : ""; }

size_t quern_model_vocab(const quern_model* model) {
  return model ? static_cast<size_t>(model->model->vocab()) : 0;
}

size_t quern_model_context(const quern_model* model) {
  return model ? static_cast<size_t>(model->model->context()) : 0;
}

const void* quern_model_record(const quern_model* model, quern_record_kind kind, size_t index,
                               size_t* bytes) {
  if (!model || !bytes) return nullptr;
  for (const quern::Record& record : model->model->artifact().records()) {
    if (static_cast<uint32_t>(record.kind) != static_cast<uint32_t>(kind) || index-- != 0) continue;
    *bytes = record.bytes.size();
    return record.bytes.data();
  }
  return nullptr;
}

quern_status_code quern_record_add(const char* path, quern_record_kind kind, const void* data,
                                   size_t bytes, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(path, "path"));
    QUERN_RETURN_IF_ERROR(bytes == 0 ? Status() : Require(data, "data"));
    return quern::AppendRecord(path, static_cast<quern::RecordKind>(kind),
                               {static_cast<const uint8_t*>(data), bytes});
  });
}

quern_status_code quern_verify(const char* path, const quern_model_options* given, char** json,
                               quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(path, "path"));
    QUERN_ASSIGN_OR_RETURN(const quern::LoadOptions options, LoadOptionsFrom(given));
    std::string report;
    Status verdict = quern::api::VerifyFile(path, options, report);
    if (json) QUERN_RETURN_IF_ERROR(CopyOut(report, json));
    return verdict;
  });
}

quern_status_code quern_doctor(char** json, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(json, "json"));
    return CopyOut(quern::api::DescribeMachine(), json);
  });
}

quern_status_code quern_tokenize(const quern_model* model, const char* text, size_t length,
                                 uint32_t flags, int32_t** tokens, size_t* count,
                                 quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(model, "model"));
    QUERN_RETURN_IF_ERROR(length == 0 ? Status() : Require(text, "text"));
    QUERN_RETURN_IF_ERROR(Require(tokens, "tokens"));
    QUERN_RETURN_IF_ERROR(Require(count, "count"));
    QUERN_ASSIGN_OR_RETURN(const quern::Tokenizer* tokenizer, model->model->RequireTokenizer());
    QUERN_ASSIGN_OR_RETURN(
        auto ids, tokenizer->Encode(std::string_view(text ? text : "", length),
                                    {.add_special = !(flags & QUERN_TOKENIZE_PLAIN),
                                     .parse_special = (flags & QUERN_TOKENIZE_CONTROL) != 0}));
    QUERN_RETURN_IF_ERROR(CopyOut(std::span<const int32_t>(ids), tokens));
    *count = ids.size();
    return {};
  });
}

quern_status_code quern_detokenize(const quern_model* model, const int32_t* tokens, size_t count,
                                   uint32_t flags, char** text, size_t* length,
                                   quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(model, "model"));
    QUERN_RETURN_IF_ERROR(count == 0 ? Status() : Require(tokens, "tokens"));
    QUERN_RETURN_IF_ERROR(Require(text, "text"));
    QUERN_ASSIGN_OR_RETURN(const quern::Tokenizer* tokenizer, model->model->RequireTokenizer());
    QUERN_ASSIGN_OR_RETURN(
        const std::string bytes,
        tokenizer->Decode({tokens, count},
                          {.skip_special = (flags & QUERN_DETOKENIZE_SKIP_CONTROL) != 0}));
    QUERN_RETURN_IF_ERROR(CopyOut(bytes, text));
    if (length) *length = bytes.size();
    return {};
  });
}

int32_t quern_token_is_end(const quern_model* model, int32_t token) {
  const quern::Tokenizer* tokenizer = model ? model->model->tokenizer() : nullptr;
  return tokenizer && tokenizer->IsEndOfGeneration(token);
}

quern_status_code quern_chat_tokenize(const quern_model* model, const char* messages_json,
                                      int32_t add_generation_prompt, int32_t** tokens,
                                      size_t* count, quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(model, "model"));
    QUERN_RETURN_IF_ERROR(Require(messages_json, "messages_json"));
    QUERN_RETURN_IF_ERROR(Require(tokens, "tokens"));
    QUERN_RETURN_IF_ERROR(Require(count, "count"));
    QUERN_ASSIGN_OR_RETURN(const quern::Tokenizer* tokenizer, model->model->RequireTokenizer());
    QUERN_ASSIGN_OR_RETURN(
        const std::vector<int32_t> ids,
        quern::EncodeChat(*tokenizer, messages_json, add_generation_prompt != 0));
    QUERN_RETURN_IF_ERROR(CopyOut(std::span<const int32_t>(ids), tokens));
    *count = ids.size();
    return {};
  });
}

quern_status_code quern_chat_render(const quern_model* model, const char* messages_json,
                                    int32_t add_generation_prompt, char** text,
                                    quern_error* error) {
  return Guard(error, [&]() -> Status {
    QUERN_RETURN_IF_ERROR(Require(model, "model"));
    QUERN_RETURN_IF_ERROR(Require(messages_json, "messages_json"));
    QUERN_RETURN_IF_ERROR(Require(text, "text"));
    QUERN_ASSIGN_OR_RETURN(const quern::Tokenizer* tokenizer, model->model->RequireTokenizer());
    QUERN_ASSIGN_OR_RETURN(
        const std::string rendered,
        quern::RenderChat(*tokenizer, messages_json, add_generation_prompt != 0));
    return CopyOut(rendered, text);
  });
}

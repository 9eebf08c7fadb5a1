// What the opaque types of quern.h are, and how calls cross the C boundary.
#pragma once

#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>

#include "quern.h"
#include "runtime/base/status.h"
#include "runtime/llm/model.h"
#include "runtime/llm/session.h"

struct quern_model {
  std::shared_ptr<const quern::Model> model;
  std::string json;
};

struct quern_session {
  std::unique_ptr<quern::Session> session;
  std::string json;
};

struct quern_sequence {
  std::unique_ptr<quern::Sequence> sequence;
  quern_session* owner;
};

namespace quern::api {

/// Hands `status` to the caller.
quern_status_code Report(const Status& status, quern_error* error);

/// Runs `body`, which returns a Status, and lets no exception out: the standard library throws when
/// memory is used up.
template <typename Body>
quern_status_code Guard(quern_error* error, Body body) {
  try {
    return Report(body(), error);
  } catch (const std::bad_alloc&) {
    return Report(OutOfMemory("no memory left"), error);
  } catch (const std::exception& exception) {
    return Report(Failure(exception.what()), error);
  }
}

/// kUsage when `pointer` is null.
Status Require(const void* pointer, const char* name);

/// Reads a struct that begins with its size; what an older caller leaves out keeps its default.
template <typename Options>
Status ReadOptions(const Options* given, Options& options) {
  if (!given) return {};
  if (given->size < sizeof(size_t) || given->size > sizeof(Options)) {
    return UsageError(
        "options of " + std::to_string(given->size) + " bytes, wanted up to " +
        std::to_string(sizeof(Options)) +
        "; initialise them with their _INIT macro and build with this library's header");
  }
  std::memcpy(&options, given, given->size);
  return {};
}

/// Copies into memory that quern_free frees, with a zero behind.
Status CopyOut(std::string_view text, char** out);
Status CopyOut(std::span<const int32_t> tokens, int32_t** out);

}  // namespace quern::api

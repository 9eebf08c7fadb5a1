// How the template engine fails inside: an exception that Template turns into a Status.
#pragma once

#include <string>

#include "runtime/base/status.h"

namespace quern::jinja {

/// Never leaves Template::Parse, Template::Render and ParseJson.
struct TemplateError {
  StatusCode code;
  std::string message;
  int line = 0;  ///< 0: not known yet; whoever knows it fills it in.
};

/// The template, or its data, is wrong.
[[noreturn]] inline void Fail(std::string message, int line = 0) {
  throw TemplateError{StatusCode::kMalformed, std::move(message), line};
}

/// The template asks for what this engine leaves out.
[[noreturn]] inline void FailUnsupported(std::string message, int line = 0) {
  throw TemplateError{StatusCode::kUnsupported, std::move(message), line};
}

}  // namespace quern::jinja

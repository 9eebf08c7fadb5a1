// JSON descriptions: of an artifact, a session, a profile, a file's checks, this machine.
#pragma once

#include <string>

#include "runtime/base/status.h"
#include "runtime/llm/model.h"
#include "runtime/llm/session.h"

namespace quern::api {

/// See quern_model_json.
std::string DescribeModel(const Model& model);
/// See quern_session_json.
std::string DescribeSession(const Session& session);
/// See quern_session_profile.
std::string DescribeProfile(const Executor& executor);

/// See quern_verify. The status is that of the first failed check.
Status VerifyFile(const std::string& path, const LoadOptions& options, std::string& json);
/// See quern_doctor.
std::string DescribeMachine();

}  // namespace quern::api

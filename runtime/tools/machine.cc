#include "runtime/tools/machine.h"

#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/tools/handles.h"

namespace quern::tools {

nlohmann::ordered_json DescribeMachine() {
  char* text = nullptr;
  quern_error error = {};
  Check(quern_doctor(&text, &error), error);
  const TextHandle owner(text);
  return nlohmann::ordered_json::parse(text);
}

std::string FindCompiler() {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path here = fs::read_symlink("/proc/self/exe", error).parent_path();
  if (error) return {};
  const fs::path candidates[] = {here / "quern-compile",
                                 here.parent_path() / "libexec" / "quern" / "quern-compile"};
  for (const fs::path& candidate : candidates) {
    if (fs::is_regular_file(candidate, error) && access(candidate.c_str(), X_OK) == 0) {
      return candidate.string();
    }
  }
  return {};
}

}  // namespace quern::tools

// Reading the checked-in golden files.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace quern {

/// A file of tests/golden; the test fails when it is not there.
inline std::string ReadGolden(const std::string& name) {
  std::ifstream file(std::string(QUERN_GOLDEN_DIR) + "/" + name, std::ios::binary);
  EXPECT_TRUE(file) << "cannot open tests/golden/" << name;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline nlohmann::ordered_json ReadGoldenJson(const std::string& name) {
  return nlohmann::ordered_json::parse(ReadGolden(name));
}

}  // namespace quern

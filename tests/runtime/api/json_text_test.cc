// The JSON that the library writes.
#include "runtime/api/json_text.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace quern::api {
namespace {

TEST(JsonText, WritesEveryKindOfValue) {
  Json object = {{"none", nullptr},
                 {"yes", true},
                 {"int", int64_t{-9223372036854775807} - 1},
                 {"unsigned", uint64_t{18446744073709551615u}},
                 {"double", 0.1},
                 {"whole", 3.0},
                 {"tiny", 5e-324},
                 {"infinite", std::numeric_limits<double>::infinity()},
                 {"list", std::vector<std::string>{"a", "b"}},
                 {"map", std::map<std::string, uint64_t>{{"x", 1}}},
                 {"empty", Json::Object()},
                 {"nested", {{"deep", Json::Array()}}}};
  object.Set("last", "z");
  EXPECT_EQ(object.text(),
            R"({"none":null,"yes":true,"int":-9223372036854775808,"unsigned":18446744073709551615,)"
            R"("double":0.1,"whole":3.0,"tiny":5e-324,"infinite":null,"list":["a","b"],)"
            R"("map":{"x":1},"empty":{},"nested":{"deep":[]},"last":"z"})");
  EXPECT_EQ(Json(std::vector<int>()).text(), "[]");
}

TEST(JsonText, AnyStringReadsBack) {
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  all += "\u00e9\u4e2d\U0001F600";
  EXPECT_EQ(nlohmann::json::parse(Json(all).text()).get<std::string>(), all);
  EXPECT_EQ(nlohmann::json::parse(Json("a\xff(\xed\xa0\x80").text()).get<std::string>(),
            "a\uFFFD(\uFFFD\uFFFD\uFFFD");
}

}  // namespace
}  // namespace quern::api

// JSON, written. A value is kept as its text and built from the inside out, so that nothing is
// allocated when it is destroyed: a tree's destructor that needs memory would end the host's
// process when there is none.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern::api {

class Json {
 public:
  Json(std::nullptr_t) : text_("null") {}                // NOLINT: implicit on purpose
  Json(bool value) : text_(value ? "true" : "false") {}  // NOLINT
  Json(std::signed_integral auto value) : text_(std::to_string(value)) {}    // NOLINT
  Json(std::unsigned_integral auto value) : text_(std::to_string(value)) {}  // NOLINT
  /// The shortest text that reads back as `value`; null when it is not finite.
  Json(double value);  // NOLINT
  /// A string; ill-formed UTF-8 in it becomes U+FFFD.
  Json(std::string_view value);                                      // NOLINT
  Json(const std::string& value) : Json(std::string_view(value)) {}  // NOLINT
  Json(const char* value) : Json(std::string_view(value)) {}         // NOLINT
  /// An array.
  template <typename T>
  Json(const std::vector<T>& values) : Json(Array()) {  // NOLINT
    for (const T& value : values) Add(value);
  }
  template <typename T, size_t kSize>
  Json(const std::array<T, kSize>& values) : Json(Array()) {  // NOLINT
    for (const T& value : values) Add(value);
  }
  /// An object.
  template <typename T>
  Json(const std::map<std::string, T>& values) : Json(Object()) {  // NOLINT
    for (const auto& [key, value] : values) Set(key, value);
  }
  Json(std::initializer_list<std::pair<std::string_view, Json>> members)  // NOLINT
      : Json(Object()) {
    for (const auto& [key, value] : members) Set(key, value);
  }

  static Json Array() { return Json("[]", Raw()); }
  static Json Object() { return Json("{}", Raw()); }

  /// Appends to an array.
  void Add(const Json& value);
  /// Appends to an object. The key must not be there yet.
  void Set(std::string_view key, const Json& value);

  const std::string& text() const { return text_; }

 private:
  struct Raw {};
  Json(const char* text, Raw) : text_(text) {}
  /// Opens the closed text for one more member.
  void Continue();

  std::string text_;
};

}  // namespace quern::api

// JSON text to values. nlohmann's event parser does the reading; it neither recurses nor throws
// when driven this way.
#include <nlohmann/json.hpp>

#include "runtime/llm/template/error.h"
#include "runtime/llm/template/value.h"

namespace quern::jinja {
namespace {

/// Builds values from parse events; `error` says why it stopped.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return Add(Value(None{})); }
  bool boolean(bool value) override { return Add(Value(value)); }
  bool number_integer(int64_t value) override { return Add(Value(value)); }
  bool number_unsigned(uint64_t value) override {
    if (value > uint64_t{INT64_MAX}) return Refuse(std::to_string(value) + " needs over 64 bits");
    return Add(Value(static_cast<int64_t>(value)));
  }
  bool number_float(double value, const std::string& text) override {
    if (text.find_first_of(".eE") == std::string::npos)
      return Refuse("the integer " + text.substr(0, 40) + " needs over 64 bits");
    return Add(Value(value));
  }
  bool string(std::string& value) override { return Add(Value(std::move(value))); }
  bool binary(binary_t&) override { return Refuse("binary data is not JSON"); }
  bool start_object(size_t) override { return Open(/*is_dict=*/true); }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(/*is_dict=*/false); }
  bool end_array() override { return Close(); }
  bool key(std::string& value) override {
    open_.back().key = std::move(value);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    return Refuse("ill-formed JSON at byte " + std::to_string(position));
  }

  std::string error;
  Value result;

 private:
  struct Container {
    bool is_dict;
    std::string key;
    std::vector<Value> items;
    std::shared_ptr<Dict> dict;
  };

  bool Refuse(std::string why) {
    error = std::move(why);
    return false;
  }

  bool Open(bool is_dict) {
    if (open_.size() >= size_t{kMaxValueDepth})
      return Refuse("JSON nests deeper than " + std::to_string(kMaxValueDepth));
    open_.push_back({is_dict, {}, {}, is_dict ? std::make_shared<Dict>() : nullptr});
    return true;
  }

  bool Close() {
    Container container = std::move(open_.back());
    open_.pop_back();
    return Add(container.is_dict ? Value(std::move(container.dict))
                                 : Value(std::make_shared<List>(std::move(container.items))));
  }

  bool Add(Value value) {
    if (open_.empty())
      result = std::move(value);
    else if (open_.back().is_dict)
      open_.back().dict->Set(Value(open_.back().key), std::move(value));
    else
      open_.back().items.push_back(std::move(value));
    return true;
  }

  std::vector<Container> open_;
};

}  // namespace

Result<Value> ParseJson(std::string_view json) try {
  Builder builder;
  if (!nlohmann::json::sax_parse(json, &builder)) return UsageError(builder.error);
  return std::move(builder.result);
} catch (const TemplateError& error) {
  return UsageError(error.message);
} catch (const std::bad_alloc&) {
  return OutOfMemory("no memory for " + std::to_string(json.size()) + " bytes of JSON");
}

}  // namespace quern::jinja

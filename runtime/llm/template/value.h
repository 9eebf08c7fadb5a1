// The values that a template computes with: Python's, as far as chat templates need them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/status.h"

namespace quern::jinja {

class Value;
class List;
class Dict;
struct Namespace;
struct Callable;

/// What a name that is not there evaluates to: prints as nothing, fails when used.
struct Undefined {
  std::shared_ptr<const std::string> what;  ///< For the message: `'tools' is undefined`.
};

struct None {};

/// A value is cheap to copy: strings and containers are shared and never change, as in jinja2's
/// immutable sandbox. Only a Namespace can be assigned to.
class Value {
 public:
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kDouble,
    kString,
    kList,
    kDict,
    kNamespace,
    kCallable
  };

  Value() : data_(None{}) {}
  Value(Undefined undefined) : data_(std::move(undefined)) {}      // NOLINT: implicit on purpose
  Value(None) : data_(None{}) {}                                   // NOLINT
  Value(bool value) : data_(value) {}                              // NOLINT
  Value(int value) : data_(int64_t{value}) {}                      // NOLINT
  Value(int64_t value) : data_(value) {}                           // NOLINT
  Value(double value) : data_(value) {}                            // NOLINT
  Value(std::string value);                                        // NOLINT
  Value(std::string_view value);                                   // NOLINT
  Value(const char* value);                                        // NOLINT
  Value(std::shared_ptr<List> value) : data_(std::move(value)) {}  // NOLINT
  Value(std::shared_ptr<const Dict> value) : data_(std::move(value)) {}  // NOLINT
  Value(std::shared_ptr<Dict> value)
      : data_(std::shared_ptr<const Dict>(std::move(value))) {}              // NOLINT
  Value(std::shared_ptr<Namespace> value) : data_(std::move(value)) {}       // NOLINT
  Value(std::shared_ptr<const Callable> value) : data_(std::move(value)) {}  // NOLINT

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_int() const { return kind() == Kind::kInt; }
  bool is_double() const { return kind() == Kind::kDouble; }
  bool is_number() const { return is_bool() || is_int() || is_double(); }
  /// An int, or a bool as Python's int.
  bool is_integral() const { return is_bool() || is_int(); }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_list() const { return kind() == Kind::kList; }
  bool is_dict() const { return kind() == Kind::kDict; }
  bool is_namespace() const { return kind() == Kind::kNamespace; }
  bool is_callable() const { return kind() == Kind::kCallable; }

  const Undefined& undefined() const { return std::get<Undefined>(data_); }
  bool boolean() const { return std::get<bool>(data_); }
  /// Of an integral value.
  int64_t integer() const { return is_bool() ? int64_t{boolean()} : std::get<int64_t>(data_); }
  /// Of a number.
  double number() const { return is_double() ? std::get<double>(data_) : double(integer()); }
  const std::string& string() const { return *std::get<std::shared_ptr<const std::string>>(data_); }
  List& list() const { return *std::get<std::shared_ptr<List>>(data_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Namespace& ns() const { return *std::get<std::shared_ptr<Namespace>>(data_); }
  const Callable& callable() const { return *std::get<std::shared_ptr<const Callable>>(data_); }

  /// Containers inside containers, this one included; 0 for a scalar.
  int depth() const;
  /// What walking the value costs: its parts, counted as often as they are reached, long strings
  /// by their length.
  uint64_t weight() const;
  /// Python's name of the type, for messages: `'int'`, `'str'`.
  std::string_view TypeName() const;
  /// The same object, as Python's `is`.
  bool SameAs(const Value& other) const;

 private:
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
               std::shared_ptr<List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
               std::shared_ptr<const Callable>>
      data_;
};

/// How deep values may nest, and how heavy a container may be. Parts are shared, so without the
/// second a few lines could build a value that takes forever to print.
inline constexpr int kMaxValueDepth = 128;
inline constexpr uint64_t kMaxValueWeight = uint64_t{1} << 23;

/// Python's sequences. A kIterator (what `map` and `select` give) can be walked once; the last
/// three are what a dict's methods give.
class List {
 public:
  enum class Flavor { kList, kTuple, kRange, kIterator, kItems, kKeys, kValues };

  explicit List(std::vector<Value> items, Flavor flavor = Flavor::kList);

  const std::vector<Value>& items() const { return items_; }
  Flavor flavor() const { return flavor_; }
  /// Whether list[0] has a meaning.
  bool indexable() const { return flavor_ <= Flavor::kRange; }
  int depth() const { return depth_; }
  uint64_t weight() const { return weight_; }
  /// What walking the list gives now; an iterator is used up by it.
  std::vector<Value> Take();
  /// The next item of an iterator, the first of any other list; nullopt at the end.
  std::optional<Value> TakeFirst();

 private:
  std::vector<Value> items_;
  Flavor flavor_;
  size_t taken_ = 0;  // items an iterator has given
  int depth_ = 1;
  uint64_t weight_ = 1;
};

/// A dict keeps the order of insertion.
class Dict {
 public:
  /// Null when there is no such key or `key` cannot be one.
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  const Value* Find(const char* key) const { return Find(std::string_view(key)); }
  /// Adds or replaces. False when `key` cannot be a key (lists and dicts cannot).
  bool Set(const Value& key, Value value);
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }
  uint64_t weight() const { return weight_; }

 private:
  std::vector<std::pair<Value, Value>> entries_;
  std::unordered_map<std::string, size_t> index_;  // by canonical key
  int depth_ = 1;
  uint64_t weight_ = 1;
};

/// `namespace()`: the one thing that a template may change. Also `loop`, which it may not.
struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
  /// Computed attributes, of `loop`; they cannot be assigned to.
  std::function<std::optional<Value>(std::string_view)> computed;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Evaluator;

/// A macro, a global function or a bound method.
struct Callable {
  std::string name;
  std::function<Value(Evaluator&, Arguments&)> call;
};

/// The value of a JSON text. Errors: kUsage with the byte offset for ill-formed JSON, for nesting
/// beyond kMaxValueDepth and for an integer outside 64 bits.
Result<Value> ParseJson(std::string_view json);

}  // namespace quern::jinja

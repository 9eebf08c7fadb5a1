#include "runtime/llm/template/value.h"

#include <cmath>

#include "runtime/llm/template/error.h"

namespace quern::jinja {
namespace {

/// A text that is equal for two values exactly when Python finds them equal as keys, or nullopt
/// for what cannot be a key.
std::optional<std::string> CanonicalKey(const Value& key) {
  switch (key.kind()) {
    case Value::Kind::kString:
      return "s" + key.string();
    case Value::Kind::kNone:
      return "n";
    case Value::Kind::kUndefined:
      return "u";
    case Value::Kind::kBool:
    case Value::Kind::kInt:
      return "i" + std::to_string(key.integer());
    case Value::Kind::kDouble: {
      const double number = key.number();
      if (number == std::floor(number) && std::abs(number) < 0x1p63)
        return "i" + std::to_string(static_cast<int64_t>(number));
      return "d" + std::to_string(number) + std::to_string(std::hash<double>{}(number));
    }
    case Value::Kind::kList: {
      if (key.list().flavor() != List::Flavor::kTuple) return std::nullopt;
      std::string joined = "t";
      for (const Value& item : key.list().items()) {
        const std::optional<std::string> part = CanonicalKey(item);
        if (!part) return std::nullopt;
        joined += std::to_string(part->size()) + ":" + *part;
      }
      return joined;
    }
    default:
      return std::nullopt;
  }
}

int DepthAbove(int inner) {
  if (inner >= kMaxValueDepth)
    Fail("values nest deeper than " + std::to_string(kMaxValueDepth) + " containers");
  return inner + 1;
}

uint64_t WeightWith(uint64_t weight, uint64_t part) {
  if (weight + part > kMaxValueWeight)
    Fail("a value is made of more than " + std::to_string(kMaxValueWeight) + " parts");
  return weight + part;
}

}  // namespace

Value::Value(std::string value) : data_(std::make_shared<const std::string>(std::move(value))) {}
Value::Value(std::string_view value) : Value(std::string(value)) {}
Value::Value(const char* value) : Value(std::string(value)) {}

int Value::depth() const {
  if (is_list()) return list().depth();
  if (is_dict()) return dict().depth();
  return 0;
}

uint64_t Value::weight() const {
  if (is_list()) return list().weight();
  if (is_dict()) return dict().weight();
  return is_string() ? 1 + string().size() / 64 : 1;
}

std::string_view Value::TypeName() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kDouble:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      switch (list().flavor()) {
        case List::Flavor::kList:
          return "list";
        case List::Flavor::kTuple:
          return "tuple";
        case List::Flavor::kIterator:
          return "generator";
        case List::Flavor::kRange:
          return "range";
        case List::Flavor::kItems:
          return "dict_items";
        case List::Flavor::kKeys:
          return "dict_keys";
        case List::Flavor::kValues:
          return "dict_values";
      }
      return "list";
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kCallable:
      return "function";
  }
  return "?";
}

bool Value::SameAs(const Value& other) const {
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kNone:
      return true;
    case Kind::kBool:
      return boolean() == other.boolean();
    case Kind::kInt:
      return integer() == other.integer();
    case Kind::kDouble:
      return number() == other.number();
    // Python shares equal short strings often enough that templates rely on it.
    case Kind::kString:
      return string() == other.string();
    case Kind::kList:
      return &list() == &other.list();
    case Kind::kDict:
      return &dict() == &other.dict();
    case Kind::kNamespace:
      return &ns() == &other.ns();
    case Kind::kCallable:
      return &callable() == &other.callable();
  }
  return false;
}

List::List(std::vector<Value> items, Flavor flavor) : items_(std::move(items)), flavor_(flavor) {
  for (const Value& item : items_) {
    depth_ = std::max(depth_, DepthAbove(item.depth()));
    weight_ = WeightWith(weight_, item.weight());
  }
}

std::vector<Value> List::Take() {
  if (flavor_ != Flavor::kIterator) return items_;
  std::vector<Value> rest(items_.begin() + static_cast<ptrdiff_t>(taken_), items_.end());
  taken_ = items_.size();
  return rest;
}

std::optional<Value> List::TakeFirst() {
  if (flavor_ != Flavor::kIterator) return items_.empty() ? std::nullopt : std::optional(items_[0]);
  if (taken_ == items_.size()) return std::nullopt;
  return items_[taken_++];
}

const Value* Dict::Find(const Value& key) const {
  const std::optional<std::string> canonical = CanonicalKey(key);
  if (!canonical) return nullptr;
  auto it = index_.find(*canonical);
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

const Value* Dict::Find(std::string_view key) const {
  auto it = index_.find("s" + std::string(key));
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

bool Dict::Set(const Value& key, Value value) {
  std::optional<std::string> canonical = CanonicalKey(key);
  if (!canonical) return false;
  depth_ = std::max(depth_, DepthAbove(value.depth()));
  weight_ = WeightWith(weight_, key.weight() + value.weight());
  auto [it, added] = index_.try_emplace(std::move(*canonical), entries_.size());
  if (added)
    entries_.emplace_back(key, std::move(value));
  else
    entries_[it->second].second = std::move(value);
  return true;
}

}  // namespace quern::jinja

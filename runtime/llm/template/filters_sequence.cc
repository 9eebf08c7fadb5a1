// Filters of sequences and mappings.
#include <algorithm>

#include "runtime/llm/template/arguments.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/filters.h"
#include "runtime/llm/template/operators.h"
#include "runtime/llm/template/python_string.h"
#include "runtime/llm/template/text.h"
#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

Value Iterator(Evaluator& evaluator, std::vector<Value> items) {
  return evaluator.List(std::move(items), List::Flavor::kIterator);
}

/// The key that a filter compares by: the item, an attribute of it, or with `kSeveral` a tuple of
/// attributes named with commas between. Strings may lose their case.
class Key {
 public:
  enum Attributes { kOne, kSeveral };

  Key(Evaluator& evaluator, const Value& attribute, bool case_sensitive,
      Attributes attributes = kOne)
      : evaluator_(evaluator), case_sensitive_(case_sensitive), attributes_(attributes) {
    if (attribute.is_none()) return;
    std::string path = attribute.is_integral() ? std::to_string(attribute.integer())
                                               : RequireString(attribute, "an attribute");
    if (attributes == kSeveral)
      paths_ = Split(path, &kComma, -1, false);
    else
      paths_ = {std::move(path)};
  }

  Value operator()(const Value& item) const {
    if (paths_.empty()) return Folded(item);
    if (attributes_ == kOne) return Folded(evaluator_.GetPath(item, paths_[0]));
    std::vector<Value> parts;
    for (const std::string& path : paths_) parts.push_back(Folded(evaluator_.GetPath(item, path)));
    return evaluator_.List(std::move(parts), List::Flavor::kTuple);
  }

 private:
  Value Folded(const Value& value) const {
    if (case_sensitive_ || !value.is_string()) return value;
    return evaluator_.String(Lower(value.string()));
  }

  inline static const std::string kComma = ",";
  Evaluator& evaluator_;
  bool case_sensitive_;
  Attributes attributes_;
  std::vector<std::string> paths_;
};

/// `items` by their keys, equals in their old order either way.
std::vector<Value> Sorted(Evaluator& evaluator, std::vector<Value> items, const Key& key,
                          bool reverse) {
  struct Entry {
    Value key;
    size_t index;
  };
  std::vector<Entry> entries;
  for (size_t i = 0; i < items.size(); ++i) entries.push_back({key(items[i]), i});
  // std::sort must not see an order that fails half way through, so merge sort by hand.
  std::vector<Entry> other(entries.size());
  for (size_t width = 1; width < entries.size(); width *= 2) {
    for (size_t begin = 0; begin < entries.size(); begin += 2 * width) {
      const auto middle = std::min(begin + width, entries.size());
      const auto end = std::min(begin + 2 * width, entries.size());
      size_t left = begin, right = middle;
      for (size_t to = begin; to < end; ++to) {
        bool take_right = left == middle;
        if (!take_right && right < end) {
          const int order = Order(evaluator, entries[right].key, entries[left].key);
          take_right = reverse ? order > 0 : order < 0;
        }
        other[to] = std::move(entries[take_right ? right++ : left++]);
      }
    }
    entries.swap(other);
  }
  std::vector<Value> sorted;
  for (const Entry& entry : entries) sorted.push_back(items[entry.index]);
  return sorted;
}

Value LengthFilter(Evaluator&, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("length", arguments);
  return Length(input);
}

Value ToList(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("list", arguments);
  return evaluator.List(evaluator.Iterate(input));
}

Value First(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("first", arguments);
  if (input.is_list())
    if (std::optional<Value> item = input.list().TakeFirst()) return *item;
  const std::vector<Value> items = evaluator.Iterate(input);
  if (!items.empty()) return items.front();
  return Undefined{std::make_shared<const std::string>("No first item, sequence was empty.")};
}

Value Last(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("last", arguments);
  if (input.is_list() && input.list().flavor() == List::Flavor::kIterator)
    Fail("'generator' object is not reversible");
  const std::vector<Value> items = evaluator.Iterate(input);
  if (!items.empty()) return items.back();
  return Undefined{std::make_shared<const std::string>("No last item, sequence was empty.")};
}

Value JoinFilter(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("join", arguments, {"d", "attribute"});
  const std::string separator = bound.Has(0) ? evaluator.Text(bound.Require(0)) : "";
  const Key key(evaluator, bound.Or(1, None{}), /*case_sensitive=*/true);
  std::string text;
  bool first = true;
  for (const Value& item : evaluator.Iterate(input)) {
    if (!std::exchange(first, false)) {
      evaluator.ChargeBytes(separator.size());
      text += separator;
    }
    text += evaluator.Text(key(item));
  }
  return text;
}

Value Reverse(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("reverse", arguments);
  std::vector<Value> items = evaluator.Iterate(input);
  std::reverse(items.begin(), items.end());
  if (!input.is_string()) return Iterator(evaluator, std::move(items));
  std::string text;
  for (const Value& item : items) text += item.string();
  return evaluator.String(std::move(text));
}

Value Items(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  BoundArguments::RequireNone("items", arguments);
  std::vector<Value> pairs;
  if (input.is_dict()) {
    for (const auto& [key, value] : input.dict().entries())
      pairs.push_back(evaluator.List({key, value}, List::Flavor::kTuple));
  } else if (!input.is_undefined()) {
    Fail("can only get item pairs from a mapping");
  }
  return Iterator(evaluator, std::move(pairs));
}

Value DictSort(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  RequireDefined(input);
  if (!input.is_dict()) Fail("dictsort needs a mapping");
  const std::string by = bound.String(1, "key");
  if (by != "key" && by != "value") Fail("dictsort sorts by 'key' or 'value'");
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.dict().entries())
    pairs.push_back(evaluator.List({key, value}, List::Flavor::kTuple));
  const Key key(evaluator, Value(by == "key" ? 0 : 1), bound.Flag(0, false));
  return evaluator.List(Sorted(evaluator, std::move(pairs), key, bound.Flag(2, false)));
}

Value Sort(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const Key key(evaluator, bound.Or(2, None{}), bound.Flag(1, false), Key::kSeveral);
  return evaluator.List(Sorted(evaluator, evaluator.Iterate(input), key, bound.Flag(0, false)));
}

Value Unique(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("unique", arguments, {"case_sensitive", "attribute"});
  const Key key(evaluator, bound.Or(1, None{}), bound.Flag(0, false));
  Dict seen;
  std::vector<Value> kept;
  for (const Value& item : evaluator.Iterate(input)) {
    const size_t before = seen.size();
    const Value by = key(item);
    if (!seen.Set(by, Value(true))) Fail("unhashable type: '" + std::string(by.TypeName()) + "'");
    if (seen.size() != before) kept.push_back(item);
  }
  return Iterator(evaluator, std::move(kept));
}

template <bool kLargest>
Value Extreme(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("min or max", arguments, {"case_sensitive", "attribute"});
  const Key key(evaluator, bound.Or(1, None{}), bound.Flag(0, false));
  std::optional<Value> best, best_key;
  for (const Value& item : evaluator.Iterate(input)) {
    Value item_key = key(item);
    if (best) {
      const int order = Order(evaluator, item_key, *best_key);
      if (kLargest ? order <= 0 : order >= 0) continue;
    }
    best = item;
    best_key = std::move(item_key);
  }
  if (best) return *best;
  return Undefined{std::make_shared<const std::string>("No aggregated item, sequence was empty.")};
}

Value Sum(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("sum", arguments, {"attribute", "start"});
  const Key key(evaluator, bound.Or(0, None{}), /*case_sensitive=*/true);
  Value total = bound.Or(1, int64_t{0});
  if (total.is_string()) Fail("sum cannot add strings");
  for (const Value& item : evaluator.Iterate(input))
    total = Arithmetic(evaluator, BinaryOp::kAdd, total, key(item));
  return total;
}

Value Map(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  std::vector<Value> mapped;
  if (arguments.positional.empty()) {
    const BoundArguments bound("map", arguments, {"attribute", "default"});
    const Key key(evaluator, bound.Require(0), /*case_sensitive=*/true);
    for (const Value& item : evaluator.Iterate(input)) {
      Value value = key(item);
      mapped.push_back(value.is_undefined() && bound.Has(1) ? bound.Require(1) : std::move(value));
    }
    return Iterator(evaluator, std::move(mapped));
  }
  const std::string name = RequireString(arguments.positional[0], "the filter of map");
  arguments.positional.erase(arguments.positional.begin());
  for (Value& item : evaluator.Iterate(input))
    mapped.push_back(evaluator.CallFilter(name, std::move(item), arguments));
  return Iterator(evaluator, std::move(mapped));
}

/// select, reject, and the two that look at an attribute.
template <bool kKeep, bool kByAttribute>
Value Select(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  std::vector<Value>& given = arguments.positional;
  if (kByAttribute && given.empty()) Fail("Missing parameter for attribute name");
  const Value attribute = kByAttribute ? given[0] : Value(None{});
  const Key key(evaluator, attribute, /*case_sensitive=*/true);
  std::optional<std::string> test;
  if (given.size() > kByAttribute) test = RequireString(given[kByAttribute], "the test of select");
  given.erase(given.begin(), given.begin() + std::min<ptrdiff_t>(std::ssize(given),
                                                                 kByAttribute + test.has_value()));
  std::vector<Value> kept;
  for (const Value& item : evaluator.Iterate(input)) {
    const Value value = key(item);
    const bool holds = test ? evaluator.CallTest(*test, value, arguments) : Truthy(value);
    if (holds == kKeep) kept.push_back(item);
  }
  return Iterator(evaluator, std::move(kept));
}

Value Batch(Evaluator& evaluator, const Value& input, Arguments& arguments) {
  const BoundArguments bound("batch", arguments, {"linecount", "fill_with"});
  const int64_t size = RequireInteger(bound.Require(0), "the size of batch");
  if (size <= 0) Fail("the size of batch is not positive");
  std::vector<Value> batches, batch;
  auto flush = [&] { batches.push_back(evaluator.List(std::exchange(batch, {}))); };
  for (Value& item : evaluator.Iterate(input)) {
    if (std::ssize(batch) == size) flush();
    batch.push_back(std::move(item));
  }
  if (!batch.empty()) {
    if (bound.Has(1) && !bound.Require(1).is_none()) {
      evaluator.Charge(static_cast<uint64_t>(size));
      while (std::ssize(batch) < size) batch.push_back(bound.Require(1));
    }
    flush();
  }
  return Iterator(evaluator, std::move(batches));
}

constexpr FilterEntry kFilters[] = {
    {"batch", Batch},
    {"count", LengthFilter},
    {"dictsort", DictSort},
    {"first", First},
    {"items", Items},
    {"join", JoinFilter},
    {"last", Last},
    {"length", LengthFilter},
    {"list", ToList},
    {"map", Map},
    {"max", Extreme<true>},
    {"min", Extreme<false>},
    {"reject", Select<false, false>},
    {"rejectattr", Select<false, true>},
    {"reverse", Reverse},
    {"select", Select<true, false>},
    {"selectattr", Select<true, true>},
    {"sort", Sort},
    {"sum", Sum},
    {"unique", Unique},
};

}  // namespace

std::span<const FilterEntry> SequenceFilters() { return kFilters; }

}  // namespace quern::jinja

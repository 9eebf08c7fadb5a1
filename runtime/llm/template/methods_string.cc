// str's methods.
#include "runtime/llm/template/arguments.h"
#include "runtime/llm/template/error.h"
#include "runtime/llm/template/format.h"
#include "runtime/llm/template/methods.h"
#include "runtime/llm/template/operators.h"
#include "runtime/llm/template/python_string.h"
#include "runtime/llm/utf8.h"

namespace quern::jinja {
namespace {

template <std::string (*kConvert)(std::string_view)>
Value Convert(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  BoundArguments::RequireNone("the string method", arguments);
  return evaluator.String(kConvert(self.string()));
}

template <bool (*kHolds)(std::string_view)>
Value Holds(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  BoundArguments::RequireNone("the string method", arguments);
  evaluator.Charge(self.weight());
  return kHolds(self.string());
}

bool IsTitle(std::string_view text) { return Title(text) == text && Upper(text) != Lower(text); }

template <Side kSide>
Value StripSide(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("strip", arguments, {"chars"});
  const std::string characters = bound.String(0, "");
  const bool given = bound.Has(0) && !bound.Require(0).is_none();
  evaluator.Charge(self.weight() * (1 + characters.size()));
  return evaluator.String(Strip(self.string(), given ? &characters : nullptr, kSide));
}

Value StringList(Evaluator& evaluator, std::vector<std::string> parts) {
  std::vector<Value> items;
  for (std::string& part : parts) {
    evaluator.ChargeBytes(64);
    items.push_back(evaluator.String(std::move(part)));
  }
  return evaluator.List(std::move(items));
}

template <bool kFromRight>
Value SplitMethod(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("split", arguments, {"sep", "maxsplit"});
  const std::string separator = bound.String(0, "");
  const bool given = bound.Has(0) && !bound.Require(0).is_none();
  if (given && separator.empty()) Fail("empty separator");
  evaluator.ChargeBytes(4 * self.string().size());
  return StringList(evaluator, Split(self.string(), given ? &separator : nullptr,
                                     bound.Integer(1, -1), kFromRight));
}

Value SplitLinesMethod(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("splitlines", arguments, {"keepends"});
  evaluator.ChargeBytes(self.string().size());
  return StringList(evaluator, SplitLines(self.string(), bound.Flag(0, false)));
}

/// startswith and endswith: one string or a tuple of them, perhaps of a slice of the string.
template <bool kStart>
Value Affix(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound(kStart ? "startswith" : "endswith", arguments,
                             {"prefix", "start", "end"});
  Value text = self;
  if (bound.Has(1)) text = Slice(evaluator, self, bound.Require(1), bound.Or(2, None{}), None{});
  const Value& affix = bound.Require(0);
  std::vector<Value> choices = {affix};
  if (affix.is_list() && affix.list().flavor() == List::Flavor::kTuple)
    choices = affix.list().items();
  for (const Value& choice : choices) {
    const std::string& part = RequireString(choice, "what startswith() or endswith() looks for");
    if (kStart ? text.string().starts_with(part) : text.string().ends_with(part)) return true;
  }
  return false;
}

Value ReplaceMethod(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("replace", arguments, {"old", "new", "count"});
  arguments.positional.resize(std::min<size_t>(arguments.positional.size(), 3));
  RequireString(bound.Require(0), "argument 'old' of replace()");
  RequireString(bound.Require(1), "argument 'new' of replace()");
  return evaluator.CallFilter("replace", self, arguments);
}

/// The offset in characters where `part` is in the string's slice, or -1.
int64_t FindPart(Evaluator& evaluator, const Value& self, const BoundArguments& bound,
                 bool from_right) {
  const std::string& part = RequireString(bound.Require(0), "what is looked for");
  const int64_t length = Length(self);
  evaluator.Charge(self.weight());
  int64_t start = bound.Integer(1, 0);
  if (start < 0) start = std::max<int64_t>(start + length, 0);
  if (start > length) return -1;
  const Value text = Slice(evaluator, self, Value(start), bound.Or(2, None{}), None{});
  const size_t found = from_right ? text.string().rfind(part) : text.string().find(part);
  if (found == std::string::npos) return -1;
  return start +
         static_cast<int64_t>(utf8::Length(std::string_view(text.string()).substr(0, found)));
}

template <bool kFromRight, bool kMustBeThere>
Value Find(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("find", arguments, {"sub", "start", "end"});
  const int64_t at = FindPart(evaluator, self, bound, kFromRight);
  if (kMustBeThere && at < 0) Fail("substring not found");
  return at;
}

Value Count(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("count", arguments, {"sub", "start", "end"});
  const std::string& part = RequireString(bound.Require(0), "what is counted");
  Value text = self;
  if (bound.Has(1)) text = Slice(evaluator, self, bound.Require(1), bound.Or(2, None{}), None{});
  evaluator.Charge(text.string().size() / 16);
  if (part.empty()) return Length(text) + 1;
  return static_cast<int64_t>(CountParts(text.string(), part));
}

Value Join(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("join", arguments, {"iterable"});
  RequireDefined(bound.Require(0));
  std::string text;
  bool first = true;
  for (const Value& item : evaluator.Iterate(bound.Require(0))) {
    const std::string& part = RequireString(item, "an item of join()");
    evaluator.ChargeBytes(part.size() + self.string().size());
    if (!std::exchange(first, false)) text += self.string();
    text += part;
  }
  return text;
}

Value Format(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  return FormatBraces(evaluator, self.string(), arguments);
}

template <bool kPrefix>
Value RemoveAffix(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("removeprefix", arguments, {"affix"});
  const std::string& affix = RequireString(bound.Require(0), "what is removed");
  std::string_view text = self.string();
  if (kPrefix && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!kPrefix && text.ends_with(affix)) text.remove_suffix(affix.size());
  return evaluator.String(std::string(text));
}

template <bool kFromRight>
Value Partition(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("partition", arguments, {"sep"});
  const std::string& separator = RequireString(bound.Require(0), "the separator");
  if (separator.empty()) Fail("empty separator");
  const std::string& text = self.string();
  evaluator.ChargeBytes(text.size() + separator.size());
  const size_t found = kFromRight ? text.rfind(separator) : text.find(separator);
  std::vector<Value> parts;
  if (found != std::string::npos)
    parts = {text.substr(0, found), separator, text.substr(found + separator.size())};
  else
    parts = kFromRight ? std::vector<Value>{"", "", text} : std::vector<Value>{text, "", ""};
  return evaluator.List(std::move(parts), List::Flavor::kTuple);
}

/// ljust (-1), center (0), rjust (1).
template <int kWhere>
Value Justify(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("justify", arguments, {"width", "fillchar"});
  const int64_t width = RequireInteger(bound.Require(0), "the width");
  const std::string fill = bound.String(1, " ");
  if (utf8::Length(fill) != 1) Fail("the fill character must be exactly one character long");
  const int64_t missing = width - Length(self);
  if (missing <= 0) return self;
  evaluator.ChargeBytes(static_cast<uint64_t>(missing));
  evaluator.ChargeBytes(static_cast<uint64_t>(missing) * 3);
  // Python's center() puts the odd blank left when the width is odd.
  const int64_t left = kWhere < 0 ? 0 : kWhere > 0 ? missing : missing / 2 + (missing & width & 1);
  std::string text;
  for (int64_t i = 0; i < left; ++i) text += fill;
  text += self.string();
  for (int64_t i = left; i < missing; ++i) text += fill;
  return evaluator.String(std::move(text));
}

Value ZFill(Evaluator& evaluator, const Value& self, Arguments& arguments) {
  const BoundArguments bound("zfill", arguments, {"width"});
  const int64_t missing = RequireInteger(bound.Require(0), "the width") - Length(self);
  if (missing <= 0) return self;
  evaluator.ChargeBytes(static_cast<uint64_t>(missing));
  const std::string& text = self.string();
  const bool sign = text.starts_with('-') || text.starts_with('+');
  return evaluator.String(text.substr(0, sign) + std::string(static_cast<size_t>(missing), '0') +
                          text.substr(sign));
}

constexpr MethodEntry kMethods[] = {
    {"capitalize", Convert<Capitalize>},
    {"casefold", Convert<Lower>},
    {"center", Justify<0>},
    {"count", Count},
    {"encode", nullptr},
    {"endswith", Affix<false>},
    {"expandtabs", nullptr},
    {"find", Find<false, false>},
    {"format", Format},
    {"format_map", nullptr},
    {"index", Find<false, true>},
    {"isalnum", Holds<IsAlnum>},
    {"isalpha", Holds<IsAlpha>},
    {"isascii", nullptr},
    {"isdecimal", Holds<IsDigit>},
    {"isdigit", Holds<IsDigit>},
    {"isidentifier", nullptr},
    {"islower", Holds<IsLower>},
    {"isnumeric", Holds<IsDigit>},
    {"isprintable", nullptr},
    {"isspace", Holds<IsAllSpace>},
    {"istitle", Holds<IsTitle>},
    {"isupper", Holds<IsUpper>},
    {"join", Join},
    {"ljust", Justify<-1>},
    {"lower", Convert<Lower>},
    {"lstrip", StripSide<Side::kLeft>},
    {"maketrans", nullptr},
    {"partition", Partition<false>},
    {"removeprefix", RemoveAffix<true>},
    {"removesuffix", RemoveAffix<false>},
    {"replace", ReplaceMethod},
    {"rfind", Find<true, false>},
    {"rindex", Find<true, true>},
    {"rjust", Justify<1>},
    {"rpartition", Partition<true>},
    {"rsplit", SplitMethod<true>},
    {"rstrip", StripSide<Side::kRight>},
    {"split", SplitMethod<false>},
    {"splitlines", SplitLinesMethod},
    {"startswith", Affix<true>},
    {"strip", StripSide<Side::kBoth>},
    {"swapcase", Convert<SwapCase>},
    {"title", Convert<Title>},
    {"translate", nullptr},
    {"upper", Convert<Upper>},
    {"zfill", ZFill},
};

}  // namespace

std::span<const MethodEntry> StringMethods() { return kMethods; }

}  // namespace quern::jinja

#include "runtime/llm/text_stream.h"

#include <algorithm>

#include "runtime/llm/utf8.h"

namespace quern {
namespace {

/// The length of the longest end of `text` that is a beginning of `stop`, shorter than it.
size_t HeldBack(std::string_view text, std::string_view stop) {
  const size_t longest = std::min(text.size(), stop.size() - 1);
  for (size_t length = longest; length > 0; --length)
    if (stop.starts_with(text.substr(text.size() - length))) return length;
  return 0;
}

}  // namespace

Result<TextStream> TextStream::Create(std::vector<std::string> stop_strings) {
  if (stop_strings.size() > kMaxStopStrings)
    return UsageError(std::to_string(stop_strings.size()) + " stop strings, at most " +
                      std::to_string(kMaxStopStrings) + " are allowed");
  for (const std::string& stop : stop_strings) {
    if (stop.empty()) return UsageError("a stop string is empty; leave it out");
    if (stop.size() > kMaxStopBytes)
      return UsageError("a stop string has " + std::to_string(stop.size()) + " bytes, at most " +
                        std::to_string(kMaxStopBytes) + " are allowed");
    if (!utf8::IsValid(stop)) return UsageError("a stop string is not valid UTF-8");
  }
  return TextStream(std::move(stop_strings));
}

std::string TextStream::Push(std::string_view bytes) {
  if (stopped_) return {};
  bytes_ += bytes;
  return Release(/*final=*/false);
}

std::string TextStream::Finish() { return stopped_ ? std::string() : Release(/*final=*/true); }

std::string TextStream::Release(bool final) {
  std::string_view rest = bytes_;
  while (!rest.empty()) {
    const utf8::Scan scan = utf8::ScanOne(rest);
    if (scan.kind == utf8::Scan::Kind::kIncomplete && !final) break;
    utf8::Append(text_, scan.code_point);
    rest.remove_prefix(scan.length);
  }
  bytes_ = std::string(rest);
  size_t held = 0;
  if (!CutAtStop() && !final)
    for (const std::string& stop : stops_) held = std::max(held, HeldBack(text_, stop));
  std::string ready = text_.substr(0, text_.size() - held);
  text_.erase(0, ready.size());
  return ready;
}

/// Ends the text before the first stop string in it; of two at one place the longer counts.
bool TextStream::CutAtStop() {
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t found = text_.find(stop);
    if (found > first || found == std::string::npos) continue;
    if (found == first && stop.size() <= stop_string_.size()) continue;
    first = found;
    stop_string_ = stop;
  }
  if (first == std::string::npos) return false;
  stopped_ = true;
  bytes_.clear();
  text_.resize(first);
  return true;
}

}  // namespace quern

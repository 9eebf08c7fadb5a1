#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tools/kernel_report.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kHead = R"(<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Kernels</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1f24; margin: 2rem auto; max-width: 76rem;
       padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
p { margin: .2rem 0 .8rem; color: #57606a; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; width: 100%; }
th, td { padding: .25rem .55rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #d0d7de; font-weight: 600; }
td { border-bottom: 1px solid #eaeef2; }
th.text, td.text { text-align: left; }
td.bodies { white-space: normal; color: #57606a; }
svg { width: 100%; height: auto; }
.share { display: inline-block; height: .6em; background: #8c959f; margin-right: .4em; }
</style>
)";

/// Inside the drawing, so that it can be taken out of the page.
constexpr std::string_view kDrawingStyle = R"(<style>
text { font: 12px system-ui, sans-serif; fill: #57606a; }
.number { font-size: 10px; fill: #fff; text-anchor: middle; }
.grid { stroke: #eaeef2; }
.roof { stroke: #1b1f24; stroke-width: 1.6; }
.prefill { fill: #bc4c00; }
.decode { fill: #0969da; }
</style>
)";

std::string Escape(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

std::string Percent(const Json& share) {
  return share.is_null() ? "-" : FormatFixed(100 * share.get<double>(), 1) + " %";
}

std::string TextOr(const Json& value, const char* otherwise) {
  return value.is_null() ? otherwise : value.get<std::string>();
}

/// "12.3 k", "4.5": a figure of a logarithmic axis.
std::string AxisLabel(int exponent) {
  constexpr const char* kUnits[] = {"", " k", " M", " G"};
  if (exponent < 0) return FormatFixed(std::pow(10, exponent), -exponent);
  const int unit = std::min(exponent / 3, 3);
  return FormatFixed(std::pow(10, exponent - 3 * unit), 0) + kUnits[unit];
}

/// Both axes are logarithmic.
class Roofline {
 public:
  explicit Roofline(const Json& report) : report_(report) {
    for (const Json& step : report.at("steps")) {
      for (const Json& kernel : step.at("kernels")) {
        if (IsPoint(kernel)) Include(Intensity(kernel), kernel.at("gflop_per_second"));
      }
    }
    const Json& limits = report.at("limits");
    if (!limits.at("read").is_null()) read_ = limits.at("read").at("gb_per_second");
    for (const Json& product : limits.at("products")) {
      const double peak = product.at("gflop_per_second");
      if (read_ > 0 && peak > 0) Include(peak / read_, peak);
    }
    left_ = std::floor(left_), bottom_ = std::floor(bottom_);
    right_ = std::max(std::ceil(right_ + 0.1), left_ + 1);
    top_ = std::max(std::ceil(top_ + 0.1), bottom_ + 1);
  }

  std::string Draw() const {
    if (!any_) return "<p>No kernel of these steps computes anything.</p>\n";
    std::string svg = "<svg viewBox=\"0 0 " + Number(kWidth) + " " + Number(kHeight) +
                      "\" role=\"img\" aria-label=\"roofline\">\n";
    return svg + std::string(kDrawingStyle) + Grid() + Roofs() + Points() + Legend() + "</svg>\n";
  }

  /// Whether a kernel has a place in the plot.
  static bool IsPoint(const Json& kernel) {
    return kernel.at("flops") > 0 && kernel.at("bytes") > 0 && kernel.at("seconds") > 0;
  }

 private:
  static constexpr double kWidth = 960, kHeight = 480;
  static constexpr double kLeft = 70, kRight = 20, kTop = 20, kBottom = 50;

  static double Intensity(const Json& kernel) {
    return kernel.at("flops").get<double>() / kernel.at("bytes").get<double>();
  }
  void Include(double intensity, double rate) {
    const double x = std::log10(intensity), y = std::log10(rate);
    left_ = any_ ? std::min(left_, x) : x;
    right_ = any_ ? std::max(right_, x) : x;
    bottom_ = any_ ? std::min(bottom_, y) : y;
    top_ = any_ ? std::max(top_, y) : y;
    any_ = true;
  }
  static std::string Number(double value) { return FormatFixed(value, 1); }
  /// Of logarithms.
  double X(double x) const {
    return kLeft + (x - left_) / (right_ - left_) * (kWidth - kLeft - kRight);
  }
  double Y(double y) const {
    return kHeight - kBottom - (y - bottom_) / (top_ - bottom_) * (kHeight - kTop - kBottom);
  }
  static std::string Line(double x1, double y1, double x2, double y2, const char* style) {
    return "<line class=\"" + std::string(style) + "\" x1=\"" + Number(x1) + "\" y1=\"" +
           Number(y1) + "\" x2=\"" + Number(x2) + "\" y2=\"" + Number(y2) + "\"/>\n";
  }
  static std::string Label(double x, double y, const char* anchor, const std::string& text) {
    return "<text x=\"" + Number(x) + "\" y=\"" + Number(y) + "\" text-anchor=\"" + anchor + "\">" +
           Escape(text) + "</text>\n";
  }

  std::string Grid() const {
    std::string svg;
    for (int x = static_cast<int>(left_); x <= static_cast<int>(right_); ++x) {
      svg += Line(X(x), kTop, X(x), kHeight - kBottom, "grid") +
             Label(X(x), kHeight - kBottom + 18, "middle", AxisLabel(x));
    }
    for (int y = static_cast<int>(bottom_); y <= static_cast<int>(top_); ++y) {
      svg += Line(kLeft, Y(y), kWidth - kRight, Y(y), "grid") +
             Label(kLeft - 8, Y(y) + 4, "end", AxisLabel(y));
    }
    return svg +
           Label((kLeft + kWidth - kRight) / 2, kHeight - 8, "middle", "operations per byte") +
           "<text transform=\"translate(16 " + Number((kTop + kHeight - kBottom) / 2) +
           ") rotate(-90)\" text-anchor=\"middle\">GFLOP/s</text>\n";
  }

  std::string Roofs() const {
    if (read_ <= 0) return {};
    const double read = std::log10(read_);
    std::string svg;
    double highest = top_;
    bool first = true;
    for (const Json& product : report_.at("limits").at("products")) {
      const double peak = product.at("gflop_per_second");
      if (peak <= 0) continue;
      const double y = std::log10(peak), ridge = std::max(y - read, left_);
      svg +=
          Line(X(ridge), Y(y), X(right_), Y(y), "roof") +
          Label(X(right_) - 4, Y(y) - 6, "end",
                product.at("unit").get<std::string>() + ", " + FormatFixed(peak, 0) + " GFLOP/s");
      highest = first ? y : std::max(highest, y);
      first = false;
    }
    // From the left or the bottom edge, whichever the slope meets first, up to the highest roof.
    const double begin = std::max(left_, bottom_ - read), end = std::min(highest - read, right_);
    if (begin < end) {
      svg += Line(X(begin), Y(begin + read), X(end), Y(end + read), "roof") +
             Label(X(begin) + 12, Y(begin + read) - 48, "start",
                   "reading memory, " + FormatFixed(read_, 1) + " GB/s");
    }
    return svg;
  }

  std::string Points() const {
    std::string svg;
    for (const Json& step : report_.at("steps")) {
      size_t number = 0;
      for (const Json& kernel : step.at("kernels")) {
        ++number;
        if (IsPoint(kernel)) svg += Point(kernel, step.at("role"), number);
      }
    }
    return svg;
  }

  std::string Legend() const {
    std::string svg;
    double y = kTop + 16;
    for (const Json& step : report_.at("steps")) {
      const std::string role = step.at("role");
      svg += "<circle class=\"" + role + "\" cx=\"" + Number(kLeft + 16) + "\" cy=\"" + Number(y) +
             "\" r=\"6\"/>" + Label(kLeft + 28, y + 4, "start", role);
      y += 20;
    }
    return svg;
  }

  /// The area says how much of the step's time the kernel takes.
  std::string Point(const Json& kernel, const std::string& role, size_t number) const {
    const double rate = kernel.at("gflop_per_second");
    const double x = X(std::log10(Intensity(kernel))), y = Y(std::log10(rate));
    const double radius = 7 + 16 * std::sqrt(std::min(1.0, kernel.at("share").get<double>()));
    return "<g><title>" + Escape(kernel.at("name").get<std::string>()) + ", " + role + ": " +
           FormatFixed(rate, 1) + " GFLOP/s, " +
           FormatFixed(kernel.at("gb_per_second").get<double>(), 1) + " GB/s, " +
           Percent(kernel.at("share")) + " of the step</title><circle class=\"" + role +
           "\" fill-opacity=\"0.75\" cx=\"" + Number(x) + "\" cy=\"" + Number(y) + "\" r=\"" +
           Number(radius) + "\"/><text class=\"number\" x=\"" + Number(x) + "\" y=\"" +
           Number(y + 3.5) + "\">" + std::to_string(number) + "</text></g>\n";
  }

  const Json& report_;
  double read_ = 0;
  bool any_ = false;
  double left_ = 0, right_ = 0, bottom_ = 0, top_ = 0;
};

std::string Row(const Json& kernel, size_t number) {
  const auto fixed = [&](const char* name, double unit, int digits) {
    return "<td>" + FormatFixed(kernel.at(name).get<double>() * unit, digits) + "</td>";
  };
  std::string bodies;
  for (const Json& body : kernel.at("bodies")) {
    bodies += (bodies.empty() ? "" : ", ") + body.get<std::string>();
  }
  const double share = kernel.at("share");
  return "<tr><td>" + std::to_string(number) + "</td><td class=\"text\">" +
         Escape(kernel.at("name").get<std::string>()) + "</td><td class=\"text bodies\">" +
         Escape(bodies) + "</td><td class=\"text\">" + Escape(TextOr(kernel.at("generator"), "-")) +
         "</td><td>" + kernel.at("calls").dump() + "</td>" + fixed("seconds", 1e3, 3) +
         "<td class=\"text\"><span class=\"share\" style=\"width:" +
         FormatFixed(5 * std::clamp(share, 0.0, 1.0), 2) + "em\"></span>" +
         Percent(kernel.at("share")) + "</td>" + fixed("bytes", 1e-6, 2) + fixed("flops", 1e-9, 3) +
         fixed("gb_per_second", 1, 1) + "<td>" + Percent(kernel.at("bandwidth_share")) + "</td>" +
         fixed("gflop_per_second", 1, 1) + "<td>" + Percent(kernel.at("compute_share")) +
         "</td><td class=\"text\">" + TextOr(kernel.at("limited_by"), "-") + "</td></tr>\n";
}

std::string StepSection(const Json& step) {
  const double seconds = step.at("seconds");
  const std::string role = step.at("role");
  const auto part = [&](const char* name) {
    return Percent(seconds > 0 ? step.at(name).get<double>() / seconds : 0);
  };
  std::string html =
      "<h2>" + role + ": " + step.at("rows").dump() + (step.at("rows") == 1 ? " row" : " rows") +
      " behind " + step.at("depth").dump() + " tokens, " + FormatFixed(1e3 * seconds, 3) +
      " ms</h2>\n<p>kernels " + part("kernel_seconds") + ", joins " + part("join_seconds") +
      ", other " + part("other_seconds") +
      "</p>\n<table><tr><th>#</th><th class=\"text\">kernel</th><th class=\"text\">in</th>"
      "<th class=\"text\">generator</th><th>calls</th><th>ms</th><th class=\"text\">share</th>"
      "<th>MB</th><th>GFLOP</th><th>GB/s</th><th>of read</th><th>GFLOP/s</th><th>of peak</th>"
      "<th class=\"text\">limited by</th></tr>\n";
  size_t number = 0;
  for (const Json& kernel : step.at("kernels")) html += Row(kernel, ++number);
  return html + "</table>\n";
}

}  // namespace

std::string KernelPage(const Json& report, const std::string& heading) {
  std::string html = std::string(kHead) + "<h1>" + Escape(heading) + "</h1>\n" +
                     "<p>Kernels of one step by operations per byte and by speed, below what this "
                     "machine reached in the same run; a point's area is its share of the step's "
                     "time. Numbers are rows of the tables.</p>\n" +
                     Roofline(report).Draw();
  for (const Json& step : report.at("steps")) html += StepSection(step);
  return html +
         "<p>Bytes are those that must be moved once: a share of reading above 100 % means that "
         "caches had them. Limited by overhead: less than half of both limits.</p>\n</html>\n";
}

}  // namespace quern::tools

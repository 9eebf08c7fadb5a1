#include "runtime/tools/kernel_report.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "runtime/tools/machine_limits.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

/// More is not needed to read from memory, and steps of huge models must not take memory twice.
constexpr double kMostFootprint = 1 << 30;
/// A kernel that reaches less of both limits waits for something else most of the time.
constexpr double kLimitedShare = 0.5;

/// What does not change from step to step.
struct Limits {
  double read_rate = 0;  ///< Bytes a second; 0: not measured.
  std::map<const ProductUnit*, double> product_rates;
};

/// Seconds of each kernel, the mean over the threads; joins under "".
std::map<std::string, double> SecondsOf(const Json& profile) {
  std::map<std::string, double> seconds;
  const Json& threads = profile.at("last_step").at("threads");
  for (const Json& thread : threads) {
    for (const Json& span : thread) {
      const Json& kernel = span.at("kernel");
      const uint64_t begin = span.at("begin_ns"), end = span.at("end_ns");
      seconds[kernel.is_null() ? "" : kernel.get<std::string>()] +=
          1e-9 * static_cast<double>(end - begin) / static_cast<double>(threads.size());
    }
  }
  if (!threads.empty()) return seconds;
  for (const Json& kernel : profile.at("kernels")) {  // a GPU has its own clock
    seconds[kernel.at("name")] += kernel.at("seconds").get<double>();
  }
  return seconds;
}

/// {"layer_0 x 30"}: which bodies dispatch `kernel`.
Json BodiesOf(const std::string& kernel, const Json& model) {
  std::map<std::string, size_t> layers;
  for (const Json& layer : model.at("layers")) ++layers[layer.get<std::string>()];
  Json bodies = Json::array();
  for (const Json& body : model.at("bodies")) {
    const bool found = std::ranges::any_of(body.at("dispatches"), [&](const Json& dispatch) {
      return dispatch.at("kernel") == kernel;
    });
    if (!found) continue;
    const std::string name = body.at("name");
    bodies.push_back(layers.contains(name) ? name + " x " + std::to_string(layers[name]) : name);
  }
  return bodies;
}

/// How `kernel` was made for the session's target; null when the artifact does not say.
Json FormOf(const std::string& kernel, const std::string& role, const Json& model,
            const std::string& target) {
  for (const Json& each : model.at("kernels")) {
    if (each.at("name") != kernel) continue;
    for (const Json& form : each.at("forms")) {
      if (form.at("target") == target && form.at("role") == role) return form;
    }
  }
  return nullptr;
}

/// Rates, and shares of the limits; null where a limit is not known.
void AddRates(Json& kernel, const Limits& limits, const ProductUnit* unit) {
  const double seconds = kernel.at("seconds"), bytes = kernel.at("bytes"),
               flops = kernel.at("flops");
  const auto rate = [&](double amount) { return seconds > 0 ? amount / seconds : 0; };
  kernel["gb_per_second"] = 1e-9 * rate(bytes);
  kernel["gflop_per_second"] = 1e-9 * rate(flops);
  const auto found = limits.product_rates.find(unit);
  const double peak = found == limits.product_rates.end() ? 0 : found->second;
  Json bandwidth_share, compute_share, limited_by;
  if (limits.read_rate > 0) bandwidth_share = rate(bytes) / limits.read_rate;
  if (peak > 0) compute_share = rate(flops) / peak;
  if (limits.read_rate > 0) {
    const double memory = bandwidth_share, compute = peak > 0 ? compute_share.get<double>() : 0;
    limited_by = std::max(memory, compute) < kLimitedShare ? "overhead"
                 : memory >= compute                       ? "memory"
                                                           : "compute";
  }
  kernel["bandwidth_share"] = bandwidth_share;
  kernel["compute_share"] = compute_share;
  kernel["limited_by"] = limited_by;
}

const ProductUnit* UnitOf(const Json& form, const SessionFacts& session) {
  if (form.is_null()) return nullptr;
  return FindProductUnit(session.target, form.at("generator").get<std::string>(),
                         form.at("arithmetic").get<std::string>());
}

Json DescribeStep(const MeasuredStep& step, const Json& model, const SessionFacts& session) {
  const Json& profile = step.profile;
  const Json& last = profile.at("last_step");
  const std::string role = last.at("role");
  const double total = profile.at("seconds");
  const std::map<std::string, double> seconds = SecondsOf(profile);
  double in_kernels = 0;
  std::vector<Json> kernels;
  for (const Json& work : last.at("kernels")) {
    const std::string name = work.at("name");
    const auto found = seconds.find(name);
    const double spent = found == seconds.end() ? 0 : found->second;
    in_kernels += spent;
    const Json form = FormOf(name, role, model, session.target);
    const ProductUnit* unit = UnitOf(form, session);
    kernels.push_back({{"name", name},
                       {"bodies", BodiesOf(name, model)},
                       {"generator", form.is_null() ? Json() : form.at("generator")},
                       {"arithmetic", form.is_null() ? Json() : form.at("arithmetic")},
                       {"unit", unit ? Json(UnitName(*unit)) : Json()},
                       {"calls", work.at("dispatches")},
                       {"seconds", spent},
                       {"share", total > 0 ? spent / total : 0},
                       {"bytes", work.at("bytes")},
                       {"flops", work.at("flops")}});
  }
  std::ranges::sort(kernels, [](const Json& a, const Json& b) {
    return a.at("seconds").get<double>() > b.at("seconds").get<double>();
  });
  const auto joins = seconds.find("");
  const double in_joins = joins == seconds.end() ? 0 : joins->second;
  double bytes = 0, flops = 0;
  for (const Json& kernel : kernels) {
    bytes += kernel.at("bytes").get<double>();
    flops += kernel.at("flops").get<double>();
  }
  return {{"role", role},
          {"rows", last.at("rows")},
          {"logit_rows", last.at("logit_rows")},
          {"depth", step.depth},
          {"layers", model.at("layers").size()},
          {"seconds", total},
          {"kernel_seconds", in_kernels},
          {"join_seconds", in_joins},
          {"other_seconds", total - in_kernels - in_joins},
          {"bytes", bytes},
          {"flops", flops},
          {"kernels", kernels}};
}

std::string Pad(const std::string& text, size_t width) {
  return text + std::string(width - std::min(width, text.size()), ' ');
}
std::string Cell(const std::string& text, size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}
std::string Percent(const Json& share) {
  return share.is_null() ? "-" : FormatFixed(100 * share.get<double>(), 1) + " %";
}

std::string StepTable(const Json& step) {
  const double seconds = step.at("seconds");
  const auto part = [&](const char* name) {
    return Percent(seconds > 0 ? step.at(name).get<double>() / seconds : 0);
  };
  std::string text = "\n" + step.at("role").get<std::string>() + ": " + step.at("rows").dump() +
                     (step.at("rows") == 1 ? " row" : " rows") + " behind " +
                     step.at("depth").dump() + " tokens, " + FormatFixed(1e3 * seconds, 3) +
                     " ms: kernels " + part("kernel_seconds") + ", joins " + part("join_seconds") +
                     ", other " + part("other_seconds") + "\n";
  text += Pad("kernel", 24) + Pad("in", 22) + Cell("calls", 6) + Cell("ms", 10) + Cell("share", 9) +
          Cell("MB", 10) + Cell("GFLOP", 9) + Cell("GB/s", 8) + Cell("of read", 9) +
          Cell("GFLOP/s", 9) + Cell("of peak", 9) + "  limited by\n";
  for (const Json& kernel : step.at("kernels")) {
    std::string bodies;
    for (const Json& body : kernel.at("bodies")) {
      bodies += (bodies.empty() ? "" : ", ") + body.get<std::string>();
    }
    const auto fixed = [&](const char* name, double unit, int digits) {
      return FormatFixed(kernel.at(name).get<double>() * unit, digits);
    };
    text += Pad(kernel.at("name").get<std::string>() + " ", 24) + Pad(bodies + " ", 22) +
            Cell(kernel.at("calls").dump(), 6) + Cell(fixed("seconds", 1e3, 3), 10) +
            Cell(Percent(kernel.at("share")), 9) + Cell(fixed("bytes", 1e-6, 2), 10) +
            Cell(fixed("flops", 1e-9, 3), 9) + Cell(fixed("gb_per_second", 1, 1), 8) +
            Cell(Percent(kernel.at("bandwidth_share")), 9) +
            Cell(fixed("gflop_per_second", 1, 1), 9) +
            Cell(Percent(kernel.at("compute_share")), 9) + "  " +
            (kernel.at("limited_by").is_null() ? "-" : kernel.at("limited_by").get<std::string>()) +
            "\n";
  }
  return text;
}

}  // namespace

Json ReportKernels(const std::vector<MeasuredStep>& steps, const Json& model,
                   const SessionFacts& session) {
  Json described = Json::array();
  for (const MeasuredStep& step : steps) {
    described.push_back(DescribeStep(step, model, session));
  }
  Limits limits;
  Json read, products = Json::array();
  const int threads = static_cast<int>(std::max<uint64_t>(session.threads, 1));
  if (session.device == "cpu") {
    // The last step is the one that reads weights most quickly: decode, unless there is none.
    const double bytes = std::min(described.back().at("bytes").get<double>(), kMostFootprint);
    const auto footprint = static_cast<uint64_t>(bytes);
    limits.read_rate = ReadLoop(footprint, threads).BestRate();
    read = {{"gb_per_second", 1e-9 * limits.read_rate}, {"footprint_bytes", footprint}};
  }
  for (Json& step : described) {
    for (Json& kernel : step.at("kernels")) {
      const Json form = FormOf(kernel.at("name"), step.at("role"), model, session.target);
      const ProductUnit* unit = session.device == "cpu" ? UnitOf(form, session) : nullptr;
      if (unit && kernel.at("flops") > 0 && !limits.product_rates.contains(unit)) {
        const double rate = limits.product_rates[unit] = MeasureProductRate(*unit, threads);
        products.push_back({{"unit", UnitName(*unit)}, {"gflop_per_second", 1e-9 * rate}});
      }
      AddRates(kernel, limits, unit);
    }
  }
  return {{"limits", {{"threads", threads}, {"read", read}, {"products", products}}},
          {"steps", described}};
}

std::string KernelTables(const Json& report) {
  const Json& limits = report.at("limits");
  std::string text;
  if (!limits.at("read").is_null()) {
    const Json& read = limits.at("read");
    text += "limits of " + limits.at("threads").dump() + " threads: reading " +
            FormatBytes(read.at("footprint_bytes")) + " " +
            FormatFixed(read.at("gb_per_second"), 1) + " GB/s";
    for (const Json& product : limits.at("products")) {
      text += ", " + product.at("unit").get<std::string>() + " " +
              FormatFixed(product.at("gflop_per_second"), 1) + " GFLOP/s";
    }
    text += "\n";
  }
  for (const Json& step : report.at("steps")) text += StepTable(step);
  return text;
}

}  // namespace quern::tools

#include <string>

#include "runtime/tools/kernel_report.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

Json Metadata(const char* name, size_t process, size_t thread, const std::string& value) {
  return {
      {"name", name}, {"ph", "M"}, {"pid", process}, {"tid", thread}, {"args", {{"name", value}}}};
}

/// A span; times in microseconds, as the format wants them.
Json Span(const std::string& name, size_t process, size_t thread, uint64_t begin_ns,
          uint64_t end_ns) {
  return {{"name", name},
          {"ph", "X"},
          {"pid", process},
          {"tid", thread},
          {"ts", 1e-3 * static_cast<double>(begin_ns)},
          {"dur", 1e-3 * static_cast<double>(end_ns - begin_ns)}};
}

std::string LayerName(int64_t layer, int64_t layers) {
  if (layer < 0) return "prologue";
  return layer >= layers ? "epilogue" : "layer " + std::to_string(layer);
}

/// Bytes and operations of one dispatch of each kernel.
Json WorkOf(const std::string& kernel, const Json& step) {
  for (const Json& each : step.at("kernels")) {
    if (each.at("name") != kernel) continue;
    const double calls = each.at("calls");
    return {{"bytes", each.at("bytes").get<double>() / calls},
            {"flops", each.at("flops").get<double>() / calls}};
  }
  return Json::object();
}

void AddThread(Json& events, const Json& spans, const Json& step, size_t process, size_t thread) {
  const int64_t layers = step.at("layers");
  events.push_back(Metadata("thread_name", process, thread, "thread " + std::to_string(thread)));
  for (size_t first = 0; first < spans.size();) {
    const int64_t layer = spans[first].at("layer");
    size_t last = first;
    while (last + 1 < spans.size() && spans[last + 1].at("layer") == layer) ++last;
    events.push_back(Span(LayerName(layer, layers), process, thread, spans[first].at("begin_ns"),
                          spans[last].at("end_ns")));
    for (; first <= last; ++first) {
      const Json& span = spans[first];
      const bool join = span.at("kernel").is_null();
      const std::string name = join ? "join" : span.at("kernel").get<std::string>();
      Json event = Span(name, process, thread, span.at("begin_ns"), span.at("end_ns"));
      event["cat"] = join ? "join" : "kernel";
      Json args = join ? Json::object() : WorkOf(name, step);
      args["layer"] = LayerName(layer, layers);
      event["args"] = args;
      events.push_back(event);
    }
  }
}

}  // namespace

Json KernelTrace(const std::vector<MeasuredStep>& steps, const Json& report) {
  Json events = Json::array();
  for (size_t i = 0; i < steps.size(); ++i) {
    const Json& step = report.at("steps").at(i);
    const size_t process = i + 1;
    events.push_back(Metadata("process_name", process, 0,
                              step.at("role").get<std::string>() + ", " + step.at("rows").dump() +
                                  " rows behind " + step.at("depth").dump() + " tokens"));
    const Json& threads = steps[i].profile.at("last_step").at("threads");
    for (size_t thread = 0; thread < threads.size(); ++thread) {
      AddThread(events, threads[thread], step, process, thread);
    }
  }
  return {{"displayTimeUnit", "ns"}, {"traceEvents", events}};
}

}  // namespace quern::tools

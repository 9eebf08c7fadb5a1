// quern inspect: what an artifact holds.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/tools/accuracy.h"
#include "runtime/tools/command.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/handles.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLabelWidth = 12;
/// Contexts and batches whose memory is shown, besides the model's whole context.
constexpr uint64_t kUsualContext = 2048;
constexpr uint64_t kUsualBatch = 8;

struct InspectFlags {
  std::string model;
  bool json = false;
  /// 0: some usual ones.
  uint64_t context = 0, batch = 0;
  /// Rows of a prefill step: the default of quern_session_options.max_rows.
  uint64_t rows = 512;
};

std::string Text(const Json& object, const char* field) {
  return object.at(field).get<std::string>();
}
std::string Number(const Json& object, const char* field) { return object.at(field).dump(); }
uint64_t Count(const Json& object, const char* field) { return object.at(field).get<uint64_t>(); }

std::string Pad(std::string text, size_t width) {
  if (text.size() < width) text.resize(width, ' ');
  return text;
}

/// A labelled line; an empty label goes on with the one before.
std::string Line(const std::string& label, const std::string& text) {
  return Pad(label, kLabelWidth) + text + "\n";
}

std::string Join(const Json& strings, const char* separator) {
  std::string joined;
  for (const Json& each : strings) {
    joined += (joined.empty() ? "" : separator) + each.get<std::string>();
  }
  return joined;
}

std::string ModelLines(const Json& json) {
  const Json& model = json.at("model");
  const std::string licence = Text(model, "licence");
  return Line("model", Text(model, "name") + " (" + Text(model, "family") + "), " +
                           FormatFixed(model.at("parameters").get<double>() / 1e6, 1) +
                           " M parameters") +
         Line("", Number(model, "layers") + " layers, hidden " + Number(model, "hidden") + ", " +
                      Number(model, "heads") + " heads and " + Number(model, "kv_heads") +
                      " KV heads of " + Number(model, "head_dim") + ", ffn " +
                      Number(model, "ffn") + ", vocabulary " + Number(model, "vocab") +
                      ", context " + Number(model, "context")) +
         Line("licence", licence.empty() ? "not stated by the source" : licence) +
         Line("source", Text(model, "source_hash"));
}

std::string SignerText(const Json& json) {
  const Json& signers = json.at("signers");
  return signers.empty() ? "by nobody" : "by " + Join(signers, ", ");
}

std::string AccuracyLines(const Json& json) {
  std::string text;
  for (const Json& each : json.at("accuracy")) {
    const Json& measured = each.at("measured");
    text += Line(text.empty() ? "accuracy" : "",
                 Text(each, "target") + " on " + Text(each, "device") + ": " +
                     DescribeAccuracy(
                         {measured.at("positions"), measured.at("mean_kl"), measured.at("p99_kl"),
                          measured.at("top1"), measured.at("perplexity")},
                         each.at("reference_perplexity")) +
                     " of " + Text(each, "text"));
  }
  return text.empty() ? Line("accuracy", "not measured") : text;
}

std::string FileLines(const Json& json) {
  std::string formats;
  for (const auto& [format, bytes] : json.at("weight_bytes").items()) {
    formats += (formats.empty() ? "" : ", ") + format + " " + FormatBytes(bytes);
  }
  std::string text =
      Line("file", FormatBytes(Count(json, "file_bytes")) + ", made by " + Text(json, "producer"));
  if (json.contains("hash")) text += Line("hash", Text(json, "hash"));
  return text + Line("weights", formats) +
         Line("numerics", json.at("precise").get<bool>() ? "float activations (--precise)"
                                                         : "quantized activations") +
         Line("shares", Number(json, "shares")) + Line("signed", SignerText(json));
}

std::string TargetLines(const Json& json) {
  std::string text = "targets\n";
  for (const Json& target : json.at("targets")) {
    text += "  " + Pad(Text(target, "name"), 14) +
            Pad(FormatBytes(Count(target, "code_bytes")) + " of code", 22);
    if (Text(target, "kind") == "gpu") {
      text += "PTX " + Text(target, "ptx_version") + " for compute capability " +
              Text(target, "compute_capability") + "\n";
      continue;
    }
    text += (target.at("supported").get<bool>()
                 ? "runs here"
                 : "this machine lacks " + Join(target.at("missing"), ", ")) +
            "\n" + Pad("", 16) + "needs " + Join(target.at("features"), " ") + "\n";
  }
  return text;
}

std::string SegmentLines(const Json& json) {
  std::string text = "segments\n";
  for (const Json& segment : json.at("segments")) {
    text += "  " + Pad(Text(segment, "name"), 18) + Pad(FormatBytes(Count(segment, "size")), 12) +
            "at " + Pad(Number(segment, "offset"), 12) + Text(segment, "hash") + "\n";
  }
  return text;
}

std::string ProgramLines(const Json& json) {
  std::map<std::string, size_t> calls;
  for (const Json& layer : json.at("layers")) ++calls[layer.get<std::string>()];
  std::string text = "program     " + std::to_string(json.at("kernels").size()) + " kernels\n";
  for (const Json& body : json.at("bodies")) {
    const std::string name = Text(body, "name");
    const std::string times = calls.count(name) ? " x " + std::to_string(calls[name]) : "";
    std::string kernels;
    for (const Json& dispatch : body.at("dispatches")) kernels += " " + Text(dispatch, "kernel");
    text += "  " + Pad(name + times, 16) +
            "dispatches: " + std::to_string(body.at("dispatches").size()) +
            ", joins: " + Number(body, "joins") + ";" + kernels + "\n";
  }
  return text;
}

/// The records that its tiles come from; nothing where the tiles are the defaults.
std::string TuningLines(const Json& json) {
  if (json.at("tuning").empty()) return {};
  std::string text = "tuning\n";
  for (const Json& record : json.at("tuning")) text += "  " + record.get<std::string>() + "\n";
  return text;
}

/// What attention keeps of a small step, a thread: as much for every block of the tokens of a
/// sequence's pages, rounded up to a power of two. Saturates.
uint64_t StateBytes(const Json& memory, uint64_t pages) {
  const uint64_t page = Count(memory, "kv_page_tokens"), block = Count(memory, "block_tokens");
  uint64_t tokens = 0, bytes = 0;
  if (pages > uint64_t{1} << 62 || __builtin_mul_overflow(std::bit_ceil(pages), page, &tokens) ||
      __builtin_mul_overflow(tokens / block + (tokens % block != 0),
                             Count(memory, "thread_bytes_per_block"), &bytes)) {
    return UINT64_MAX;
  }
  return bytes;
}

/// The most memory of a session on a CPU, with a thread for every share: what quern_session_create
/// takes once all of it was used. Saturates.
Json PeakMemory(const Json& json, uint64_t context, uint64_t batch, uint64_t rows) {
  const Json& memory = json.at("memory");
  const uint64_t page = Count(memory, "kv_page_tokens");
  uint64_t thread = 0;
  for (const auto& each : memory.at("thread_bytes"))
    thread = std::max(thread, each.get<uint64_t>());
  const uint64_t pages = context / page + (context % page != 0);
  uint64_t threads = 0;
  if (__builtin_add_overflow(thread, StateBytes(memory, pages), &thread) ||
      __builtin_mul_overflow(thread, Count(json, "shares"), &threads)) {
    threads = UINT64_MAX;
  }
  const uint64_t row = Count(memory, "token_bytes_per_row") + Count(memory, "logit_bytes_per_row");
  uint64_t kv = 0, work = 0, bytes = 0;
  if (__builtin_mul_overflow(pages, Count(memory, "kv_bytes_per_page"), &kv) ||
      __builtin_mul_overflow(kv, batch, &kv) || __builtin_mul_overflow(row, rows, &work) ||
      __builtin_add_overflow(kv, work, &bytes)) {
    bytes = UINT64_MAX;
  }
  bytes += std::min(UINT64_MAX - bytes, threads);
  return {{"context", context}, {"batch", batch}, {"rows", rows}, {"bytes", bytes}};
}

Json PeakMemories(const Json& json, const InspectFlags& flags) {
  const uint64_t most = Count(json.at("model"), "context");
  std::vector<uint64_t> contexts = {std::min(most, kUsualContext)}, batches = {1, kUsualBatch};
  if (most > kUsualContext) contexts.push_back(most);
  if (flags.context) contexts = {flags.context};
  if (flags.batch) batches = {flags.batch};
  Json peaks = Json::array();
  for (const uint64_t context : contexts) {
    for (const uint64_t batch : batches) {
      peaks.push_back(PeakMemory(json, context, batch, flags.rows));
    }
  }
  return peaks;
}

std::string MemoryLines(const Json& json) {
  const Json& memory = json.at("memory");
  std::string text = Line("memory", "mapped: the file, " + FormatBytes(Count(json, "file_bytes")) +
                                        "; a session's own, at most:");
  for (const Json& peak : json.at("peak_memory")) {
    text += Line("", Pad(FormatBytes(Count(peak, "bytes")), 10) + Number(peak, "batch") + " x " +
                         Number(peak, "context") + " tokens, steps of " + Number(peak, "rows"));
  }
  return text +
         Line("", "keys and values " + FormatBytes(Count(memory, "kv_bytes_per_token")) +
                      " a token, working memory " +
                      FormatBytes(Count(memory, "token_bytes_per_row")) + " a row of a step");
}

std::string TokenizerLines(const Json& json) {
  const Json& tokenizer = json.at("tokenizer");
  if (tokenizer.is_null()) return Line("tokenizer", "none");
  return Line("tokenizer", Number(tokenizer, "tokens") + " tokens, pre-tokenizer " +
                               Text(tokenizer, "pre_tokenizer") +
                               (tokenizer.at("chat_template").get<bool>() ? ", with chat template"
                                                                          : ", no chat template"));
}

}  // namespace

Action SetUpInspect(CLI::App& app) {
  auto flags = std::make_shared<InspectFlags>();
  AddModelArgument(app, flags->model);
  app.add_option("--ctx-size", flags->context, "show the memory of sequences of N tokens")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  app.add_option("--batch", flags->batch, "show the memory of N sequences")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  app.add_option("--chunk", flags->rows, "prompt tokens of one step (default: 512)")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  AddJsonFlag(app, flags->json);
  return [flags] {
    const ModelHandle model = LoadModel(flags->model, false);
    Json json = Json::parse(quern_model_json(model.get()));
    json["accuracy"] = Json::array();
    for (const AccuracyRecord& record : ReadAccuracyRecords(model.get())) {
      json["accuracy"].push_back(ToJson(record));
    }
    json["peak_memory"] = PeakMemories(json, *flags);
    if (flags->json) {
      WriteJson(json);
    } else {
      WriteOutput(ModelLines(json) + FileLines(json) + AccuracyLines(json) + TokenizerLines(json) +
                  MemoryLines(json) + TargetLines(json) + SegmentLines(json) + ProgramLines(json) +
                  TuningLines(json));
    }
    return QUERN_OK;
  };
}

}  // namespace quern::tools

// quern inspect: what an artifact holds.

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/tools/command.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/handles.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLabelWidth = 12;
/// Rows of a prefill step, for the memory figures: the default of quern_session_options.max_rows.
constexpr uint64_t kRows = 512;

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

std::string MemoryLines(const Json& json) {
  const Json& memory = json.at("memory");
  const uint64_t context = Count(json.at("model"), "context");
  const uint64_t kv = Count(memory, "kv_bytes_per_token");
  const uint64_t row = Count(memory, "token_bytes_per_row");
  return Line("memory", "keys and values " + FormatBytes(kv) + " a token: " +
                            FormatBytes(kv * context) + " for " + std::to_string(context)) +
         Line("", "working memory " + FormatBytes(row) + " a row: " + FormatBytes(row * kRows) +
                      " for steps of " + std::to_string(kRows));
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
  struct InspectFlags {
    std::string model;
    bool json = false;
  };
  auto flags = std::make_shared<InspectFlags>();
  AddModelArgument(app, flags->model);
  AddJsonFlag(app, flags->json);
  return [flags] {
    const ModelHandle model = LoadModel(flags->model, false);
    const Json json = Json::parse(quern_model_json(model.get()));
    if (flags->json) {
      WriteJson(json);
    } else {
      WriteOutput(ModelLines(json) + FileLines(json) + TokenizerLines(json) + MemoryLines(json) +
                  TargetLines(json) + SegmentLines(json) + ProgramLines(json) +
                  TuningLines(json));
    }
    return QUERN_OK;
  };
}

}  // namespace quern::tools

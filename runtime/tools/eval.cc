// quern eval: how accurate an artifact is on a device, and the record of it.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/tools/accuracy.h"
#include "runtime/tools/command.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

constexpr size_t kDefaultPositions = 256;

struct EvalFlags {
  std::string model, text, reference;
  size_t positions = kDefaultPositions;
  bool record = false;
  SessionFlags session;
  OutputFlags output;
};

nlohmann::json Facts(const quern_model* model) {
  return nlohmann::json::parse(quern_model_json(model));
}

/// The distributions of another artifact of the same model.
Reference ReferenceOf(const EvalFlags& flags, const Engine& engine) {
  const std::string text = ReadText(flags.text);
  std::vector<int32_t> tokens = engine.Tokenize(text, 0);
  tokens.resize(std::min<size_t>(tokens.size(), flags.positions));
  SessionFlags session;
  session.threads = flags.session.threads;
  session.context = std::max<size_t>(tokens.size(), 1);
  Engine other(flags.reference, session, false);
  const auto ours = Facts(engine.model()), theirs = Facts(other.model());
  const std::string source = theirs.at("model").at("source_hash");
  const std::string wanted = ours.at("model").at("source_hash");
  if (source != wanted || other.vocab() != engine.vocab()) {
    throw CommandError(QUERN_USAGE, flags.reference + " was made from the model file " + source +
                                        ", wanted the one of " + flags.model +
                                        "; compile that with --precise");
  }
  if (!theirs.at("precise").get<bool>()) {
    throw CommandError(QUERN_USAGE, flags.reference +
                                        " has quantized activations, wanted a reference without; "
                                        "compile the model with --precise");
  }
  Reference reference = MakeReference(other, tokens);
  reference.text = OneLine(std::filesystem::path(flags.text).filename().string());
  reference.source = theirs.at("producer").get<std::string>() + " --precise, " +
                     other.facts().target + ", artifact " + theirs.at("hash").get<std::string>();
  return reference;
}

/// How many reference records the model has.
size_t CountReferences(const quern_model* model) {
  size_t count = 0, bytes = 0;
  while (quern_model_record(model, QUERN_RECORD_REFERENCE, count, &bytes) != nullptr) ++count;
  return count;
}

void AddRecord(const std::string& path, quern_record_kind kind, const std::string& text) {
  quern_error error = {};
  Check(quern_record_add(path.c_str(), kind, text.data(), text.size(), &error), error);
}

int Eval(const EvalFlags& flags) {
  if (flags.text.empty() != flags.reference.empty()) {
    throw CommandError(QUERN_USAGE, "--text and --reference go together; see 'quern eval --help'");
  }
  Engine engine(flags.model, flags.session, !flags.output.quiet);
  size_t references = CountReferences(engine.model());
  const bool stored = flags.text.empty();
  if (stored && references == 0) {
    throw CommandError(QUERN_USAGE,
                       "the artifact was not measured before and holds no reference; give "
                       "--text FILE and --reference PRECISE.quern");
  }
  const Reference reference =
      stored ? ReadReference(engine.model(), references - 1) : ReferenceOf(flags, engine);
  AccuracyRecord record = MakeAccuracyRecord(engine, reference, MeasureAccuracy(engine, reference));
  record.reference = stored ? references - 1 : references;
  if (flags.record) {
    if (!stored) AddRecord(flags.model, QUERN_RECORD_REFERENCE, WriteReference(reference));
    AddRecord(flags.model, QUERN_RECORD_ACCURACY, ToJson(record).dump());
  }
  if (flags.output.json) {
    auto json = ToJson(record);
    json["source"] = reference.source;
    json["recorded"] = flags.record;
    WriteJson(json);
  } else {
    WriteOutput(record.target + " on " + record.device + ": " +
                DescribeAccuracy(record.measured, reference.perplexity) + " of " + record.text +
                (flags.record ? "; recorded\n" : "\n"));
  }
  return QUERN_OK;
}

}  // namespace

Action SetUpEval(CLI::App& app) {
  auto flags = std::make_shared<EvalFlags>();
  AddModelArgument(app, flags->model);
  app.add_option("--text", flags->text,
                 "measure over the first tokens of FILE (default: the artifact's last reference)")
      ->type_name("FILE");
  app.add_option("--reference", flags->reference,
                 "the same model compiled with --precise, which the artifact is compared with")
      ->type_name("PRECISE.quern");
  app.add_option("--positions", flags->positions,
                 "tokens of the text (default: " + std::to_string(kDefaultPositions) + ")")
      ->check(CLI::Range(size_t{2}, kMostPositions).description(""))
      ->type_name("N");
  app.add_flag("--record", flags->record,
               "add the figures, and a new reference, to the artifact as records");
  AddSessionFlags(app, flags->session);
  AddOutputFlags(app, flags->output);
  return [flags] { return Eval(*flags); };
}

}  // namespace quern::tools

#include "compiler/evaluate/QuantizationLoss.h"

#include "compiler/evaluate/Distribution.h"
#include "compiler/pipeline/RuntimeHandles.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/JSON.h"

#include <algorithm>
#include <cmath>

using namespace quern;

/// Most positions compared: enough for the first digit of the mean.
static constexpr size_t kPositions = 128;
/// Tokens a step, so that logits of few positions are in memory at a time.
static constexpr size_t kChunk = 16;

/// Plain prose with numbers, names and a little code; about 190 tokens.
static constexpr llvm::StringLiteral kText =
    "A quern is a pair of stones for grinding grain by hand. The lower stone "
    "stays where it is; the upper one is turned with a handle, and the flour "
    "falls out at the rim. Such mills were in use in most of the world for "
    "more than 6000 years, and in 1850 some villages in the north still had "
    "one in every kitchen. The work was slow: an hour of turning gave about "
    "two kilograms of meal, enough for a day's bread. When water mills became "
    "common, people brought their grain to the miller instead, who kept a "
    "sixteenth part as his pay.\n\n"
    "How much is that? For a sack of 64 kg he kept 4 kg:\n\n"
    "def share(sack):\n    return sack / 16\n\nprint(share(64))\n";

//===----------------------------------------------------------------------===//
// Artifacts that take tokens
//===----------------------------------------------------------------------===//

namespace {
/// An artifact with one sequence, ready to take tokens.
struct Runner {
  Handle<quern_model> model;
  Handle<quern_session> session;
  Handle<quern_sequence> sequence;
};
} // namespace

static llvm::Expected<Runner> openRunner(const std::string &path) {
  Runner runner;
  quern_error error = {};
  quern_model *model = nullptr;
  if (llvm::Error failed = checkRuntime(
          quern_model_load(path.c_str(), nullptr, &model, &error), error))
    return std::move(failed);
  runner.model.reset(model);
  quern_session_options options = QUERN_SESSION_OPTIONS_INIT;
  options.context = std::min(kPositions, quern_model_context(model));
  options.max_rows = kChunk;
  quern_session *session = nullptr;
  if (llvm::Error failed = checkRuntime(
          quern_session_create(model, &options, &session, &error), error))
    return std::move(failed);
  runner.session.reset(session);
  quern_sequence *sequence = nullptr;
  if (llvm::Error failed = checkRuntime(
          quern_sequence_create(session, &sequence, &error), error))
    return std::move(failed);
  runner.sequence.reset(sequence);
  return std::move(runner);
}

/// Name of the target that a session runs.
static std::string targetOf(const Runner &runner) {
  llvm::Expected<llvm::json::Value> json =
      llvm::json::parse(quern_session_json(runner.session.get()));
  if (!json) {
    llvm::consumeError(json.takeError());
    return "";
  }
  const llvm::json::Object *object = json->getAsObject();
  return object ? object->getString("target").value_or("").str() : "";
}

/// The first tokens of the built-in text.
static llvm::Expected<std::vector<int32_t>> textTokens(quern_model *model) {
  int32_t *tokens = nullptr;
  size_t count = 0;
  quern_error error = {};
  if (llvm::Error failed =
          checkRuntime(quern_tokenize(model, kText.data(), kText.size(), 0,
                                      &tokens, &count, &error),
                       error))
    return std::move(failed);
  Handle<int32_t> owner(tokens);
  count = std::min({count, kPositions, quern_model_context(model)});
  return std::vector<int32_t>(tokens, tokens + count);
}

//===----------------------------------------------------------------------===//
// The comparison
//===----------------------------------------------------------------------===//

/// Feeds `tokens` to a runner; `logits` gets (tokens, vocab).
static llvm::Error feed(const Runner &runner, llvm::ArrayRef<int32_t> tokens,
                        std::vector<float> &logits) {
  logits.resize(tokens.size() * quern_model_vocab(runner.model.get()));
  quern_error error = {};
  return checkRuntime(quern_sequence_feed(runner.sequence.get(), tokens.data(),
                                          tokens.size(), QUERN_ROLE_PREFILL,
                                          logits.data(), &error),
                      error);
}

static llvm::Expected<QuantizationLoss>
compare(const Runner &reference, const Runner &quantized,
        llvm::ArrayRef<int32_t> tokens) {
  QuantizationLoss loss;
  const size_t vocab = quern_model_vocab(quantized.model.get());
  std::vector<float> expected, actual;
  while (!tokens.empty()) {
    const llvm::ArrayRef<int32_t> chunk = tokens.take_front(kChunk);
    tokens = tokens.drop_front(chunk.size());
    if (llvm::Error error = feed(reference, chunk, expected))
      return std::move(error);
    if (llvm::Error error = feed(quantized, chunk, actual))
      return std::move(error);
    for (size_t row = 0; row < chunk.size(); ++row) {
      const auto p = std::span(expected).subspan(row * vocab, vocab);
      const auto q = std::span(actual).subspan(row * vocab, vocab);
      loss.meanKl += klDivergence(p, q);
      loss.top1 += likeliest(p) == likeliest(q);
      ++loss.positions;
    }
  }
  if (!std::isfinite(loss.meanKl))
    return compileError(ExitCode::Malformed,
                        "the model's logits are not finite; its weights are "
                        "damaged, or too large for float32");
  loss.meanKl /= static_cast<double>(loss.positions);
  loss.top1 /= static_cast<double>(loss.positions);
  return loss;
}

/// The compilation of the unquantized model for `target`, into `output`.
static CompileOptions referenceOptions(const CompileOptions &options,
                                       const std::string &target,
                                       llvm::StringRef output) {
  CompileOptions reference = options;
  reference.targets = {target};
  reference.output = output.str();
  reference.quantizeFormat.reset();
  reference.precise = true;
  reference.signKey.clear();
  reference.dumpIrTo.clear();
  reference.dumpKernelsTo.clear();
  reference.explain = false;
  return reference;
}

llvm::Expected<QuantizationLoss>
quern::measureQuantizationLoss(const CompileOptions &options) {
  if (options.compileFrom)
    return compileError(ExitCode::Unsupported,
                        "a compilation that goes on from a dump has no float "
                        "model beside it; compile the model file");
  llvm::Expected<Runner> quantized = openRunner(options.output);
  if (!quantized)
    return quantized.takeError();
  llvm::Expected<std::vector<int32_t>> tokens =
      textTokens(quantized->model.get());
  if (!tokens)
    return tokens.takeError();

  llvm::SmallString<128> path;
  llvm::sys::fs::createUniquePath(options.output + ".%%%%%%%%.float.tmp", path,
                                  /*MakeAbsolute=*/false);
  TemporaryFile temporary(path);
  CompileObserver silent;
  llvm::Expected<CompileSummary> compiled = compileModel(
      referenceOptions(options, targetOf(*quantized), path), silent);
  if (!compiled)
    return compiled.takeError();
  llvm::Expected<Runner> reference = openRunner(path.str().str());
  if (!reference)
    return reference.takeError();
  llvm::Expected<QuantizationLoss> loss =
      compare(*reference, *quantized, *tokens);
  if (loss)
    loss->target = targetOf(*quantized);
  return loss;
}

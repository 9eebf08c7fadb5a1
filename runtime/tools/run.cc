// quern run: complete raw text or tokens; write logits.

#include <CLI/CLI.hpp>
#include <array>
#include <memory>
#include <optional>

#include "runtime/tools/command.h"
#include "runtime/tools/engine.h"
#include "runtime/tools/output.h"
#include "runtime/tools/report.h"

namespace quern::tools {
namespace {

constexpr int64_t kDefaultTokens = 128;

struct RunFlags {
  std::string model;
  std::optional<std::string> prompt, prompt_file, tokens;
  std::string logits;
  bool teacher_forced = false;
  bool control = false;
  SessionFlags session;
  GenerationFlags generation;
  OutputFlags output;
};

/// The prompt's text, unless it was given as tokens. Errors: USAGE, FAILURE.
std::string PromptText(const RunFlags& flags) {
  if (flags.prompt.has_value() + flags.prompt_file.has_value() + flags.tokens.has_value() != 1) {
    throw CommandError(QUERN_USAGE,
                       "wanted exactly one of -p TEXT, --prompt-file FILE and --tokens "
                       "1,2,3; see 'quern run --help'");
  }
  if (flags.prompt_file) return ReadText(*flags.prompt_file);
  return flags.prompt.value_or("");
}

/// Feeds the prompt, writing logits where wanted; returns seconds.
double FeedPrompt(Engine& engine, const RunFlags& flags, const std::vector<int32_t>& tokens) {
  FeedOptions options;
  options.progress = !flags.output.quiet;
  if (flags.teacher_forced) {
    options.role = QUERN_ROLE_DECODE;
    options.chunk = 1;
  }
  std::optional<NpyFile> logits;
  if (!flags.logits.empty()) {
    logits.emplace(flags.logits, "<f4",
                   std::array{tokens.size(), static_cast<size_t>(engine.vocab())});
    options.logits = &*logits;
  }
  const Stopwatch watch;
  engine.Feed(tokens, options);
  const double seconds = watch.Seconds();
  if (logits) logits->Commit();
  return seconds;
}

int Run(const RunFlags& flags) {
  const std::string text = PromptText(flags);
  std::vector<int32_t> tokens;
  if (flags.tokens) tokens = ParseTokens("--tokens", *flags.tokens);
  Engine engine(flags.model, flags.session, !flags.output.quiet);
  if (!flags.tokens) tokens = engine.Tokenize(text, flags.control ? QUERN_TOKENIZE_CONTROL : 0);
  if (tokens.empty()) throw CommandError(QUERN_USAGE, "the prompt is empty; give some text");
  const double prompt_seconds = FeedPrompt(engine, flags, tokens);
  Answer answer;
  answer.finish = "length";
  if (flags.generation.max_tokens != 0) {
    answer = engine.Generate(flags.generation, !flags.output.json);
  }
  ReportAnswer(flags.output, engine.facts(), {tokens.size(), tokens.size(), prompt_seconds},
               answer);
  return answer.finish == "interrupted" ? QUERN_CANCELLED : QUERN_OK;
}

}  // namespace

Action SetUpRun(CLI::App& app) {
  auto flags = std::make_shared<RunFlags>();
  AddModelArgument(app, flags->model);
  app.add_option("-p,--prompt", flags->prompt, "the text to complete")->type_name("TEXT");
  app.add_option("--prompt-file", flags->prompt_file, "read the text from FILE (-: standard input)")
      ->type_name("FILE");
  app.add_option("--tokens", flags->tokens, "token numbers instead of text: 1,2,3")
      ->type_name("LIST");
  app.add_flag("--control", flags->control,
               "read control tokens written in the text, such as <|im_end|>, as such");
  AddGenerationFlags(app, flags->generation, kDefaultTokens);
  app.add_option("--logits", flags->logits,
                 "write the logits of every prompt token as float32 (rows, vocabulary)")
      ->type_name("OUT.npy");
  app.add_flag("--teacher-forced", flags->teacher_forced,
               "feed the prompt token by token, as if it had been generated");
  AddSessionFlags(app, flags->session);
  AddOutputFlags(app, flags->output);
  return [flags] { return Run(*flags); };
}

}  // namespace quern::tools

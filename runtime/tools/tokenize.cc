// quern tokenize: text to tokens and back.

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "runtime/tools/command.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/handles.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

struct TokenizeFlags {
  std::string model;
  std::optional<std::string> prompt, prompt_file, decode;
  bool plain = false;
  bool control = false;
  bool skip_control = false;
  bool json = false;
};

/// The bytes of `tokens`; they need not be whole characters.
std::string Detokenize(const quern_model* model, std::span<const int32_t> tokens, uint32_t flags) {
  char* text = nullptr;
  size_t length = 0;
  quern_error error = {};
  Check(quern_detokenize(model, tokens.data(), tokens.size(), flags, &text, &length, &error),
        error);
  const TextHandle owner(text);
  return {text, length};
}

int Decode(const quern_model* model, const TokenizeFlags& flags) {
  const std::vector<int32_t> tokens = ParseTokens("--decode", flags.decode.value_or(""));
  const std::string text =
      Detokenize(model, tokens, flags.skip_control ? QUERN_DETOKENIZE_SKIP_CONTROL : 0);
  if (flags.json) {
    WriteJson({{"text", text}, {"count", tokens.size()}});
  } else {
    WriteOutput(text + (OutputIsTerminal() ? "\n" : ""));
  }
  return QUERN_OK;
}

int Encode(const quern_model* model, const TokenizeFlags& flags) {
  const std::string text =
      flags.prompt_file ? ReadText(*flags.prompt_file) : flags.prompt.value_or("");
  const uint32_t how =
      (flags.plain ? QUERN_TOKENIZE_PLAIN : 0u) | (flags.control ? QUERN_TOKENIZE_CONTROL : 0u);
  int32_t* ids = nullptr;
  size_t count = 0;
  quern_error error = {};
  Check(quern_tokenize(model, text.data(), text.size(), how, &ids, &count, &error), error);
  const TokensHandle owner(ids);
  const std::span<const int32_t> tokens(ids, count);
  if (!flags.json) {
    std::string line;
    for (int32_t token : tokens) line += (line.empty() ? "" : ",") + std::to_string(token);
    WriteOutput(line + "\n");
    return QUERN_OK;
  }
  std::vector<std::string> pieces;
  pieces.reserve(count);
  for (size_t i = 0; i < count; ++i) pieces.push_back(Detokenize(model, tokens.subspan(i, 1), 0));
  WriteJson({{"tokens", tokens}, {"pieces", pieces}, {"count", count}});
  return QUERN_OK;
}

int Tokenize(const TokenizeFlags& flags) {
  if (flags.prompt.has_value() + flags.prompt_file.has_value() + flags.decode.has_value() != 1) {
    throw CommandError(QUERN_USAGE,
                       "wanted exactly one of -p TEXT, --prompt-file FILE and --decode "
                       "1,2,3; see 'quern tokenize --help'");
  }
  const ModelHandle model = LoadModel(flags.model, false);
  return flags.decode ? Decode(model.get(), flags) : Encode(model.get(), flags);
}

}  // namespace

Action SetUpTokenize(CLI::App& app) {
  auto flags = std::make_shared<TokenizeFlags>();
  AddModelArgument(app, flags->model);
  app.add_option("-p,--prompt", flags->prompt, "the text")->type_name("TEXT");
  app.add_option("--prompt-file", flags->prompt_file, "read the text from FILE (-: standard input)")
      ->type_name("FILE");
  app.add_option("--decode", flags->decode, "print the text of these tokens: 1,2,3")
      ->type_name("LIST");
  app.add_flag("--plain", flags->plain, "without the tokens that the model wants around a text");
  app.add_flag("--control", flags->control,
               "read control tokens written in the text, such as <|im_end|>, as such");
  app.add_flag("--skip-control", flags->skip_control, "with --decode: leave control tokens out");
  AddJsonFlag(app, flags->json);
  return [flags] { return Tokenize(*flags); };
}

}  // namespace quern::tools

// quern chat: answers through the model's chat template.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "runtime/tools/command.h"
#include "runtime/tools/engine.h"
#include "runtime/tools/output.h"
#include "runtime/tools/report.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

struct ChatFlags {
  std::string model;
  std::optional<std::string> prompt, system, messages_file;
  SessionFlags session;
  GenerationFlags generation;
  OutputFlags output;
};

/// The array of messages in the file at `path`. Errors: FAILURE, MALFORMED.
Json ReadMessages(const std::string& path) {
  constexpr int kMostDepth = 64;
  const std::string text = ReadText(path);
  bool too_deep = false;
  const auto watch_depth = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMostDepth;
    return !too_deep;
  };
  Json messages;
  try {
    messages = Json::parse(text, watch_depth);
  } catch (const Json::exception& error) {
    const std::string_view reason = error.what();  // begins with the exception's name in brackets
    throw CommandError(QUERN_MALFORMED, "'" + path + "' is not JSON: " +
                                            std::string(reason.substr(reason.find(' ') + 1)));
  }
  if (too_deep) {
    throw CommandError(QUERN_MALFORMED, "'" + path + "' nests deeper than " +
                                            std::to_string(kMostDepth) + " levels");
  }
  if (!messages.is_array()) {
    throw CommandError(QUERN_MALFORMED, "'" + path + "' holds a JSON " + messages.type_name() +
                                            ", wanted an array of {\"role\", \"content\"}");
  }
  return messages;
}

/// A growing list of messages and the model that answers them.
class Conversation {
 public:
  Conversation(Engine& engine, const ChatFlags& flags, Json messages)
      : engine_(engine), flags_(flags), messages_(std::move(messages)) {}

  void Add(std::string_view role, std::string_view content) {
    messages_.push_back({{"role", role}, {"content", content}});
  }
  void RemoveLast() { messages_.erase(messages_.size() - 1); }
  /// Goes on with these messages instead.
  void Restart(Json messages) { messages_ = std::move(messages); }

  /// Answers the last message and adds the answer.
  Answer Reply(bool stream) {
    const std::vector<int32_t> prompt = Render();
    const size_t known = KnownPrefix(prompt);
    engine_.Truncate(known);
    FeedOptions options;
    options.progress = !flags_.output.quiet;
    const Stopwatch watch;
    engine_.Feed(std::span(prompt).subspan(known), options);
    prompt_ = {prompt.size(), prompt.size() - known, watch.Seconds()};
    Answer answer = engine_.Generate(flags_.generation, stream);
    Add("assistant", answer.text);
    return answer;
  }

  /// Of the last reply.
  const PromptFacts& prompt() const { return prompt_; }

 private:
  std::vector<int32_t> Render() const {
    const std::string json = messages_.dump(-1, ' ', false, Json::error_handler_t::replace);
    std::vector<int32_t> tokens = engine_.TokenizeChat(json);
    if (tokens.empty()) {
      throw CommandError(QUERN_UNSUPPORTED, "the chat template makes no text of these messages");
    }
    return tokens;
  }

  /// How many tokens of `prompt` the sequence begins with. At least the last one is always fed,
  /// since truncating forgets the logits.
  size_t KnownPrefix(const std::vector<int32_t>& prompt) const {
    const int32_t* have = quern_sequence_tokens(engine_.sequence());
    const size_t most = std::min(prompt.size() - 1, quern_sequence_length(engine_.sequence()));
    size_t same = 0;
    while (same < most && have[same] == prompt[same]) ++same;
    return same;
  }

  Engine& engine_;
  const ChatFlags& flags_;
  Json messages_;
  PromptFacts prompt_;
};

int ReplyOnce(Conversation& conversation, const Engine& engine, const ChatFlags& flags) {
  const Answer answer = conversation.Reply(!flags.output.json);
  ReportAnswer(flags.output, engine.facts(), conversation.prompt(), answer);
  return answer.finish == "interrupted" ? QUERN_CANCELLED : QUERN_OK;
}

/// The next line, or nothing at the end of the input. A terminal gets a prompt. A signal ends the
/// process.
std::optional<std::string> ReadLine(bool terminal) {
  const CancelOnSignal end_process(nullptr);
  if (terminal) WriteOutput("> ");
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

/// Reads messages line by line. Ctrl-C ends an answer; between answers it ends the program.
int Talk(Engine& engine, const ChatFlags& flags, const Json& start) {
  const bool terminal = isatty(STDIN_FILENO) == 1 && OutputIsTerminal();
  if (terminal) WriteNote("/exit or Ctrl-D ends, /clear starts over, Ctrl-C ends an answer");
  Conversation conversation(engine, flags, start);
  while (const auto line = ReadLine(terminal)) {
    if (line->empty()) continue;
    if (*line == "/exit") break;
    if (*line == "/clear") {
      conversation.Restart(start);
      continue;
    }
    conversation.Add("user", *line);
    try {
      const Answer answer = conversation.Reply(true);
      WriteOutput("\n");
      if (answer.finish == "interrupted" && (!terminal || SignalSeen() == SIGTERM)) {
        return QUERN_CANCELLED;
      }
    } catch (const CommandError& error) {
      RequireMappings();
      if (!terminal || SignalSeen() == SIGTERM) throw;
      conversation.RemoveLast();
      if (error.code() != QUERN_CANCELLED) WriteError("chat", error.code(), error.what(), false);
    }
    ForgetSignal();
  }
  if (terminal) WriteOutput("\n");
  return QUERN_OK;
}

int Chat(const ChatFlags& flags) {
  Json messages = flags.messages_file ? ReadMessages(*flags.messages_file) : Json::array();
  if (flags.system) {
    messages.insert(messages.begin(), Json{{"role", "system"}, {"content", *flags.system}});
  }
  Engine engine(flags.model, flags.session, !flags.output.quiet);
  if (!flags.prompt && !flags.messages_file) {
    if (flags.output.json) {
      throw CommandError(QUERN_USAGE, "--json needs -p TEXT or --messages FILE");
    }
    return Talk(engine, flags, messages);
  }
  Conversation conversation(engine, flags, std::move(messages));
  if (flags.prompt) conversation.Add("user", *flags.prompt);
  return ReplyOnce(conversation, engine, flags);
}

}  // namespace

Action SetUpChat(CLI::App& app) {
  auto flags = std::make_shared<ChatFlags>();
  AddModelArgument(app, flags->model);
  app.add_option("-p,--prompt", flags->prompt, "answer this message and exit")->type_name("TEXT");
  app.add_option("--system", flags->system, "what the model is told first")->type_name("TEXT");
  app.add_option(
         "--messages", flags->messages_file,
         "answer the conversation in FILE, a JSON array of {\"role\", \"content\"}, and exit")
      ->type_name("FILE");
  AddGenerationFlags(app, flags->generation, -1);
  AddSessionFlags(app, flags->session);
  AddOutputFlags(app, flags->output);
  return [flags] { return Chat(*flags); };
}

}  // namespace quern::tools

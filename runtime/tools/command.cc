#include "runtime/tools/command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>

namespace quern::tools {
namespace {

constexpr Command kCommands[] = {
    {"compile", "compile a model to one artifact (needs quern-compile)", "", nullptr},
    {"import", "print a model as IR (needs quern-compile)", "", nullptr},
    {"tune", "search the tiles of a model's kernels (needs quern-compile)", "", nullptr},
    {"keygen", "make a key to sign artifacts with (needs quern-compile)", "", nullptr},
    {"run", "complete raw text",
     "  quern run model.quern -p \"A quern is\" -n 32\n"
     "  quern run model.quern -p \"Once upon a time\" --temp 0.8 --top-p 0.95 --seed 7\n"
     "  quern run model.quern --tokens 504,2365,282 -n 0 --logits out.npy\n"
     "  quern run model.quern --prompt-file - --json < prompt.txt",
     SetUpRun},
    {"chat", "talk to the model through its chat template",
     "  quern chat model.quern\n"
     "  quern chat model.quern -p \"What is a quern?\" --system \"Answer in one sentence.\"\n"
     "  quern chat model.quern --messages conversation.json --json",
     SetUpChat},
    {"inspect", "show what an artifact holds and needs",
     "  quern inspect model.quern\n"
     "  quern inspect model.quern --json | python3 -m json.tool",
     SetUpInspect},
    {"verify", "check an artifact",
     "  quern verify model.quern\n"
     "  quern verify model.quern --full\n"
     "  quern verify model.quern --accuracy --force-isa avx2\n"
     "  quern verify model.quern --trust mill.pub",
     SetUpVerify},
    {"eval", "measure accuracy against a precise artifact, and record it",
     "  quern compile model.gguf -o precise.quern --precise\n"
     "  quern eval model.quern --text essay.txt --reference precise.quern --record\n"
     "  quern eval model.quern --force-isa avx2 --record\n"
     "  quern verify model.quern --accuracy",
     SetUpEval},
    {"tokenize", "turn text into tokens, or tokens into text",
     "  quern tokenize model.quern -p \"Hello world\"\n"
     "  quern tokenize model.quern --decode 19556,905",
     SetUpTokenize},
    {"bench", "measure tokens per second",
     "  quern bench model.quern\n"
     "  quern bench model.quern -p 512 -n 64 -d 1024 -t 2 -r 5 --json",
     SetUpBench},
    {"emulate", "execute a GPU kernel on the CPU, strictly",
     "  quern emulate kernel.ptx --grid 4 --block 128 --arg buf:f32:512 --arg i32:512\n"
     "  quern emulate gemm.ptx --kernel gemm --grid 2,2 --block 128 --shared 32768 --seed 7 \\\n"
     "    --arg file:f16:a.bin --arg file:f16:b.bin --arg buf:f32:16384:zero --dump 2=c.npy\n"
     "  quern emulate - --block 32 --arg buf:i32:32:iota --coverage < kernel.ptx",
     SetUpEmulate},
    {"doctor", "show what this machine can run", "  quern doctor\n  quern doctor --json",
     SetUpDoctor},
    {"completion", "print completion for a shell",
     "  source <(quern completion bash)\n"
     "  quern completion zsh > ~/.zfunc/_quern\n"
     "  quern completion fish > ~/.config/fish/completions/quern.fish",
     SetUpCompletion},
    {"version", "print the version", "  quern version", SetUpVersion},
};

}  // namespace

std::span<const Command> Commands() { return kCommands; }

const Command* FindCommand(std::string_view name) {
  const auto* found = std::find_if(std::begin(kCommands), std::end(kCommands),
                                   [&](const Command& each) { return each.name == name; });
  return found == std::end(kCommands) ? nullptr : found;
}

Action SetUp(const Command& command, CLI::App& app) {
  std::string description = command.summary;
  description.front() = static_cast<char>(std::toupper(description.front()));
  app.name(std::string("quern ") + command.name);
  app.description(description + ".");
  app.set_help_flag("-h,--help", "show this help and exit");
  app.footer(std::string("Examples:\n") + command.examples);
  app.get_formatter()->column_width(34);
  return command.set_up(app);
}

}  // namespace quern::tools

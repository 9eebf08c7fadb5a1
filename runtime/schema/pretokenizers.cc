// The patterns are those that the models' own tokenizer.json files publish. `\s` there means the
// Unicode property White_Space; PCRE2's own `\s` adds U+180E, so the property is named here.
#include "runtime/schema/pretokenizers.h"

namespace quern::schema {
namespace {

#define WS R"(\p{White_Space})"
#define NOT_WS R"(\P{White_Space})"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
// What most patterns end with: line ends, then white space, whose last character goes with the
// word that follows.
#define SPACE_TAIL WS R"(*[\r\n]+|)" WS "+(?!" NOT_WS ")|" WS "+"
// Words whose capitals begin a new piece, as o200k_base has them.
#define UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define WORD_LEAD R"([^\r\n\p{L}\p{N}]?)"
#define GPT2_PATTERN                                                                               \
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" WS "+(?!" NOT_WS ")|" WS \
  "+"
#define CL100K_PATTERN(digits) \
  CONTRACTION "|" WORD_LEAD R"(\p{L}+|)" digits R"(| ?[^)" WS R"(\p{L}\p{N}]+[\r\n]*|)" SPACE_TAIL
#define O200K_PATTERN(contraction, digits)                                                \
  WORD_LEAD UPPER "*" LOWER "+" contraction "|" WORD_LEAD UPPER "+" LOWER "*" contraction \
                  "|" digits R"(| ?[^)" WS R"(\p{L}\p{N}]+[\r\n/]*|)" SPACE_TAIL

constexpr std::string_view kGpt2[] = {GPT2_PATTERN};

constexpr std::string_view kSingleDigitsGpt2[] = {R"(\p{N})", GPT2_PATTERN};

constexpr std::string_view kLlama3[] = {CL100K_PATTERN(R"(\p{N}{1,3})")};

constexpr std::string_view kQwen2[] = {CL100K_PATTERN(R"(\p{N})")};

constexpr std::string_view kQwen35[] = {CONTRACTION
                                        R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^)" WS
                                        R"(\p{L}\p{M}\p{N}]+[\r\n]*|)" SPACE_TAIL};

constexpr std::string_view kDeepseekCoder[] = {
    R"([\r\n])", WS R"(?\p{L}+)", WS R"(?\p{P}+)",
    R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)", R"(\p{N})"};

constexpr std::string_view kDeepseekV3[] = {
    R"(\p{N}{1,3})", R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|)" SPACE_TAIL};

constexpr std::string_view kTekken[] = {O200K_PATTERN("", R"(\p{N})")};

constexpr std::string_view kO200k[] = {O200K_PATTERN(CONTRACTION "?", R"(\p{N}{1,3})")};

constexpr PreTokenizer kPreTokenizers[] = {
    // name, patterns, nfc, ignore_merges
    {"default", kGpt2, false, false},
    {"gpt-2", kGpt2, false, false},
    {"smollm", kSingleDigitsGpt2, false, false},
    {"starcoder", kSingleDigitsGpt2, false, false},
    {"refact", kSingleDigitsGpt2, false, false},
    {"command-r", kSingleDigitsGpt2, true, false},
    {"llama-bpe", kLlama3, false, true},
    {"llama3", kLlama3, false, true},
    {"llama-v3", kLlama3, false, true},
    {"qwen2", kQwen2, true, false},
    {"qwen35", kQwen35, true, false},
    {"deepseek-coder", kDeepseekCoder, false, false},
    {"deepseek-v3", kDeepseekV3, false, false},
    {"tekken", kTekken, false, true},
    {"gpt-4o", kO200k, false, false},
    {"llama4", kO200k, false, false},
};

}  // namespace

std::span<const PreTokenizer> PreTokenizers() { return kPreTokenizers; }

const PreTokenizer* FindPreTokenizer(std::string_view name) {
  for (const PreTokenizer& row : kPreTokenizers)
    if (row.name == name) return &row;
  return nullptr;
}

}  // namespace quern::schema

//===- QuantizeOption.h - What --quantize takes -----------------*- C++ -*-===//
#ifndef QUERN_COMPILER_TOOLS_QUANTIZEOPTION_H
#define QUERN_COMPILER_TOOLS_QUANTIZEOPTION_H

#include <CLI/CLI.hpp>

#include <map>
#include <optional>
#include <string>

namespace quern {

/// Adds `--quantize`: `format` becomes the chosen block format, as
/// PipelineOptions::quantizeFormat wants it.
inline void addQuantizeOption(CLI::App *verb,
                              std::optional<std::string> &format,
                              const std::string &help) {
  const std::map<std::string, std::string> formats = {
      {"int8", "q8_0"}, {"int4", "q4_0"}, {"fp8", "e4m3"}};
  verb->add_option_function<std::string>(
          "--quantize",
          [&format, formats](const std::string &word) {
            format = formats.at(word);
          },
          help)
      ->check(CLI::IsMember({"int8", "int4", "fp8"}));
}

} // namespace quern

#endif // QUERN_COMPILER_TOOLS_QUANTIZEOPTION_H

//===- TuneVerb.h - quern tune ----------------------------------*- C++ -*-===//
#ifndef QUERN_COMPILER_TOOLS_TUNEVERB_H
#define QUERN_COMPILER_TOOLS_TUNEVERB_H

#include "compiler/tuning/Tuner.h"

#include <CLI/CLI.hpp>

namespace quern {

/// The options of `quern tune` as the command line gives them.
struct TuneCommandLine {
  TuneOptions options;
  std::string target = "host";
  /// The database; empty: standard output.
  std::string output;
  bool json = false;
  bool quiet = false;
};

void addTune(CLI::App &app, TuneCommandLine &line);

/// Tunes, writes the database and reports.
llvm::Error runTune(TuneCommandLine &line);

} // namespace quern

#endif // QUERN_COMPILER_TOOLS_TUNEVERB_H

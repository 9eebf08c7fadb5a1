// How far a model's next-token distributions are from a reference's: figures, and the records that
// keep them in an artifact (docs/artifact.md, "Accuracy").
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "runtime/tools/engine.h"

namespace quern::tools {

/// Tokens of a reference.
constexpr size_t kMostPositions = 4096;

/// What the reference says of one position: the likeliest tokens, and the rest as one event.
struct ReferenceRow {
  std::vector<int32_t> ids;       ///< Likeliest first.
  std::vector<double> log_probs;  ///< Natural, of `ids`.
};

/// Tokens and the reference's distribution behind each of them.
struct Reference {
  std::string text;    ///< What the text is called.
  std::string source;  ///< Who made the distributions.
  std::vector<int32_t> tokens;
  std::vector<ReferenceRow> rows;  ///< One for every token.
  double perplexity = 0;           ///< The reference's, over the tokens behind the first.
};

/// The figures of a model against a reference.
struct Accuracy {
  uint64_t positions = 0;
  double mean_kl = 0;     ///< Nats, over the positions; KL(reference || model) of the rows' events.
  double p99_kl = 0;      ///< All but one in a hundred positions are no farther.
  double top1 = 0;        ///< Share of positions where both find the same token the likeliest.
  double perplexity = 0;  ///< Of the tokens behind the first.
};

/// Reads what `engine`, whose sequence is empty, says of `tokens`.
Reference MakeReference(Engine& engine, const std::vector<int32_t>& tokens);

/// Measures `engine`, whose sequence is empty, over the reference's tokens. Error: MALFORMED for
/// tokens that the model does not have.
Accuracy MeasureAccuracy(Engine& engine, const Reference& reference);

/// The bytes of a reference record, and back. Errors: MALFORMED.
std::string WriteReference(const Reference& reference);
Reference ReadReference(const quern_model* model, size_t index);

/// An accuracy record: what was measured on one device, and what is promised of it from then on.
struct AccuracyRecord {
  std::string artifact;  ///< Hash of the artifact that was measured.
  std::string device;    ///< "cpu", "cuda", "ptx-emulator".
  std::string target;
  uint64_t reference = 0;  ///< Which of the artifact's reference records.
  std::string text;        ///< What the reference's text is called.
  double reference_perplexity = 0;
  Accuracy measured;
  double max_mean_kl = 0;  ///< The contract: no more than that,
  double min_top1 = 0;     ///< and no less than this.
};

/// `measured` with the contract that follows from it: a mean KL of 5 % and 0.00001 nats more, and a
/// different likeliest token at one position in a hundred more, leave it kept.
AccuracyRecord MakeAccuracyRecord(const Engine& engine, const Reference& reference,
                                  const Accuracy& measured);

nlohmann::ordered_json ToJson(const AccuracyRecord& record);
/// All of a model's accuracy records, the oldest first. Errors: MALFORMED, also for a record of
/// another artifact.
std::vector<AccuracyRecord> ReadAccuracyRecords(const quern_model* model);
/// The youngest record for the device and target of `engine`.
std::optional<AccuracyRecord> FindAccuracyRecord(const Engine& engine);

/// "mean KL 0.00277 (p99 0.0120), top-1 96.7 %, perplexity 21.48 (reference 21.50)".
std::string DescribeAccuracy(const Accuracy& measured, double reference_perplexity);

/// The kind of a device: "cuda" of "cuda:0".
std::string DeviceKind(const std::string& device);

}  // namespace quern::tools

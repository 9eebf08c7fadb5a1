#include "runtime/tools/accuracy.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "runtime/tools/error.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

using Json = nlohmann::ordered_json;

/// Tokens of a reference row. What they leave over is some hundredths of the probability.
constexpr size_t kTop = 128;
/// Rows of logits in memory at a time.
constexpr size_t kRows = 64;
/// Log-probabilities are stored in integers of so many nats.
constexpr double kUnit = 1e-5;

/// A row of logits as log-probabilities.
void LogSoftmax(const float* logits, std::vector<double>& log_probs) {
  const size_t vocab = log_probs.size();
  const double top = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (size_t i = 0; i < vocab; ++i) sum += std::exp(logits[i] - top);
  const double log_sum = top + std::log(sum);
  for (size_t i = 0; i < vocab; ++i) log_probs[i] = logits[i] - log_sum;
}

using RowCallback = std::function<void(size_t position, const std::vector<double>& log_probs)>;

/// Calls `use` with the log-probabilities behind every token.
void ForEachPosition(Engine& engine, const std::vector<int32_t>& tokens, const RowCallback& use) {
  const size_t vocab = engine.vocab();
  std::vector<float> logits(std::min(kRows, tokens.size()) * vocab);
  std::vector<double> log_probs(vocab);
  for (size_t done = 0; done < tokens.size();) {
    const size_t count = std::min(kRows, tokens.size() - done);
    quern_error error = {};
    const quern_status_code code = quern_sequence_feed(
        engine.sequence(), tokens.data() + done, count, QUERN_ROLE_PREFILL, logits.data(), &error);
    RequireMappings();
    Check(code, error);
    for (size_t row = 0; row < count; ++row) {
      LogSoftmax(logits.data() + row * vocab, log_probs);
      use(done + row, log_probs);
    }
    done += count;
  }
}

/// Sums -log p of the tokens that follow, for the perplexity.
class Losses {
 public:
  explicit Losses(const std::vector<int32_t>& tokens) : tokens_(tokens) {}
  void Add(size_t position, const std::vector<double>& log_probs) {
    if (position + 1 < tokens_.size()) {
      sum_ -= log_probs[static_cast<size_t>(tokens_[position + 1])];
    }
  }
  double Perplexity() const { return std::exp(sum_ / static_cast<double>(tokens_.size() - 1)); }

 private:
  const std::vector<int32_t>& tokens_;
  double sum_ = 0;
};

/// KL(row || log_probs) in nats over the row's tokens and the rest as one event: no more than over
/// all tokens.
double Divergence(const ReferenceRow& row, const std::vector<double>& log_probs) {
  double kl = 0, reference_rest = 1, rest = 1;
  for (size_t i = 0; i < row.ids.size(); ++i) {
    const double log_q = log_probs[static_cast<size_t>(row.ids[i])];
    const double p = std::exp(row.log_probs[i]);
    kl += p * (row.log_probs[i] - log_q);
    reference_rest -= p;
    rest -= std::exp(log_q);
  }
  // Rounding leaves a little, or less than nothing, where the row's tokens are all there is.
  constexpr double kNothing = 1e-6;
  if (reference_rest > kNothing) {
    kl += reference_rest * std::log(reference_rest / std::max(rest, kNothing));
  }
  return std::max(kl, 0.0);
}

[[noreturn]] void Refuse(const std::string& record, const std::string& reason) {
  throw CommandError(QUERN_MALFORMED, "the " + record + " record " + reason +
                                          "; copy the artifact again or measure it again");
}

/// A text that may be shown.
std::string ReadText(const Json& json) { return OneLine(json.get<std::string>()); }

/// Parses record `index` of a kind and hands it to `read`, whose JSON errors are the record's.
template <typename Read>
auto Parse(const quern_model* model, quern_record_kind kind, const char* name, size_t index,
           const Read& read) {
  size_t bytes = 0;
  const auto* data = static_cast<const char*>(quern_model_record(model, kind, index, &bytes));
  const std::string which = std::string(name) + " " + std::to_string(index);
  if (data == nullptr) Refuse(which, "is missing");
  try {
    return read(Json::parse(data, data + bytes));
  } catch (const Json::exception& error) {
    Refuse(which, std::string("is not as it should be: ") + error.what());
  }
}

ReferenceRow ReadRow(const Json& json, size_t vocab) {
  ReferenceRow row;
  const Json &ids = json.at(0), &units = json.at(1);
  if (ids.empty() || ids.size() != units.size() || ids.size() > vocab) {
    Refuse("reference", "has a row of " + std::to_string(ids.size()) + " tokens and " +
                            std::to_string(units.size()) + " probabilities");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = ids[i].get<int64_t>();
    const auto unit = units[i].get<int64_t>();
    if (id < 0 || static_cast<uint64_t>(id) >= vocab || unit > 0) {
      Refuse("reference", "has token " + std::to_string(id) + " with probability " +
                              std::to_string(unit) + ", wanted one of " + std::to_string(vocab) +
                              " tokens and at most 0");
    }
    row.ids.push_back(static_cast<int32_t>(id));
    row.log_probs.push_back(static_cast<double>(unit) * kUnit);
  }
  return row;
}

AccuracyRecord ReadRecord(const Json& json) {
  const Json& measured = json.at("measured");
  const Json& contract = json.at("contract");
  return {ReadText(json.at("artifact")),
          ReadText(json.at("device")),
          ReadText(json.at("target")),
          json.at("reference"),
          ReadText(json.at("text")),
          json.at("reference_perplexity"),
          {measured.at("positions"), measured.at("mean_kl"), measured.at("p99_kl"),
           measured.at("top1"), measured.at("perplexity")},
          contract.at("max_mean_kl"),
          contract.at("min_top1")};
}

std::string ArtifactHash(const quern_model* model) {
  return Json::parse(quern_model_json(model)).at("hash");
}

}  // namespace

Reference MakeReference(Engine& engine, const std::vector<int32_t>& tokens) {
  if (tokens.size() < 2 || tokens.size() > kMostPositions) {
    throw CommandError(QUERN_USAGE, "the text has " + std::to_string(tokens.size()) +
                                        " tokens, wanted 2 to " + std::to_string(kMostPositions) +
                                        "; give another text or --positions");
  }
  Reference reference;
  reference.tokens = tokens;
  Losses losses(tokens);
  std::vector<int32_t> order(engine.vocab());
  ForEachPosition(engine, tokens, [&](size_t position, const std::vector<double>& log_probs) {
    losses.Add(position, log_probs);
    std::iota(order.begin(), order.end(), 0);
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(kTop, order.size()));
    std::partial_sort(order.begin(), end, order.end(), [&](int32_t a, int32_t b) {
      const double x = log_probs[static_cast<size_t>(a)], y = log_probs[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    });
    ReferenceRow row;
    row.ids.assign(order.begin(), end);
    for (const int32_t id : row.ids) {
      // As a record will hold it, so that measuring now and later is the same.
      row.log_probs.push_back(std::round(log_probs[static_cast<size_t>(id)] / kUnit) * kUnit);
    }
    reference.rows.push_back(std::move(row));
  });
  reference.perplexity = losses.Perplexity();
  return reference;
}

Accuracy MeasureAccuracy(Engine& engine, const Reference& reference) {
  std::vector<double> divergences;
  size_t same = 0;
  Losses losses(reference.tokens);
  ForEachPosition(engine, reference.tokens,
                  [&](size_t position, const std::vector<double>& log_probs) {
                    const ReferenceRow& row = reference.rows[position];
                    divergences.push_back(Divergence(row, log_probs));
                    losses.Add(position, log_probs);
                    const auto best = std::max_element(log_probs.begin(), log_probs.end());
                    same += best - log_probs.begin() == row.ids.front() ? 1 : 0;
                  });
  std::vector<double> sorted = divergences;
  std::sort(sorted.begin(), sorted.end());
  const double count = static_cast<double>(divergences.size());
  Accuracy accuracy;
  accuracy.positions = divergences.size();
  accuracy.mean_kl = std::accumulate(divergences.begin(), divergences.end(), 0.0) / count;
  accuracy.p99_kl = sorted[(sorted.size() * 99 + 99) / 100 - 1];
  accuracy.top1 = static_cast<double>(same) / count;
  accuracy.perplexity = losses.Perplexity();
  return accuracy;
}

std::string WriteReference(const Reference& reference) {
  Json rows = Json::array();
  for (const ReferenceRow& row : reference.rows) {
    std::vector<int64_t> units;
    for (const double log_prob : row.log_probs) units.push_back(std::llround(log_prob / kUnit));
    rows.push_back({row.ids, units});
  }
  const Json json = {{"text", reference.text},
                     {"source", reference.source},
                     {"perplexity", reference.perplexity},
                     {"tokens", reference.tokens},
                     {"rows", rows}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Reference ReadReference(const quern_model* model, size_t index) {
  return Parse(model, QUERN_RECORD_REFERENCE, "reference", index, [&](const Json& json) {
    const size_t vocab = quern_model_vocab(model);
    Reference reference = {
        ReadText(json.at("text")), ReadText(json.at("source")), {}, {}, json.at("perplexity")};
    const Json &tokens = json.at("tokens"), &rows = json.at("rows");
    if (tokens.size() < 2 || tokens.size() > kMostPositions || tokens.size() != rows.size()) {
      Refuse("reference", "has " + std::to_string(tokens.size()) + " tokens and " +
                              std::to_string(rows.size()) + " rows, wanted 2 to " +
                              std::to_string(kMostPositions) + " of both");
    }
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto token = tokens[i].get<int64_t>();
      if (token < 0 || static_cast<uint64_t>(token) >= vocab) {
        Refuse("reference",
               "has token " + std::to_string(token) + ", wanted one of " + std::to_string(vocab));
      }
      reference.tokens.push_back(static_cast<int32_t>(token));
      reference.rows.push_back(ReadRow(rows[i], vocab));
    }
    return reference;
  });
}

AccuracyRecord MakeAccuracyRecord(const Engine& engine, const Reference& reference,
                                  const Accuracy& measured) {
  AccuracyRecord record;
  record.artifact = ArtifactHash(engine.model());
  record.device = DeviceKind(engine.facts().device);
  record.target = engine.facts().target;
  record.text = reference.text;
  record.reference_perplexity = reference.perplexity;
  record.measured = measured;
  record.max_mean_kl = measured.mean_kl * 1.05 + 1e-5;
  record.min_top1 = std::max(0.0, measured.top1 - 0.01);
  return record;
}

Json ToJson(const AccuracyRecord& record) {
  return {{"artifact", record.artifact},
          {"device", record.device},
          {"target", record.target},
          {"reference", record.reference},
          {"text", record.text},
          {"reference_perplexity", record.reference_perplexity},
          {"measured",
           {{"positions", record.measured.positions},
            {"mean_kl", record.measured.mean_kl},
            {"p99_kl", record.measured.p99_kl},
            {"top1", record.measured.top1},
            {"perplexity", record.measured.perplexity}}},
          {"contract", {{"max_mean_kl", record.max_mean_kl}, {"min_top1", record.min_top1}}}};
}

std::vector<AccuracyRecord> ReadAccuracyRecords(const quern_model* model) {
  std::vector<AccuracyRecord> records;
  size_t bytes = 0;
  while (quern_model_record(model, QUERN_RECORD_ACCURACY, records.size(), &bytes) != nullptr) {
    const size_t index = records.size();
    records.push_back(Parse(model, QUERN_RECORD_ACCURACY, "accuracy", index, ReadRecord));
    if (records.back().artifact != ArtifactHash(model)) {
      Refuse("accuracy " + std::to_string(index), "is of the artifact " + records.back().artifact);
    }
  }
  return records;
}

std::optional<AccuracyRecord> FindAccuracyRecord(const Engine& engine) {
  std::optional<AccuracyRecord> found;
  for (const AccuracyRecord& record : ReadAccuracyRecords(engine.model())) {
    if (record.target != engine.facts().target) continue;
    if (record.device == DeviceKind(engine.facts().device)) found = record;
  }
  return found;
}

std::string DescribeAccuracy(const Accuracy& measured, double reference_perplexity) {
  return "mean KL " + FormatFixed(measured.mean_kl, 5) + " (p99 " +
         FormatFixed(measured.p99_kl, 4) + "), top-1 " + FormatFixed(100 * measured.top1, 1) +
         " %, perplexity " + FormatFixed(measured.perplexity, 3) + " (reference " +
         FormatFixed(reference_perplexity, 3) + ") over " + std::to_string(measured.positions) +
         " positions";
}

std::string DeviceKind(const std::string& device) { return device.substr(0, device.find(':')); }

}  // namespace quern::tools

#include "runtime/llm/session.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/device/host/cpu_features.h"

namespace quern {
namespace {

Status CheckOption(const char* name, int64_t value, int64_t limit) {
  if (value >= 0 && value <= limit) return {};
  return UsageError(std::string(name) + " is " + std::to_string(value) +
                    ", wanted 0 (default) to " + std::to_string(limit));
}

}  // namespace

Result<std::unique_ptr<Session>> Session::Create(std::shared_ptr<const Model> model,
                                                 const SessionOptions& options) {
  return CreateWith(std::move(model), options,
                    [&options](const Artifact& artifact, const ExecutorOptions& executor) {
                      return OpenExecutor(artifact, options.device, options.isa, executor);
                    });
}

Result<std::unique_ptr<Session>> Session::CreateWith(std::shared_ptr<const Model> model,
                                                     const SessionOptions& options,
                                                     const ExecutorFactory& make) {
  constexpr int64_t kMaxKvTokens = int64_t{1} << 36;
  QUERN_RETURN_IF_ERROR(CheckOption("threads", options.threads, 4096));
  QUERN_RETURN_IF_ERROR(CheckOption("context", options.context, model->context()));
  QUERN_RETURN_IF_ERROR(CheckOption("kv_tokens", options.kv_tokens, kMaxKvTokens));
  std::unique_ptr<Session> session(new Session());
  session->context_ = options.context ? options.context : model->context();
  const int64_t page_tokens = model->manifest().kv()->Get(0)->page_tokens();
  const int64_t kv_tokens = options.kv_tokens ? options.kv_tokens : session->context_;
  ExecutorOptions executor;
  executor.threads = options.threads ? options.threads : UsableCpus();
  executor.pin_threads = options.pin_threads;
  executor.max_rows = options.max_rows ? options.max_rows : SessionOptions::kDefaultRows;
  executor.kv_pages = (kv_tokens + page_tokens - 1) / page_tokens;
  executor.sequence_pages =
      std::min(executor.kv_pages, (session->context_ + page_tokens - 1) / page_tokens);
  executor.progress = options.progress;
  QUERN_ASSIGN_OR_RETURN(session->opened_, make(model->artifact(), executor));
  session->model_ = std::move(model);
  return session;
}

std::unique_ptr<Sequence> Session::NewSequence() {
  Result<Sampler> sampler = Sampler::Create({});  // the defaults are valid
  return std::unique_ptr<Sequence>(new Sequence(this, std::move(sampler).value()));
}

Status Session::TakeCancel() {
  if (!cancelled_.exchange(false, std::memory_order_relaxed)) return {};
  return {StatusCode::kCancelled, "cancelled"};
}

Status Session::CheckRun(const Run& run) const {
  for (int32_t token : run.tokens) {
    if (token < 0 || token >= model_->vocab()) {
      return UsageError("token " + std::to_string(token) + " is none of the model's, 0 to " +
                        std::to_string(model_->vocab() - 1));
    }
  }
  const auto added = static_cast<int64_t>(run.tokens.size());
  if (added > context_ - run.sequence->length()) {
    return UsageError("the context is " + std::to_string(context_) +
                      " tokens and the sequence has " + std::to_string(run.sequence->length()) +
                      ", so " + std::to_string(added) +
                      " more do not fit; shorten the text or raise the context");
  }
  return {};
}

Status Session::Step(std::span<const Run> runs, schema::Role role, Want want, float* logits) {
  tokens_.clear();
  slots_.clear();
  rows_.clear();
  logit_rows_.clear();
  page_tables_.clear();
  for (size_t i = 0; i < runs.size(); ++i) {
    Sequence& sequence = *runs[i].sequence;
    const int64_t begin = sequence.length();
    const int64_t end = begin + static_cast<int64_t>(runs[i].tokens.size());
    const Status prepared = sequence.kv_.Prepare(begin, end, role);
    if (!prepared.ok()) {
      for (size_t j = 0; j < i; ++j) runs[j].sequence->kv_.Truncate(runs[j].sequence->length());
      return prepared;
    }
    tokens_.insert(tokens_.end(), runs[i].tokens.begin(), runs[i].tokens.end());
    for (int64_t slot = begin; slot < end; ++slot) slots_.push_back(static_cast<int32_t>(slot));
    rows_.insert(rows_.end(), runs[i].tokens.size(), static_cast<int32_t>(i));
    if (want == Want::kLastRows) logit_rows_.push_back(static_cast<int32_t>(tokens_.size()) - 1);
    page_tables_.push_back(sequence.kv_.pages());
  }
  if (want == Want::kAllRows) {
    logit_rows_.resize(tokens_.size());
    std::iota(logit_rows_.begin(), logit_rows_.end(), 0);
  }
  StepInput input;
  input.role = role;
  input.tokens = tokens_;
  input.positions = slots_;  // text: the position is the index in the sequence
  input.slots = slots_;
  input.sequences = rows_;
  input.page_tables = page_tables_;
  input.logit_rows = logit_rows_;
  input.logits = logits;
  if (want == Want::kLastRows && !logits) {
    for (const Run& run : runs) {
      input.candidates = std::max(input.candidates, run.sequence->sampler_.WantedCandidates());
    }
  }
  if (!logit_rows_.empty()) QUERN_RETURN_IF_ERROR(SaveKept(runs));
  QUERN_RETURN_IF_ERROR(executor().Step(input));
  for (const Run& run : runs) run.sequence->Append(run.tokens);
  return {};
}

Status Session::Decode(std::span<Sequence* const> sequences, std::span<const int32_t> tokens) {
  if (sequences.size() != tokens.size()) {
    return UsageError(std::to_string(sequences.size()) + " sequences and " +
                      std::to_string(tokens.size()) + " tokens; wanted one token a sequence");
  }
  std::vector<Run> runs;
  for (size_t i = 0; i < sequences.size(); ++i) {
    runs.push_back({sequences[i], tokens.subspan(i, 1)});
    if (&sequences[i]->session() != this) return UsageError("a sequence of another session");
    QUERN_RETURN_IF_ERROR(CheckRun(runs.back()));
  }
  std::vector<Sequence*> sorted(sequences.begin(), sequences.end());
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    return UsageError("a sequence is given twice; decode one token a sequence at a time");
  }
  const auto most = static_cast<size_t>(max_rows());
  for (size_t done = 0; done < runs.size(); done += most) {
    QUERN_RETURN_IF_ERROR(TakeCancel());
    const std::span<const Run> part =
        std::span(runs).subspan(done, std::min(most, runs.size() - done));
    QUERN_RETURN_IF_ERROR(StepToLogits(part, schema::Role::Decode));
  }
  return {};
}

Status Session::SaveKept(std::span<const Run> runs) {
  for (Sequence* sequence : std::vector<Sequence*>(kept_)) {
    const auto steps = [&](const Run& run) { return run.sequence == sequence; };
    if (std::none_of(runs.begin(), runs.end(), steps)) QUERN_RETURN_IF_ERROR(sequence->ReadKept());
  }
  return {};
}

Status Session::StepToLogits(std::span<const Run> runs, schema::Role role) {
  const auto vocab = static_cast<size_t>(model_->vocab());
  if (static_cast<int64_t>(runs.size()) <= executor().kept_rows()) {
    QUERN_RETURN_IF_ERROR(Step(runs, role, Want::kLastRows, nullptr));
    for (size_t i = 0; i < runs.size(); ++i) {
      Sequence& sequence = *runs[i].sequence;
      sequence.ForgetLogits();
      sequence.has_logits_ = true;
      sequence.kept_row_ = static_cast<int64_t>(i);
      const std::span<const Candidate> best = executor().candidates(sequence.kept_row_);
      sequence.best_.assign(best.begin(), best.end());
      kept_.push_back(&sequence);
    }
    return {};
  }
  // A single run's go straight into the sequence's own row.
  float* logits = nullptr;
  if (runs.size() == 1) {
    runs.front().sequence->logits_.resize(vocab);
    logits = runs.front().sequence->logits_.data();
  } else {
    logits_.resize(runs.size() * vocab);
    logits = logits_.data();
  }
  QUERN_RETURN_IF_ERROR(Step(runs, role, Want::kLastRows, logits));
  for (size_t i = 0; i < runs.size(); ++i) {
    Sequence& sequence = *runs[i].sequence;
    sequence.ForgetLogits();
    sequence.logits_.resize(vocab);
    if (runs.size() > 1) std::copy_n(logits + i * vocab, vocab, sequence.logits_.data());
    sequence.has_logits_ = true;
  }
  return {};
}

Sequence::Sequence(Session* session, Sampler sampler)
    : session_(session), kv_(&session->executor().kv()), sampler_(std::move(sampler)) {}

Sequence::~Sequence() { ForgetLogits(); }

void Sequence::ForgetLogits() {
  std::erase(session_->kept_, this);
  kept_row_ = -1;
  best_.clear();
  has_logits_ = false;
}

Status Sequence::ReadKept() {
  if (kept_row_ < 0) return {};
  logits_.resize(static_cast<size_t>(session_->model().vocab()));
  QUERN_RETURN_IF_ERROR(session_->executor().ReadLogits(kept_row_, logits_.data()));
  std::erase(session_->kept_, this);
  kept_row_ = -1;
  return {};
}

Status Sequence::Feed(std::span<const int32_t> tokens, schema::Role role, float* all_logits) {
  QUERN_RETURN_IF_ERROR(session_->CheckRun({this, tokens}));
  const auto vocab = static_cast<size_t>(session_->model().vocab());
  const auto most = static_cast<size_t>(session_->max_rows());
  for (size_t done = 0; done < tokens.size();) {
    QUERN_RETURN_IF_ERROR(session_->TakeCancel());
    const size_t count = std::min(most, tokens.size() - done);
    const bool last = done + count == tokens.size();
    const Session::Run run{this, tokens.subspan(done, count)};
    if (last && !all_logits) return session_->StepToLogits({&run, 1}, role);
    const Session::Want want = all_logits ? Session::Want::kAllRows : Session::Want::kNothing;
    float* logits = all_logits ? all_logits + done * vocab : nullptr;
    QUERN_RETURN_IF_ERROR(session_->Step({&run, 1}, role, want, logits));
    ForgetLogits();
    if (last) {
      logits_.assign(logits + (count - 1) * vocab, logits + count * vocab);
      has_logits_ = true;
    }
    done += count;
  }
  return {};
}

std::unique_ptr<Sequence> Sequence::Fork() {
  const std::span<const float> now = logits();
  std::unique_ptr<Sequence> fork(new Sequence(session_, sampler_));
  fork->kv_ = kv_.Fork();
  fork->tokens_ = tokens_;
  fork->logits_.assign(now.begin(), now.end());
  fork->has_logits_ = !now.empty();
  fork->best_ = best_;
  return fork;
}

Status Sequence::Truncate(int64_t length) {
  if (length < 0 || length > this->length()) {
    return UsageError("cannot truncate a sequence of " + std::to_string(this->length()) +
                      " tokens to " + std::to_string(length));
  }
  kv_.Truncate(length);
  tokens_.resize(static_cast<size_t>(length));
  ForgetLogits();
  return SetSampling(sampler_.options());
}

std::span<const float> Sequence::logits() {
  if (!ReadKept().ok()) return {};
  return has_logits_ ? std::span<const float>(logits_) : std::span<const float>();
}

Status Sequence::SetSampling(const SamplerOptions& options) {
  QUERN_ASSIGN_OR_RETURN(Sampler sampler, Sampler::Create(options));
  for (int32_t token : tokens_) sampler.Accept(token);
  sampler_ = std::move(sampler);
  return {};
}

Result<int32_t> Sequence::Sample() {
  if (!has_logits_) return UsageError("the sequence has no logits; feed it tokens first");
  QUERN_ASSIGN_OR_RETURN(
      const std::optional<int32_t> best,
      sampler_.SampleBest(best_, static_cast<size_t>(session_->model().vocab())));
  if (best) return *best;
  QUERN_RETURN_IF_ERROR(ReadKept());
  return sampler_.Sample(logits_);
}

void Sequence::Append(std::span<const int32_t> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  for (int32_t token : tokens) sampler_.Accept(token);
}

}  // namespace quern

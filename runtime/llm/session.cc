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
  const auto vocab = static_cast<size_t>(model_->vocab());
  const auto most = static_cast<size_t>(max_rows());
  for (size_t done = 0; done < runs.size(); done += most) {
    QUERN_RETURN_IF_ERROR(TakeCancel());
    const std::span<const Run> part =
        std::span(runs).subspan(done, std::min(most, runs.size() - done));
    for (const Run& run : part) run.sequence->logits_.resize(vocab);
    if (part.size() == 1) {  // straight into the sequence's own row
      Sequence& only = *part.front().sequence;
      QUERN_RETURN_IF_ERROR(Step(part, schema::Role::Decode, Want::kLastRows, only.logits_.data()));
      only.has_logits_ = true;
      continue;
    }
    logits_.resize(part.size() * vocab);
    QUERN_RETURN_IF_ERROR(Step(part, schema::Role::Decode, Want::kLastRows, logits_.data()));
    for (size_t i = 0; i < part.size(); ++i) {
      std::copy_n(logits_.data() + i * vocab, vocab, part[i].sequence->logits_.data());
      part[i].sequence->has_logits_ = true;
    }
  }
  return {};
}

Sequence::Sequence(Session* session, Sampler sampler)
    : session_(session), kv_(&session->executor().kv()), sampler_(std::move(sampler)) {}

Status Sequence::Feed(std::span<const int32_t> tokens, schema::Role role, float* all_logits) {
  QUERN_RETURN_IF_ERROR(session_->CheckRun({this, tokens}));
  const auto vocab = static_cast<size_t>(session_->model().vocab());
  const auto most = static_cast<size_t>(session_->max_rows());
  for (size_t done = 0; done < tokens.size();) {
    QUERN_RETURN_IF_ERROR(session_->TakeCancel());
    const size_t count = std::min(most, tokens.size() - done);
    const bool last = done + count == tokens.size();
    const Session::Run run{this, tokens.subspan(done, count)};
    Session::Want want = Session::Want::kNothing;
    float* logits = nullptr;
    if (last) logits_.resize(vocab);
    if (all_logits) {
      want = Session::Want::kAllRows;
      logits = all_logits + done * vocab;
    } else if (last) {
      want = Session::Want::kLastRows;
      logits = logits_.data();
    }
    QUERN_RETURN_IF_ERROR(session_->Step({&run, 1}, role, want, logits));
    if (last && all_logits) std::copy_n(logits + (count - 1) * vocab, vocab, logits_.data());
    has_logits_ = last;
    done += count;
  }
  return {};
}

std::unique_ptr<Sequence> Sequence::Fork() const {
  std::unique_ptr<Sequence> fork(new Sequence(session_, sampler_));
  fork->kv_ = kv_.Fork();
  fork->tokens_ = tokens_;
  fork->logits_ = logits_;
  fork->has_logits_ = has_logits_;
  return fork;
}

Status Sequence::Truncate(int64_t length) {
  if (length < 0 || length > this->length()) {
    return UsageError("cannot truncate a sequence of " + std::to_string(this->length()) +
                      " tokens to " + std::to_string(length));
  }
  kv_.Truncate(length);
  tokens_.resize(static_cast<size_t>(length));
  has_logits_ = false;
  return SetSampling(sampler_.options());
}

std::span<const float> Sequence::logits() const {
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
  return sampler_.Sample(logits_);
}

void Sequence::Append(std::span<const int32_t> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  for (int32_t token : tokens) sampler_.Accept(token);
}

}  // namespace quern

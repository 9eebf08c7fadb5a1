#include "runtime/llm/generate.h"

#include "runtime/llm/text_stream.h"

namespace quern {
namespace {

/// One call of Generate.
class Generator {
 public:
  Generator(Sequence& sequence, const GenerateOptions& options, const TextCallback& callback,
            TextStream stream, GenerateResult& result)
      : sequence_(sequence),
        tokenizer_(sequence.session().model().tokenizer()),
        options_(options),
        callback_(callback),
        stream_(std::move(stream)),
        result_(result) {}

  Status Run() {
    Status status;
    for (bool more = true; more && status.ok();) status = Next(more);
    if (!status.ok() && status.code() != StatusCode::kCancelled) return status;
    if (result_.finish == Finish::kCaller) return {};
    const std::string rest = stream_.Finish();  // a cancelled answer is shown as far as it came
    if (!rest.empty() && callback_) callback_(rest, -1);
    return status;
  }

 private:
  /// Chooses one token, shows it and appends it. `more` becomes false with the finish set.
  Status Next(bool& more) {
    QUERN_ASSIGN_OR_RETURN(const int32_t token, sequence_.Sample());
    ++result_.tokens;
    if (tokenizer_ && !options_.ignore_end && tokenizer_->IsEndOfGeneration(token)) {
      return End(Finish::kEnd, more);
    }
    const std::string text = stream_.Push(Text(token));
    if (callback_ && !callback_(text, token)) return End(Finish::kCaller, more);
    if (stream_.stopped()) return End(Finish::kStop, more);
    if (result_.tokens == options_.max_tokens) return End(Finish::kLength, more);
    Session& session = sequence_.session();
    if (sequence_.length() == session.context()) return End(Finish::kContext, more);
    Sequence* sequence = &sequence_;
    return session.Decode({&sequence, 1}, {&token, 1});
  }

  Status End(Finish finish, bool& more) {
    result_.finish = finish;
    more = false;
    return {};
  }

  std::string_view Text(int32_t token) const {
    if (!tokenizer_ || (tokenizer_->IsControl(token) && !options_.show_control)) return {};
    return tokenizer_->TokenBytes(token);
  }

  Sequence& sequence_;
  const Tokenizer* tokenizer_;
  const GenerateOptions& options_;
  const TextCallback& callback_;
  TextStream stream_;
  GenerateResult& result_;
};

}  // namespace

Status Generate(Sequence& sequence, const GenerateOptions& options, const TextCallback& callback,
                GenerateResult& result) {
  result = {};
  QUERN_ASSIGN_OR_RETURN(TextStream stream, TextStream::Create(options.stop));
  const Status status = Generator(sequence, options, callback, std::move(stream), result).Run();
  if (status.code() == StatusCode::kCancelled) result.finish = Finish::kCancel;
  return status;
}

}  // namespace quern

#include "compiler/tuning/KernelTimer.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

#include <algorithm>

using namespace quern;
namespace json = llvm::json;

/// Sequences of the widest decode step.
static constexpr size_t kMostSequences = 4;

//===----------------------------------------------------------------------===//
// Opening
//===----------------------------------------------------------------------===//

/// Parses what the runtime wrote, which is sound unless the library is another.
static llvm::Expected<json::Object> parseObject(const char *text) {
  llvm::Expected<json::Value> value = json::parse(text);
  if (value && value->getAsObject())
    return std::move(*value->getAsObject());
  if (!value)
    llvm::consumeError(value.takeError());
  return compileError(ExitCode::Failure,
                      "libquern described something in no JSON object; install "
                      "quern-compile and libquern of one release");
}

llvm::Expected<KernelTimer> KernelTimer::open(const std::string &path,
                                              const std::string &target,
                                              size_t rows) {
  KernelTimer timer;
  timer.target = target;
  quern_error error = {};
  quern_model *model = nullptr;
  if (llvm::Error failed = checkRuntime(
          quern_model_load(path.c_str(), nullptr, &model, &error), error))
    return std::move(failed);
  timer.model.reset(model);
  timer.rows = std::min(rows, quern_model_context(model));
  quern_session_options options = QUERN_SESSION_OPTIONS_INIT;
  options.isa = target.c_str();
  options.context = timer.rows;
  options.kv_tokens = (kMostSequences + 1) * timer.rows;
  options.max_rows = static_cast<uint32_t>(timer.rows);
  quern_session *session = nullptr;
  if (llvm::Error failed = checkRuntime(
          quern_session_create(model, &options, &session, &error), error))
    return std::move(failed);
  timer.session.reset(session);
  if (llvm::Error failed = timer.addSequences())
    return std::move(failed);
  llvm::Expected<json::Object> facts = parseObject(quern_session_json(session));
  if (!facts)
    return facts.takeError();
  timer.threadCount = facts->getInteger("threads").value_or(1);
  return std::move(timer);
}

llvm::Error KernelTimer::addSequences() {
  for (size_t i = 0; i <= kMostSequences; ++i) {
    quern_error error = {};
    quern_sequence *sequence = nullptr;
    if (llvm::Error failed = checkRuntime(
            quern_sequence_create(session.get(), &sequence, &error), error))
      return failed;
    Handle<quern_sequence> owner(sequence);
    if (i == 0) {
      prompt = std::move(owner);
      continue;
    }
    if (llvm::Error failed = prefill(sequence, rows / 2))
      return failed;
    generated.push_back(std::move(owner));
  }
  return llvm::Error::success();
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

/// An array of objects; those that are none are left out.
static std::vector<const json::Object *> objectsOf(const json::Object &object,
                                                   llvm::StringRef key) {
  std::vector<const json::Object *> objects;
  if (const json::Array *array = object.getArray(key))
    for (const json::Value &value : *array)
      if (const json::Object *each = value.getAsObject())
        objects.push_back(each);
  return objects;
}

static std::string text(const json::Object &object, llvm::StringRef key) {
  return object.getString(key).value_or("").str();
}

/// The matrices that the first dispatch of each kernel reads.
static llvm::StringMap<std::string> weightTypes(const json::Object &model) {
  llvm::StringMap<std::string> types;
  for (const json::Object *body : objectsOf(model, "bodies"))
    for (const json::Object *dispatch : objectsOf(*body, "dispatches")) {
      auto [entry, isNew] = types.try_emplace(text(*dispatch, "kernel"));
      const json::Array *reads = dispatch->getArray("reads");
      if (!isNew || !reads)
        continue;
      for (const json::Object *weight : objectsOf(*body, "weights")) {
        const int64_t n = weight->getInteger("n").value_or(0);
        if (n < 2 || !llvm::is_contained(*reads, text(*weight, "name")))
          continue;
        entry->second += llvm::formatv(
            "{0}{1}[{2}x{3}]", entry->second.empty() ? "" : "+",
            text(*weight, "format"), n, weight->getInteger("k").value_or(0));
      }
    }
  return types;
}

llvm::Expected<std::vector<TunableKernel>> KernelTimer::kernels() const {
  llvm::Expected<json::Object> described =
      parseObject(quern_model_json(model.get()));
  if (!described)
    return described.takeError();
  const llvm::StringMap<std::string> types = weightTypes(*described);
  std::vector<TunableKernel> kernels;
  for (const json::Object *kernel : objectsOf(*described, "kernels"))
    for (const json::Object *form : objectsOf(*kernel, "forms")) {
      if (text(*form, "target") != target)
        continue;
      auto number = [&](llvm::StringRef key) {
        return form->getInteger(key).value_or(0);
      };
      const std::string name = text(*kernel, "name");
      const std::string weights = types.lookup(name);
      kernels.push_back(
          {name, text(*kernel, "signature"),
           text(*form, "role") == "decode" ? Role::Decode : Role::Prefill,
           text(*form, "generator"),
           Tile{number("rows"), number("blocks"), number("keys"),
                number("prefetch")},
           weights.empty() ? "-" : weights});
    }
  return kernels;
}

//===----------------------------------------------------------------------===//
// Times
//===----------------------------------------------------------------------===//

/// Feeds a sequence that becomes `rows` tokens long.
llvm::Error KernelTimer::prefill(quern_sequence *sequence, size_t rows) {
  quern_error error = {};
  const std::vector<int32_t> tokens(rows, 1);
  if (llvm::Error failed =
          checkRuntime(quern_sequence_truncate(sequence, 0, &error), error))
    return failed;
  return checkRuntime(quern_sequence_feed(sequence, tokens.data(), rows,
                                          QUERN_ROLE_PREFILL, nullptr, &error),
                      error);
}

llvm::Error KernelTimer::step(Role role, size_t rows) {
  if (role == Role::Prefill)
    return prefill(prompt.get(), rows);
  quern_error error = {};
  const std::vector<int32_t> tokens(rows, 1);
  std::vector<quern_sequence *> each;
  for (size_t i = 0; i < rows; ++i) {
    each.push_back(generated[i].get());
    if (llvm::Error failed = checkRuntime(
            quern_sequence_truncate(each.back(), this->rows / 2, &error),
            error))
      return failed;
  }
  return checkRuntime(
      quern_decode(session.get(), each.data(), tokens.data(), rows, &error),
      error);
}

llvm::Expected<KernelTimes> KernelTimer::measure(Role role, size_t rows,
                                                 size_t steps) {
  if (warm.insert({role, rows}).second)
    if (llvm::Error error = step(role, rows))
      return std::move(error);
  quern_session_set_profiling(session.get(), 1);
  for (size_t i = 0; i < steps; ++i)
    if (llvm::Error error = step(role, rows))
      return std::move(error);
  quern_error error = {};
  char *written = nullptr;
  if (llvm::Error failed = checkRuntime(
          quern_session_profile(session.get(), &written, &error), error))
    return std::move(failed);
  quern_session_set_profiling(session.get(), 0);
  const Handle<char> owner(written);
  llvm::Expected<json::Object> profile = parseObject(written);
  if (!profile)
    return profile.takeError();
  KernelTimes times;
  for (const json::Object *kernel : objectsOf(*profile, "kernels")) {
    const double calls =
        static_cast<double>(kernel->getInteger("calls").value_or(1));
    times[text(*kernel, "name")] =
        1e9 * kernel->getNumber("seconds").value_or(0) / calls;
  }
  return times;
}

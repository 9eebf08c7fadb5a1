#include "compiler/pipeline/Compiler.h"

#include "codegen/artifact/OutputFile.h"
#include "codegen/host/HostCodegen.h"
#include "codegen/kernels/KernelFacts.h"
#include "codegen/kernels/Lowering.h"
#include "codegen/ptx/PtxCodegen.h"
#include "codegen/target/Target.h"
#include "compiler/pipeline/ArtifactInput.h"
#include "compiler/pipeline/Diagnostics.h"
#include "compiler/pipeline/Explain.h"
#include "compiler/pipeline/ModelInput.h"
#include "compiler/tuning/TuningDatabase.h"
#include "dialects/rt/KernelSignature.h"
#include "dialects/rt/Rt.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/AttrTypeSubElements.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "runtime/schema/file_header.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"

#include <chrono>
#include <cmath>

using namespace mlir;
using namespace quern;

//===----------------------------------------------------------------------===//
// Options
//===----------------------------------------------------------------------===//

static llvm::Error usage(const llvm::Twine &message) {
  return compileError(ExitCode::Usage, message);
}

static llvm::Error checkPhases(const CompileOptions &options) {
  if (!options.compileFrom)
    return llvm::Error::success();
  const auto name = phaseInfo(*options.compileFrom).name;
  if (!isIrPhase(*options.compileFrom))
    return usage("--compile-from=" + name +
                 " has no module to go on from; give a phase from import to "
                 "memory");
  if (!isIrPath(options.input))
    return usage("--compile-from=" + name + " wants a dumped module, but " +
                 options.input +
                 " is no .mlir file; make one with --dump-ir-to=DIR");
  if (!options.tuning.empty() && *options.compileFrom >= Phase::Lower)
    return usage("--tuning gives tiles in the lower phase, which is done in a "
                 "dump of " +
                 name + "; go on from an earlier one");
  if (options.compileTo <= *options.compileFrom)
    return usage("--compile-to=" + phaseInfo(options.compileTo).name +
                 " ends before the phase after --compile-from=" + name +
                 "; give a later phase");
  return llvm::Error::success();
}

/// What an artifact is made of was decided when it was compiled.
static llvm::Error checkArtifactInput(const CompileOptions &options) {
  const CompileOptions plain;
  if (options.precise == plain.precise && options.int8Kv == plain.int8Kv &&
      options.quantizeFormat == plain.quantizeFormat &&
      options.shares == plain.shares && options.disabledPasses.empty() &&
      options.weights.empty() && !options.compileFrom &&
      options.compileTo > Phase::Kernels)
    return llvm::Error::success();
  return usage(options.input +
               " is an artifact, whose phases up to kernels are done; leave "
               "out what changes them, or give the model file");
}

static llvm::Error checkOptions(const CompileOptions &options) {
  if (isArtifactPath(options.input))
    if (llvm::Error error = checkArtifactInput(options))
      return error;
  if (llvm::Error error = checkPhases(options))
    return error;
  const std::vector<llvm::StringRef> passes = optionalPassNames();
  for (const std::string &pass : options.disabledPasses)
    if (!llvm::is_contained(passes, pass))
      return usage("--disable-pass=" + pass + " names none of " +
                   llvm::join(passes, ", "));
  if (options.shares < 1 || options.shares > kMaxShares)
    return usage("--shares=" + llvm::Twine(options.shares) +
                 " is out of range; give 1 to " + llvm::Twine(kMaxShares));
  if (options.precise && options.int8Kv)
    return usage("--kv=int8 and --precise want different caches; give one");
  if (options.compileTo != Phase::Artifact)
    return llvm::Error::success();
  if (isIrPath(options.input) && options.weights.empty())
    return usage(options.input +
                 " names weights but holds none; add --weights MODEL.gguf");
  if (options.output.empty() || options.output == "-")
    return usage("an artifact needs a file; add -o MODEL.quern");
  for (const std::string &file :
       {options.input, options.weights, options.signKey})
    if (!file.empty() && llvm::sys::fs::equivalent(file, options.output))
      return usage("-o " + options.output +
                   " would replace the input; give another name");
  return llvm::Error::success();
}

//===----------------------------------------------------------------------===//
// The compilation
//===----------------------------------------------------------------------===//

static DialectRegistry allDialects() {
  DialectRegistry registry;
  registry.insert<lm::LmDialect, rt::RtDialect, func::FuncDialect>();
  registerCodegenDialects(registry);
  return registry;
}

namespace {
class Compilation {
public:
  Compilation(const CompileOptions &options, CompileObserver &observer)
      : options(options), observer(observer), used(options),
        // Threads would only make the order of diagnostics vary.
        context(allDialects(), MLIRContext::Threading::DISABLED),
        diagnostics(&context,
                    [this](const std::string &remark) { explain(remark); }) {
    context.loadAllAvailableDialects();
  }

  llvm::Expected<CompileSummary> run();

private:
  llvm::Error load();
  llvm::Error parse();
  llvm::Error parseProgram();
  std::string printed();
  std::string remedy(Phase phase) const;
  llvm::Error runPhase(Phase phase);
  llvm::Error runPasses(Phase phase);
  llvm::Error dump(Phase phase);
  llvm::Error generateCode();
  LogicalResult generateHostImage(const Target &target);
  LogicalResult generatePtxImage(const Target &target);
  llvm::Error writeArtifactFile();
  llvm::Error printModule();
  std::vector<std::string> tiledTargets();
  void inferTargets();
  llvm::Error readTuning();
  void noteTuning();
  void setKvElement(Type element);
  llvm::Error useInt8Kv();

  void explain(const std::string &line) {
    if (options.explain)
      observer.explained(phase, line);
  }

  const CompileOptions &options;
  CompileObserver &observer;
  PipelineOptions used;
  MLIRContext context;
  DiagnosticCollector diagnostics;
  Phase phase = Phase::Import;
  std::optional<ModelFile> model;
  std::optional<ArtifactFile> artifact;
  /// The module behind the kernels phase, as text.
  std::string program;
  std::optional<SigningKey> signingKey;
  OwningOpRef<ModuleOp> module;
  std::vector<host::CodeImage> images;
  std::vector<nvptx::PtxImage> ptxImages;
  /// What the tuning database adopts, of any model.
  std::vector<TunedKernel> tuned;
  /// Records of the tiles that kernels of this model were given.
  std::vector<std::string> tuningRecords;
  CompileSummary summary;
};
} // namespace

//===----------------------------------------------------------------------===//
// Input
//===----------------------------------------------------------------------===//

llvm::Error Compilation::load() {
  if (isArtifactPath(options.input)) {
    llvm::Expected<ArtifactFile> opened = ArtifactFile::open(options.input);
    if (!opened)
      return opened.takeError();
    artifact.emplace(std::move(*opened));
    return parseProgram();
  }
  const bool text = isIrPath(options.input);
  const std::string &file = text ? options.weights : options.input;
  if (!file.empty()) {
    llvm::Expected<ModelFile> opened = ModelFile::open(file);
    if (!opened)
      return opened.takeError();
    model.emplace(std::move(*opened));
  }
  if (text)
    return parse();
  llvm::Expected<OwningOpRef<ModuleOp>> imported =
      model->importModule(&context);
  if (!imported)
    return imported.takeError();
  module = std::move(*imported);
  return llvm::Error::success();
}

llvm::Error Compilation::parse() {
  llvm::sys::fs::file_status status;
  if (std::error_code error = llvm::sys::fs::status(options.input, status))
    return compileError(ExitCode::Failure, "cannot read " + options.input +
                                               ": " + error.message() +
                                               "; give the path of a file that "
                                               "can be read");
  module = parseSourceFile<ModuleOp>(options.input, &context);
  if (!module)
    return diagnostics.take(ExitCode::Malformed,
                            options.input + ": no module was read",
                            "correct the text there");
  if (!(*module)->hasAttr(lm::LmDialect::kModelAttr))
    return compileError(ExitCode::Malformed,
                        options.input +
                            ": the module has no lm.model attribute, so it is "
                            "no model; begin with what quern import prints");
  return llvm::Error::success();
}

/// Reads the program of the artifact, which has tiles for the targets that it
/// was compiled for.
llvm::Error Compilation::parseProgram() {
  module =
      parseSourceString<ModuleOp>(artifact->program(), &context, options.input);
  if (!module || !(*module)->hasAttr(lm::LmDialect::kModelAttr))
    return diagnostics.take(ExitCode::Malformed,
                            options.input + ": its program is no module",
                            "compile it anew from the model file");
  const std::vector<std::string> tiled = tiledTargets();
  for (const std::string &name : used.targets)
    if (!llvm::is_contained(tiled, name))
      return compileError(ExitCode::Unsupported,
                          options.input + " was compiled for " +
                              llvm::join(tiled, ", ") + ", not for " + name +
                              "; give the model file to compile for others");
  return llvm::Error::success();
}

/// Makes `element` the type of what the caches hold.
void Compilation::setKvElement(Type element) {
  AttrTypeReplacer replacer;
  replacer.addReplacement([&](lm::KvCacheType type) -> Type {
    return lm::KvCacheType::get(type.getContext(), type.getHeads(),
                                type.getHeadDim(), type.getPage(), element);
  });
  replacer.recursivelyReplaceElementsIn(*module, /*replaceAttrs=*/true,
                                        /*replaceLocs=*/false,
                                        /*replaceTypes=*/true);
}

llvm::Error Compilation::useInt8Kv() {
  for (const std::string &name : used.targets)
    if (!findTarget(name)->isGpu())
      return compileError(ExitCode::Unsupported,
                          "--kv=int8 is for GPUs, and " + name +
                              " is none; give GPUs alone with --target");
  constexpr int64_t kGroup = KvLayout::kScaleColumns;
  const auto model =
      (*module)->getAttrOfType<DictionaryAttr>(lm::LmDialect::kModelAttr);
  const auto headDim = model.getAs<IntegerAttr>("head_dim");
  if (headDim && headDim.getInt() % kGroup != 0)
    return compileError(ExitCode::Unsupported,
                        "--kv=int8 wants heads of a multiple of " +
                            llvm::Twine(kGroup) + " columns, and " +
                            options.input + " has heads of " +
                            llvm::Twine(headDim.getInt()) + "; leave it out");
  setKvElement(lm::BlockType::get(&context, BlockFormat::A8));
  return llvm::Error::success();
}

/// Targets that kernels of the module have tiles for, in the tables' order.
std::vector<std::string> Compilation::tiledTargets() {
  llvm::StringMap<bool> seen;
  module->walk([&](Operation *op) {
    if (auto tiles = op->getAttrOfType<DictionaryAttr>("tiles"))
      for (NamedAttribute entry : tiles)
        seen[entry.getName().getValue().split('/').first] = true;
  });
  std::vector<std::string> tiled;
  for (std::span<const Target> kind : {targets(), gpuTargets()})
    for (const Target &target : kind)
      if (seen.contains(
              llvm::StringRef(target.name.data(), target.name.size())))
        tiled.emplace_back(target.name);
  return tiled;
}

/// Targets of a module that has tiles already, unless the command names some.
void Compilation::inferTargets() {
  if (!used.targets.empty())
    return;
  used.targets = tiledTargets();
  if (used.targets.empty())
    if (const Target *host = hostTarget())
      used.targets.emplace_back(host->name);
}

//===----------------------------------------------------------------------===//
// Tuning
//===----------------------------------------------------------------------===//

llvm::Error Compilation::readTuning() {
  if (options.tuning.empty())
    return llvm::Error::success();
  llvm::Expected<TuningDatabase> database =
      TuningDatabase::read(options.tuning);
  if (!database)
    return database.takeError();
  tuned = database->adopt();
  for (const TunedKernel &kernel : tuned)
    used.tunedTiles.push_back(kernel.str());
  return llvm::Error::success();
}

/// Keeps the records that the kernels of this module follow, and explains them.
void Compilation::noteTuning() {
  for (auto kernel : module->getOps<rt::KernelOp>()) {
    const std::string signature = rt::kernelSignature(kernel);
    for (const TunedKernel &found : tuned) {
      const llvm::StringRef target =
          llvm::StringRef(found.target).split('/').first;
      if (found.kernel != signature ||
          !llvm::is_contained(used.targets, target.str()))
        continue;
      explain(llvm::formatv("{0} {1}: tile {2} is {3:F1} % faster than the "
                            "default in {4} records of the tuning database",
                            kernel.getSymName(), found.target,
                            llvm::StringRef(found.str()).split('=').second,
                            100 * (std::exp(found.gain) - 1),
                            found.records.size()));
      for (const TuningRecord &record : found.records)
        tuningRecords.push_back(record.str());
    }
  }
}

//===----------------------------------------------------------------------===//
// Phases
//===----------------------------------------------------------------------===//

/// What to do when `phase` cannot go on with the module.
std::string Compilation::remedy(Phase phase) const {
  if (isIrPath(options.input))
    return "correct the module, or compile the model file";
  const auto before = static_cast<Phase>(static_cast<int>(phase) - 1);
  return ("--compile-to=" + phaseInfo(before).name + " shows the module").str();
}

llvm::Error Compilation::runPasses(Phase phase) {
  PassManager manager(&context);
  manager.enableVerifier(options.verifyEach);
  buildPhase(phase, used, manager);
  if (failed(manager.run(*module)))
    return diagnostics.take(ExitCode::Unsupported,
                            "phase " + phaseInfo(phase).name + " failed",
                            remedy(phase));
  if (failed(verify(*module)) || failed(checkPhase(phase, *module)))
    return diagnostics.take(ExitCode::Failure,
                            "phase " + phaseInfo(phase).name +
                                " left an invalid module",
                            remedy(phase));
  return llvm::Error::success();
}

/// Makes a folder for dumps. Error: Failure, also when it cannot be written.
static llvm::Error createFolder(const std::string &path) {
  std::error_code error = llvm::sys::fs::create_directories(path);
  if (!error && !llvm::sys::fs::is_directory(path))
    error = std::make_error_code(std::errc::not_a_directory);
  if (!error)
    error = llvm::sys::fs::access(path, llvm::sys::fs::AccessMode::Write);
  if (error)
    return compileError(ExitCode::Failure,
                        "cannot create " + path + ": " + error.message() +
                            "; give a folder that can be written");
  return llvm::Error::success();
}

std::string Compilation::printed() {
  std::string text;
  llvm::raw_string_ostream os(text);
  module->print(os);
  os << "\n";
  return text;
}

llvm::Error Compilation::dump(Phase phase) {
  if (options.dumpIrTo.empty())
    return llvm::Error::success();
  if (llvm::Error error = createFolder(options.dumpIrTo))
    return error;
  return writeFile(options.dumpIrTo + "/" + dumpFileName(phase), printed());
}

LogicalResult Compilation::generateHostImage(const Target &target) {
  host::CodegenOptions codegen;
  codegen.dumpKernelsTo = options.dumpKernelsTo;
  codegen.explain = [this](const std::string &line) { explain(line); };
  FailureOr<host::CodeImage> image =
      host::generateHostCode(*module, target, codegen);
  if (failed(image))
    return failure();
  summary.targets.push_back({image->target, image->bytes.size()});
  images.push_back(std::move(*image));
  return success();
}

LogicalResult Compilation::generatePtxImage(const Target &target) {
  nvptx::PtxOptions codegen;
  codegen.dumpKernelsTo = options.dumpKernelsTo;
  codegen.explain = [this](const std::string &line) { explain(line); };
  FailureOr<nvptx::PtxImage> image =
      nvptx::generatePtx(*module, target, codegen);
  if (failed(image))
    return failure();
  summary.targets.push_back({image->target, image->text.size()});
  ptxImages.push_back(std::move(*image));
  return success();
}

llvm::Error Compilation::generateCode() {
  if (!options.dumpKernelsTo.empty())
    if (llvm::Error error = createFolder(options.dumpKernelsTo))
      return error;
  if (used.targets.empty())
    return compileError(ExitCode::Unsupported,
                        "this machine lacks AVX2, so --target=host means "
                        "nothing; name the target to compile for");
  for (const std::string &name : used.targets) {
    const Target &target = *findTarget(name);
    if (failed(target.isGpu() ? generatePtxImage(target)
                              : generateHostImage(target)))
      return diagnostics.take(ExitCode::Unsupported,
                              "no code could be generated for " + name,
                              remedy(Phase::Codegen));
  }
  return llvm::Error::success();
}

llvm::Error Compilation::writeArtifactFile() {
  ArtifactInputs inputs;
  inputs.module = *module;
  inputs.images = images;
  inputs.ptxImages = ptxImages;
  inputs.program = program;
  inputs.producer = "quern " QUERN_VERSION;
  inputs.tuning = tuningRecords;
  auto findWeight = [&](llvm::StringRef name) {
    return model->findWeight(name);
  };
  if (artifact) {
    inputs.tokenizer = artifact->tokenizerSegment();
    inputs.packedWeights = artifact->weights();
    inputs.sourceHash = artifact->sourceHash();
  } else {
    inputs.source = model->bytes();
    inputs.findWeight = findWeight;
    llvm::Expected<std::optional<std::vector<uint8_t>>> tokenizer =
        model->tokenizerSegment();
    if (!tokenizer)
      return tokenizer.takeError();
    inputs.tokenizer = std::move(*tokenizer);
  }
  inputs.signingKey = signingKey ? &*signingKey : nullptr;
  llvm::Expected<ArtifactSummary> written =
      writeArtifact(options.output, inputs, [&](uint64_t done, uint64_t total) {
        observer.packed(done, total);
      });
  if (!written)
    return written.takeError();
  summary.artifact = std::move(*written);
  return llvm::Error::success();
}

llvm::Error Compilation::runPhase(Phase phase) {
  switch (phase) {
  case Phase::Import:
    if (llvm::Error error = load())
      return error;
    // With --precise the cache holds what attention computed, unrounded.
    if (used.precise)
      setKvElement(Float32Type::get(&context));
    if (used.int8Kv)
      if (llvm::Error error = useInt8Kv())
        return error;
    if (failed(verify(*module)) || failed(checkPhase(phase, *module)))
      return diagnostics.take(ExitCode::Malformed, "the module is invalid",
                              "begin with what quern import prints");
    inferTargets();
    return llvm::Error::success();
  case Phase::Codegen:
    return generateCode();
  case Phase::Artifact:
    return writeArtifactFile();
  default:
    return runPasses(phase);
  }
}

/// The module as text, when an IR phase is the last.
llvm::Error Compilation::printModule() {
  const std::string text = printed();
  if (!options.output.empty() && options.output != "-")
    return writeFile(options.output, text);
  llvm::outs() << text;
  llvm::outs().flush();
  if (llvm::outs().has_error()) {
    const std::error_code error = llvm::outs().error();
    llvm::outs().clear_error();
    return compileError(ExitCode::Failure,
                        "cannot write standard output: " + error.message());
  }
  return llvm::Error::success();
}

llvm::Expected<CompileSummary> Compilation::run() {
  // First, so that a wrong key costs no compilation.
  if (!options.signKey.empty()) {
    llvm::Expected<SigningKey> key = SigningKey::read(options.signKey);
    if (!key)
      return key.takeError();
    signingKey.emplace(std::move(*key));
  }
  if (llvm::Error error = readTuning())
    return std::move(error);
  Phase first = Phase::Import;
  std::optional<Phase> done = options.compileFrom;
  if (isArtifactPath(options.input))
    done = Phase::Kernels;
  if (done) {
    // The input is what that phase left: check it as such, then go on.
    if (llvm::Error error = load())
      return std::move(error);
    if (failed(checkPhase(*done, *module)))
      return diagnostics.take(ExitCode::Malformed, "the module is invalid",
                              "give the phase that it was dumped after");
    inferTargets();
    first = static_cast<Phase>(static_cast<int>(*done) + 1);
    if (done == Phase::Kernels)
      program = printed();
  }
  for (const PhaseInfo &info : phases()) {
    if (info.phase < first || info.phase > options.compileTo)
      continue;
    phase = info.phase;
    observer.phaseBegun(phase);
    const auto start = std::chrono::steady_clock::now();
    if (llvm::Error error = runPhase(phase))
      return std::move(error);
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - start;
    summary.phases.emplace_back(phase, seconds.count());
    observer.phaseDone(phase, seconds.count());
    if (phase == Phase::Kernels)
      program = printed();
    if (phase == Phase::Lower)
      noteTuning();
    if (!isIrPhase(phase))
      continue;
    if (options.explain)
      explainPhase(phase, *module, used,
                   [this](const std::string &line) { explain(line); });
    if (llvm::Error error = dump(phase))
      return std::move(error);
  }
  if (isIrPhase(options.compileTo))
    if (llvm::Error error = printModule())
      return std::move(error);
  summary.used = used;
  return std::move(summary);
}

llvm::Expected<CompileSummary>
quern::compileModel(const CompileOptions &options, CompileObserver &observer) {
  if (llvm::Error error = checkOptions(options))
    return std::move(error);
  return Compilation(options, observer).run();
}

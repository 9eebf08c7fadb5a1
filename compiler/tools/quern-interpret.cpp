//===- quern-interpret.cpp - Runs IR in the reference interpreter ---------===//
//
// Says what a module computes on inputs and weights made from a seed, or
// whether two modules compute the same: the ground under tests of passes.
//
//===----------------------------------------------------------------------===//
#include "compiler/tools/GgufWeights.h"
#include "dialects/lm/Lm.h"
#include "dialects/reference/Interpreter.h"
#include "dialects/reference/Random.h"
#include "dialects/rt/Rt.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Parser/Parser.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/SourceMgr.h"

#include <cmath>
#include <numeric>

using namespace mlir;
using namespace quern;
using namespace quern::reference;
namespace cl = llvm::cl;

namespace {
/// Exit codes, those of every command.
enum ExitCode {
  kOk = 0,
  kFailure = 1,
  kUsage = 2,
  kMalformed = 3,
  kMismatch = 7
};

/// `--help` shows these, and none of LLVM's own.
cl::OptionCategory category("Options");

cl::opt<std::string> file(cl::Positional, cl::desc("FILE.mlir"), cl::init("-"),
                          cl::cat(category));
cl::opt<std::string> functionName("function",
                                  cl::desc("Run this function only"),
                                  cl::cat(category));
cl::list<int32_t> tokens("tokens", cl::CommaSeparated,
                         cl::desc("Token ids of a model's sequence"),
                         cl::cat(category));
cl::opt<int64_t> rowCount("rows", cl::init(5),
                          cl::desc("Rows of a function's dynamic dimensions"),
                          cl::cat(category));
cl::opt<uint64_t> seed("seed", cl::init(1),
                       cl::desc("Seed of inputs and weights"),
                       cl::cat(category));
cl::opt<std::string>
    weightsFile("weights", cl::init("random"),
                cl::desc("GGUF file of the weights, or random (from the seed)"),
                cl::cat(category));
cl::opt<std::string>
    compareFile("compare",
                cl::desc("Also run this module; exit 7 if results differ"),
                cl::cat(category));
cl::opt<double>
    tolerance("tolerance", cl::init(1e-5),
              cl::desc("Largest difference, relative to the largest element"),
              cl::cat(category));
cl::opt<std::string>
    logitsFile("logits", cl::desc("Write the model's logits to this .npy file"),
               cl::cat(category));
cl::opt<bool> printResults("print", cl::desc("Print the results"),
                           cl::cat(category));

/// Elements of an input that is made up.
constexpr int64_t kMaxInputElements = int64_t(1) << 30;

/// Results of one function or of the model.
struct Outcome {
  std::string name;
  Data results;
};
} // namespace

//===----------------------------------------------------------------------===//
// Inputs
//===----------------------------------------------------------------------===//

/// Index tensors: tokens below the table's rows, everything else 0, 1, 2, ...
static Tensor makeIndexInput(BlockArgument argument, StringRef name,
                             std::vector<int64_t> shape) {
  Tensor tensor = Tensor::makeIndices(std::move(shape));
  std::iota(tensor.indices.begin(), tensor.indices.end(), 0);
  for (Operation *user : argument.getUsers())
    if (auto embedding = dyn_cast<lm::EmbeddingOp>(user)) {
      auto table = cast<RankedTensorType>(embedding.getTable().getType());
      const std::vector<float> picks =
          randomFloats(seed, name, tensor.indices.size());
      for (auto [index, pick] : llvm::zip_equal(tensor.indices, picks))
        index = static_cast<int32_t>((pick + 1.0) / 2 * table.getDimSize(0));
    }
  return tensor;
}

static FailureOr<Datum> makeInput(BlockArgument argument) {
  const std::string name = "argument" + std::to_string(argument.getArgNumber());
  if (auto cache = dyn_cast<lm::KvCacheType>(argument.getType()))
    return datum(makeCache(cache));
  auto type = dyn_cast<RankedTensorType>(argument.getType());
  if (!type || type.getRank() == 0)
    return emitError(argument.getLoc())
           << "cannot make an input of " << argument.getType();
  std::vector<int64_t> shape;
  int64_t elements = 1;
  for (int64_t size : type.getShape()) {
    shape.push_back(ShapedType::isDynamic(size) ? rowCount.getValue() : size);
    if (llvm::MulOverflow(elements, shape.back(), elements) ||
        elements > kMaxInputElements)
      return emitError(argument.getLoc())
             << "expected an input of at most " << kMaxInputElements
             << " elements, but got " << type;
  }
  if (type.getElementType().isInteger(32))
    return datum(makeIndexInput(argument, name, shape));
  if (!lm::formatOf(type))
    return emitError(argument.getLoc()) << "cannot make an input of " << type;
  if (!type.getElementType().isF32()) {
    FailureOr<Tensor> stored =
        randomWeights(seed)(name, type.clone(shape), Type());
    return failed(stored) ? FailureOr<Datum>(failure())
                          : FailureOr<Datum>(datum(std::move(*stored)));
  }
  Tensor tensor = Tensor::makeFloats(shape);
  tensor.floats = randomFloats(seed, name, tensor.size());
  return datum(std::move(tensor));
}

//===----------------------------------------------------------------------===//
// Runs
//===----------------------------------------------------------------------===//

static LogicalResult runFunction(func::FuncOp function,
                                 Interpreter &interpreter,
                                 std::vector<Outcome> &outcomes) {
  Data arguments;
  for (BlockArgument argument : function.getArguments()) {
    FailureOr<Datum> input = makeInput(argument);
    if (failed(input))
      return failure();
    arguments.push_back(*input);
  }
  FailureOr<Data> results =
      interpreter.runFunction(function.getName(), arguments);
  if (failed(results))
    return failure();
  outcomes.push_back({function.getName().str(), std::move(*results)});
  return success();
}

/// Runs what the command line asks for: one function, the model, or every
/// function of a module that is no model.
static LogicalResult runModule(ModuleOp module, const WeightProvider &weights,
                               std::vector<Outcome> &outcomes) {
  Interpreter interpreter(module, weights);
  if (functionName.empty() && interpreter.isModel()) {
    std::vector<int32_t> ids(tokens.begin(), tokens.end());
    if (ids.empty())
      ids = {1, 2, 3, 4, 5};
    FailureOr<Tensor> logits = interpreter.runModel(ids);
    if (failed(logits))
      return failure();
    outcomes.push_back({"model", {datum(std::move(*logits))}});
    return success();
  }
  for (auto function : module.getOps<func::FuncOp>())
    if (!function.isDeclaration() &&
        (functionName.empty() || function.getName() == functionName))
      if (failed(runFunction(function, interpreter, outcomes)))
        return failure();
  if (outcomes.empty())
    return module.emitOpError() << "has no function '" << functionName << "'";
  return success();
}

//===----------------------------------------------------------------------===//
// Printing
//===----------------------------------------------------------------------===//

static std::string number(double value) {
  std::string text;
  llvm::raw_string_ostream(text) << llvm::format("%.6g", value);
  return text == "-0" ? "0" : text;
}

static void printRow(ArrayRef<float> row) {
  llvm::outs() << "  [";
  llvm::interleaveComma(row, llvm::outs(),
                        [](float value) { llvm::outs() << number(value); });
  llvm::outs() << "]\n";
}

static void printTensor(const Tensor &tensor) {
  llvm::interleave(tensor.shape, llvm::outs(), "x");
  std::string_view name = blockFormatInfo(tensor.format).name;
  llvm::outs() << 'x'
               << (tensor.isIndices ? "i32"
                                    : StringRef(name.data(), name.size()))
               << '\n';
  for (int64_t m = 0; m < tensor.rows(); ++m) {
    if (!tensor.isIndices) {
      printRow(tensor.row(m));
      continue;
    }
    ArrayRef<int32_t> indices(tensor.indices);
    indices = indices.slice(m * tensor.columns(), tensor.columns());
    printRow(std::vector<float>(indices.begin(), indices.end()));
  }
}

static void printCache(const KvCache &cache) {
  llvm::outs() << "kv_cache of " << cache.rows << " rows\n";
  const int64_t columns = cache.heads * cache.headDim;
  for (int64_t j = 0; j < cache.rows; ++j) {
    printRow(ArrayRef(cache.keys).slice(j * columns, columns));
    printRow(ArrayRef(cache.values).slice(j * columns, columns));
  }
}

static void print(const Outcome &outcome) {
  for (auto [index, result] : llvm::enumerate(outcome.results)) {
    llvm::outs() << outcome.name << " result " << index << ": ";
    if (auto *tensor = std::get_if<std::shared_ptr<const Tensor>>(&result))
      printTensor(**tensor);
    else
      printCache(*std::get<std::shared_ptr<const KvCache>>(result));
  }
}

/// Writes the logits of the model in `outcomes` as NumPy's format 1.0.
static ExitCode writeLogits(ArrayRef<Outcome> outcomes) {
  const auto *model = llvm::find_if(
      outcomes, [](const Outcome &entry) { return entry.name == "model"; });
  if (model == outcomes.end()) {
    llvm::errs() << "quern-interpret: --logits wants a model\n";
    return kUsage;
  }
  const Tensor &logits =
      *std::get<std::shared_ptr<const Tensor>>(model->results.front());
  std::string header;
  llvm::raw_string_ostream(header)
      << "{'descr': '<f4', 'fortran_order': False, 'shape': (" << logits.rows()
      << ", " << logits.columns() << "), }";
  // Magic, version and length take 10 bytes; the data begins at a multiple of
  // 64, after a line feed.
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  const char prefix[] = {'\x93',
                         'N',
                         'U',
                         'M',
                         'P',
                         'Y',
                         1,
                         0,
                         static_cast<char>(header.size() & 0xff),
                         static_cast<char>(header.size() >> 8)};
  std::error_code error;
  llvm::raw_fd_ostream out(logitsFile, error);
  if (!error) {
    out.write(prefix, sizeof(prefix)) << header;
    out.write(reinterpret_cast<const char *>(logits.floats.data()),
              logits.floats.size() * sizeof(float));
    out.close();
    error = out.error();
    out.clear_error();
  }
  if (!error)
    return kOk;
  llvm::errs() << "quern-interpret: cannot write " << logitsFile << ": "
               << error.message() << "\n";
  return kFailure;
}

//===----------------------------------------------------------------------===//
// Comparison
//===----------------------------------------------------------------------===//

/// All elements as doubles.
static std::vector<double> elements(const Datum &datum) {
  std::vector<double> values;
  if (auto *cache = std::get_if<std::shared_ptr<const KvCache>>(&datum)) {
    values.assign((*cache)->keys.begin(), (*cache)->keys.end());
    values.insert(values.end(), (*cache)->values.begin(),
                  (*cache)->values.end());
    return values;
  }
  const Tensor &tensor = *std::get<std::shared_ptr<const Tensor>>(datum);
  if (tensor.isIndices)
    return {tensor.indices.begin(), tensor.indices.end()};
  for (int64_t m = 0; m < tensor.rows(); ++m)
    for (float value : tensor.row(m))
      values.push_back(value);
  return values;
}

/// Largest difference over the largest element; infinite when the number of
/// elements differs or one is not a number.
static double relativeError(const Datum &got, const Datum &wanted) {
  const std::vector<double> a = elements(got), b = elements(wanted);
  if (a.size() != b.size())
    return INFINITY;
  double error = 0, largest = 0;
  for (auto [x, y] : llvm::zip_equal(a, b)) {
    if (!std::isfinite(x) || !std::isfinite(y))
      return INFINITY;
    error = std::max(error, std::abs(x - y));
    largest = std::max(largest, std::abs(y));
  }
  return error == 0 ? 0 : error / largest;
}

/// Compares two modules' outcomes, by name.
static ExitCode compare(ArrayRef<Outcome> wanted, ArrayRef<Outcome> got) {
  ExitCode code = kOk;
  for (const Outcome &outcome : wanted) {
    const auto *other = llvm::find_if(
        got, [&](const Outcome &entry) { return entry.name == outcome.name; });
    if (other == got.end() || other->results.size() != outcome.results.size()) {
      llvm::errs() << "quern-interpret: '" << outcome.name
                   << "' has no counterpart with as many results in "
                   << compareFile << "\n";
      return kMismatch;
    }
    for (auto [index, pair] :
         llvm::enumerate(llvm::zip_equal(other->results, outcome.results))) {
      const double error = relativeError(std::get<0>(pair), std::get<1>(pair));
      const bool good = error <= tolerance;
      llvm::outs() << outcome.name << " result " << index << ": max error "
                   << number(error) << (good ? "" : " exceeds ")
                   << (good ? "" : number(tolerance)) << "\n";
      code = good ? code : kMismatch;
    }
  }
  return code;
}

//===----------------------------------------------------------------------===//
// Main
//===----------------------------------------------------------------------===//

/// Parses `path` and runs it.
static ExitCode runFile(StringRef path, MLIRContext &context,
                        const WeightProvider &weights,
                        std::vector<Outcome> &outcomes) {
  llvm::SourceMgr sources;
  SourceMgrDiagnosticHandler handler(sources, &context);
  OwningOpRef<ModuleOp> module =
      parseSourceFile<ModuleOp>(path, sources, ParserConfig(&context));
  if (!module)
    return kMalformed;
  return succeeded(runModule(*module, weights, outcomes)) ? kOk : kFailure;
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(
      argc, argv, "Runs lm and rt modules in the reference interpreter\n");
  if (rowCount <= 0 || rowCount > (1 << 20)) {
    llvm::errs() << "quern-interpret: expected --rows between 1 and 1048576\n";
    return kUsage;
  }
  DialectRegistry registry;
  registry.insert<arith::ArithDialect, func::FuncDialect, lm::LmDialect,
                  rt::RtDialect>();
  MLIRContext context(registry);
  WeightProvider weights = randomWeights(seed);
  if (weightsFile != "random") {
    auto fromFile = ggufWeights(weightsFile);
    if (!fromFile.ok()) {
      llvm::errs() << "quern-interpret: " << fromFile.error().str() << "\n";
      return static_cast<int>(fromFile.error().code);
    }
    weights = *fromFile;
  }
  std::vector<Outcome> outcomes, others;
  ExitCode code = runFile(file, context, weights, outcomes);
  if (code == kOk && printResults)
    llvm::for_each(outcomes, print);
  if (code == kOk && !logitsFile.empty())
    code = writeLogits(outcomes);
  if (code != kOk || compareFile.empty())
    return code;
  code = runFile(compareFile, context, weights, others);
  return code != kOk ? code : compare(outcomes, others);
}

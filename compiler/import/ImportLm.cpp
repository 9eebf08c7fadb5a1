#include "compiler/import/ImportLm.h"

#include "dialects/lm/Lm.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

#include <cmath>
#include <map>

using namespace mlir;
using namespace quern;
using namespace quern::importer;

/// Name of a role's tensor in every layer: "blk.{layer}.attn_q.weight".
static std::string namePattern(TensorRole role) {
  std::string name = tensorName(role, 0);
  if (isLayerRole(role))
    name.replace(name.find(".0."), 3, ".{layer}.");
  return name;
}

namespace {
/// Builds one module. Each member writes at the builder's insertion point.
class ModuleImporter {
public:
  ModuleImporter(MLIRContext *context, const ModelConfig &config,
                 const ModelTensors &tensors)
      : builder(context), loc(builder.getUnknownLoc()), config(config),
        tensors(tensors),
        kvType(lm::KvCacheType::get(context, config.kvHeads, config.headDim,
                                    kKvPageTokens, builder.getF16Type())) {}

  OwningOpRef<ModuleOp> run() {
    module = ModuleOp::create(loc);
    ModuleOp op = *module;
    op->setAttr(lm::LmDialect::kModelAttr, modelAttr());
    importPrologue();
    importLayers();
    importEpilogue();
    return std::move(module);
  }

private:
  //===--------------------------------------------------------------------===//
  // Bodies
  //===--------------------------------------------------------------------===//

  void importPrologue() {
    Block *body = beginBody("embed", {indices()}, {rows(config.hidden)});
    Value x = lm::EmbeddingOp::create(builder, loc, rows(config.hidden),
                                      matrix(TensorRole::TokenEmbedding),
                                      body->getArgument(0));
    endBody(x);
    setSymbol(lm::LmDialect::kPrologueAttr, "embed");
  }

  void importLayers() {
    // Bodies by signature: the formats of a layer's tensors, by role.
    std::map<std::vector<int>, std::string> bodies;
    SmallVector<Attribute> table;
    for (const ModelTensors::ByRole &layer : tensors.layers) {
      std::vector<int> signature;
      for (const GgufTensor *tensor : layer)
        signature.push_back(tensor ? static_cast<int>(tensor->format) : -1);
      auto [entry, isNew] = bodies.try_emplace(
          signature, "layer_" + std::to_string(bodies.size()));
      if (isNew) {
        layerTensors = &layer;
        importLayer(entry->second);
      }
      table.push_back(
          FlatSymbolRefAttr::get(builder.getContext(), entry->second));
    }
    layerTensors = nullptr;
    (*module)->setAttr(lm::LmDialect::kLayersAttr, builder.getArrayAttr(table));
  }

  void importLayer(StringRef name) {
    const Type hidden = rows(config.hidden);
    Block *body =
        beginBody(name, {hidden, indices(), kvType}, {hidden, kvType});
    Value positions = body->getArgument(1);
    Value kv = body->getArgument(2);
    Value x = body->getArgument(0);
    x = residual(x,
                 attention(norm(x, TensorRole::AttentionNorm), positions, kv));
    x = residual(x, feedForward(norm(x, TensorRole::FfnNorm)));
    endBody({x, kv});
  }

  void importEpilogue() {
    Block *body = beginBody("head", {rows(config.hidden), indices()},
                            {rows(config.vocab)});
    Value x =
        lm::SelectRowsOp::create(builder, loc, rows(config.hidden),
                                 body->getArgument(0), body->getArgument(1));
    const TensorRole head =
        config.tiedEmbedding ? TensorRole::TokenEmbedding : TensorRole::Output;
    endBody(matmul(norm(x, TensorRole::OutputNorm), head, config.vocab));
    setSymbol(lm::LmDialect::kEpilogueAttr, "head");
  }

  //===--------------------------------------------------------------------===//
  // Blocks of a layer
  //===--------------------------------------------------------------------===//

  /// Attention over the cache, to which x's keys and values are added: `kv` is
  /// the cache before and, on return, after.
  Value attention(Value x, Value positions, Value &kv) {
    const int64_t width = config.heads * config.headDim;
    const int64_t kvWidth = config.kvHeads * config.headDim;
    Value q = projection(x, TensorRole::Query, TensorRole::QueryBias, width);
    Value k = projection(x, TensorRole::Key, TensorRole::KeyBias, kvWidth);
    Value v = projection(x, TensorRole::Value, TensorRole::ValueBias, kvWidth);
    q = rope(q, positions, config.heads);
    k = rope(k, positions, config.kvHeads);
    kv = lm::KvAppendOp::create(builder, loc, kvType, kv, k, v);
    const double scale = 1.0 / std::sqrt(static_cast<double>(config.headDim));
    Value y = lm::AttentionOp::create(
        builder, loc, rows(width), q, kv, positions,
        builder.getI64IntegerAttr(config.heads),
        builder.getF32FloatAttr(static_cast<float>(scale)),
        /*window=*/builder.getI64IntegerAttr(0), /*tiles=*/DictionaryAttr());
    return matmul(y, TensorRole::AttentionOutput, config.hidden);
  }

  Value feedForward(Value x) {
    const Type type = rows(config.ffn);
    Value gate = matmul(x, TensorRole::FfnGate, config.ffn);
    gate = lm::SiluOp::create(builder, loc, type, gate);
    Value up = matmul(x, TensorRole::FfnUp, config.ffn);
    Value y = lm::MulOp::create(builder, loc, type, gate, up);
    return matmul(y, TensorRole::FfnDown, config.hidden);
  }

  Value residual(Value x, Value delta) {
    return lm::AddOp::create(builder, loc, x.getType(), x, delta);
  }

  Value norm(Value x, TensorRole role) {
    return lm::RmsNormOp::create(
        builder, loc, x.getType(), x, vector(role),
        builder.getF32FloatAttr(static_cast<float>(config.rmsEps)));
  }

  Value rope(Value x, Value positions, int64_t heads) {
    const lm::RopeMode mode = config.ropeMode == RopeMode::Interleaved
                                  ? lm::RopeMode::Interleaved
                                  : lm::RopeMode::Half;
    Value factors = config.ropeFreqFactors.empty()
                        ? Value()
                        : vector(TensorRole::RopeFactors);
    return lm::RopeOp::create(
        builder, loc, x.getType(), x, positions, factors,
        builder.getI64IntegerAttr(heads),
        builder.getI64IntegerAttr(config.headDim),
        builder.getI64IntegerAttr(config.ropeDim),
        builder.getF64FloatAttr(config.ropeBase),
        lm::RopeModeAttr::get(builder.getContext(), mode));
  }

  Value projection(Value x, TensorRole weight, TensorRole bias, int64_t width) {
    return matmul(x, weight, width, config.qkvBias ? vector(bias) : Value());
  }

  Value matmul(Value x, TensorRole role, int64_t width, Value bias = Value()) {
    Value w = matrix(role);
    auto type = cast<RankedTensorType>(w.getType());
    if (!type.getElementType().isF32())
      w = lm::DequantizeOp::create(builder, loc,
                                   type.clone(builder.getF32Type()), w);
    return lm::MatmulOp::create(builder, loc, rows(width), x, w, bias,
                                /*tiles=*/DictionaryAttr());
  }

  //===--------------------------------------------------------------------===//
  // Weights and types
  //===--------------------------------------------------------------------===//

  const GgufTensor &tensor(TensorRole role) const {
    const int index = static_cast<int>(role);
    return *(isLayerRole(role) ? (*layerTensors)[index]
                               : tensors.global[index]);
  }

  /// A matrix in its stored format (rows, columns).
  Value matrix(TensorRole role) {
    const GgufTensor &t = tensor(role);
    auto type = RankedTensorType::get(
        {t.rows(), t.columns()},
        lm::elementTypeOf(builder.getContext(), t.format));
    return lm::WeightOp::create(builder, loc, type,
                                builder.getStringAttr(namePattern(role)),
                                TypeAttr());
  }

  /// A vector; always float32, whatever the file stores.
  Value vector(TensorRole role) {
    const GgufTensor &t = tensor(role);
    auto type = RankedTensorType::get({t.columns()}, builder.getF32Type());
    TypeAttr source =
        t.format == BlockFormat::F32
            ? TypeAttr()
            : TypeAttr::get(lm::elementTypeOf(builder.getContext(), t.format));
    return lm::WeightOp::create(
        builder, loc, type, builder.getStringAttr(namePattern(role)), source);
  }

  RankedTensorType rows(int64_t width) {
    return RankedTensorType::get({ShapedType::kDynamic, width},
                                 builder.getF32Type());
  }
  RankedTensorType indices() {
    return RankedTensorType::get({ShapedType::kDynamic}, builder.getI32Type());
  }

  DictionaryAttr modelAttr() {
    NamedAttrList attrs;
    auto text = [&](StringRef key, StringRef value) {
      attrs.set(key, builder.getStringAttr(value));
    };
    auto number = [&](StringRef key, int64_t value) {
      attrs.set(key, builder.getI64IntegerAttr(value));
    };
    text("name", config.name);
    text("family", config.family);
    if (!config.licence.empty())
      text("licence", config.licence);
    number("vocab", config.vocab);
    number("hidden", config.hidden);
    number("heads", config.heads);
    number("kv_heads", config.kvHeads);
    number("head_dim", config.headDim);
    number("ffn", config.ffn);
    number("context", config.context);
    return attrs.getDictionary(builder.getContext());
  }

  //===--------------------------------------------------------------------===//
  // Functions
  //===--------------------------------------------------------------------===//

  Block *beginBody(StringRef name, TypeRange inputs, TypeRange results) {
    builder.setInsertionPointToEnd(module->getBody());
    auto function = func::FuncOp::create(
        builder, loc, name, builder.getFunctionType(inputs, results));
    Block *body = function.addEntryBlock();
    builder.setInsertionPointToEnd(body);
    return body;
  }
  void endBody(ValueRange results) {
    func::ReturnOp::create(builder, loc, results);
  }
  void setSymbol(StringRef attr, StringRef symbol) {
    (*module)->setAttr(attr,
                       FlatSymbolRefAttr::get(builder.getContext(), symbol));
  }

  OpBuilder builder;
  Location loc;
  const ModelConfig &config;
  const ModelTensors &tensors;
  lm::KvCacheType kvType;
  OwningOpRef<ModuleOp> module;
  /// Tensors of the layer that is being imported.
  const ModelTensors::ByRole *layerTensors = nullptr;
};
} // namespace

OwningOpRef<ModuleOp> quern::importer::importLm(MLIRContext *context,
                                                const ModelConfig &config,
                                                const ModelTensors &tensors) {
  return ModuleImporter(context, config, tensors).run();
}

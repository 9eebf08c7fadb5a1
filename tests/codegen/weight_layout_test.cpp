// The weights segment: order, sharing and alignment of pieces, and their bytes.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

#include "codegen/artifact/WeightLayout.h"
#include "codegen/host/PackedLayout.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Parser/Parser.h"
#include "runtime/schema/kernel_abi.h"

using namespace quern;

namespace {

/// Two shares, two layers; one vector and two matrices a layer, a head tied to
/// the embedding. Formats and ranges are filled in.
constexpr const char* kProgram = R"(
rt.program @model shares = 2 layers = [@layer, @layer] {
  rt.prologue {
    rt.weight_slot "embd" : tensor<96x96x!lm.block<FORMAT>>
  }
  rt.block @layer {
    rt.weight_slot "blk.{layer}.norm" : tensor<96xf32> source = SOURCE
    rt.weight_slot "blk.{layer}.up" : tensor<80x96x!lm.block<FORMAT>> ranges = #lm.ranges<[0:48], [48:80]>
    rt.weight_slot "blk.{layer}.down" : tensor<40x96x!lm.block<FORMAT>> split = k ranges = #lm.ranges<[0:64], [64:96]>
    rt.weight_slot "factors" : tensor<16xf32>
  }
  rt.epilogue {
    rt.weight_slot "embd" : tensor<96x96x!lm.block<FORMAT>> ranges = #lm.ranges<[0:HEAD], [HEAD:96]>
  }
})";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

class WeightLayoutTest : public testing::Test {
 protected:
  WeightLayoutTest() {
    context.loadDialect<lm::LmDialect, rt::RtDialect, mlir::func::FuncDialect>();
  }

  /// A random tensor of the "model file".
  void addTensor(const std::string& name, BlockFormat format, int64_t rows, int64_t columns) {
    std::vector<uint8_t>& bytes = storage.emplace_back();
    std::mt19937 random(storage.size());
    std::vector<float> row(columns);
    for (int64_t r = 0; r < rows; ++r) {
      for (float& x : row) x = std::normal_distribution<float>()(random);
      bytes.resize((r + 1) * blockFormatInfo(format).rowBytes(columns));
      quantizeRow(format, row.data(), bytes.data() + r * blockFormatInfo(format).rowBytes(columns),
                  columns);
    }
    file.push_back({name, format, rows, columns, bytes});
  }

  void addModel(BlockFormat format, BlockFormat vectors = BlockFormat::F32) {
    addTensor("embd", format, 96, 96);
    for (const char* layer : {"blk.0.", "blk.1."}) {
      addTensor(layer + std::string("norm"), vectors, 1, 96);
      addTensor(layer + std::string("up"), format, 80, 96);
      addTensor(layer + std::string("down"), format, 40, 96);
    }
    addTensor("factors", BlockFormat::F32, 1, 16);
  }

  llvm::Expected<WeightLayout> layOut(const std::string& text) {
    module = mlir::parseSourceString<mlir::ModuleOp>(text, &context);
    EXPECT_TRUE(module);
    rt::ProgramOp program = *module->getOps<rt::ProgramOp>().begin();
    auto bodies = programBodies(program);
    EXPECT_TRUE(static_cast<bool>(bodies));
    auto find = [&](llvm::StringRef name) -> llvm::Expected<WeightSource> {
      for (const WeightSource& source : file)
        if (source.name == name) return source;
      return compileError(ExitCode::Incompatible, "no " + name);
    };
    return layOutWeights(program, *bodies, find);
  }

  static std::string program(const std::string& format, const std::string& head = "32",
                             const std::string& source = "f32") {
    return replaced(replaced(replaced(kProgram, "FORMAT", format), "HEAD", head), "SOURCE", source);
  }

  const WeightSource& source(const std::string& name) {
    for (const WeightSource& source : file)
      if (source.name == name) return source;
    ADD_FAILURE() << name;
    return file.front();
  }

  /// What the piece should be, row block by row block.
  std::vector<uint8_t> packed(const std::string& name, int64_t rowBegin, int64_t rowEnd,
                              int64_t kBegin, int64_t kEnd) {
    const WeightSource& weight = source(name);
    std::vector<uint8_t> bytes;
    for (int64_t row = rowBegin; row < rowEnd; row += kPackedRows) {
      std::vector<const uint8_t*> rows;
      for (int64_t r = row; r < std::min(row + kPackedRows, rowEnd); ++r)
        rows.push_back(weight.row(r));
      const size_t at = bytes.size();
      bytes.resize(at + packedFormat(weight.format).rowBlockBytes(kEnd - kBegin));
      packRowBlock(weight.format, rows, kBegin, kEnd, bytes.data() + at);
    }
    return bytes;
  }

  static std::vector<uint8_t> segment(const WeightPlan& plan) {
    std::vector<uint8_t> bytes;
    llvm::cantFail(streamWeights(plan, [&](std::span<const uint8_t> part) {
      bytes.insert(bytes.end(), part.begin(), part.end());
      return llvm::Error::success();
    }));
    return bytes;
  }

  static std::vector<uint8_t> cut(const std::vector<uint8_t>& bytes, uint64_t offset, size_t size) {
    if (offset + size > bytes.size()) return {};
    return {bytes.begin() + offset, bytes.begin() + offset + size};
  }

  mlir::MLIRContext context;
  mlir::OwningOpRef<mlir::ModuleOp> module;
  std::deque<std::vector<uint8_t>> storage;
  std::vector<WeightSource> file;
};

TEST_F(WeightLayoutTest, PiecesAreWhereTheOffsetsSay) {
  addModel(BlockFormat::Q4_0);
  WeightLayout layout = llvm::cantFail(layOut(program("q4_0")));
  const std::vector<uint8_t> bytes = segment(layout.plan);
  ASSERT_EQ(bytes.size(), layout.plan.size);
  EXPECT_EQ(bytes.size() % kBufferAlignment, 0u);
  for (int64_t layer = 0; layer < 2; ++layer) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    // Slots norm, up, down, factors; two shares each.
    const std::vector<uint64_t>& at = layout.layers[layer].offsets;
    for (uint64_t offset : at) EXPECT_EQ(offset % kBufferAlignment, 0u);
    const WeightSource& norm = source(blk + "norm");
    EXPECT_EQ(cut(bytes, at[0], 96 * 4), std::vector<uint8_t>(norm.data.begin(), norm.data.end()));
    EXPECT_EQ(at[0], at[1]);
    const auto up = packed(blk + "up", 48, 80, 0, 96);
    EXPECT_EQ(cut(bytes, at[3], up.size()), up);
    const auto down = packed(blk + "down", 0, 40, 64, 96);
    EXPECT_EQ(cut(bytes, at[5], down.size()), down);
    EXPECT_EQ(layout.sizes[1][5], down.size());
  }
  // One tensor that both layers read is stored once.
  EXPECT_EQ(layout.layers[0].offsets[6], layout.layers[1].offsets[6]);
}

TEST_F(WeightLayoutTest, ASharesWeightsAscendInExecutionOrder) {
  addModel(BlockFormat::Q4_0);
  WeightLayout layout = llvm::cantFail(layOut(program("q4_0")));
  std::vector<uint64_t> order;
  for (int64_t share = 0; share < 2; ++share)
    for (const CallWeights& layer : layout.layers)
      for (int64_t slot : {1, 2}) order.push_back(layer.offsets[slot * 2 + share]);
  order.push_back(layout.epilogue.offsets[0]);
  order.push_back(layout.epilogue.offsets[1]);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_LT(layout.layers[1].offsets[0], order.front()) << "vectors come first";
}

TEST_F(WeightLayoutTest, ATiedEmbeddingIsOneRunOfRowBlocks) {
  addModel(BlockFormat::Q4_0);
  WeightLayout layout = llvm::cantFail(layOut(program("q4_0")));
  const std::vector<uint8_t> bytes = segment(layout.plan);
  EXPECT_EQ(layout.prologue.offsets[0], layout.epilogue.offsets[0]);
  EXPECT_EQ(layout.prologue.offsets[1], layout.epilogue.offsets[0]);
  const auto whole = packed("embd", 0, 96, 0, 96);
  EXPECT_EQ(cut(bytes, layout.prologue.offsets[0], whole.size()), whole);
}

TEST_F(WeightLayoutTest, ACutThatNeedsPaddingStoresTheEmbeddingTwice) {
  addModel(BlockFormat::Q4_0);
  // Three groups of 288 bytes a row block: 16 rows are no multiple of 64 bytes.
  WeightLayout layout = llvm::cantFail(layOut(program("q4_0", "48")));
  const std::vector<uint8_t> bytes = segment(layout.plan);
  EXPECT_NE(layout.prologue.offsets[0], layout.epilogue.offsets[0]);
  const auto whole = packed("embd", 0, 96, 0, 96);
  EXPECT_EQ(cut(bytes, layout.prologue.offsets[0], whole.size()), whole);
  const auto second = packed("embd", 48, 96, 0, 96);
  EXPECT_EQ(cut(bytes, layout.epilogue.offsets[1], second.size()), second);
}

TEST_F(WeightLayoutTest, FloatSourcesAreQuantizedWhilePacking) {
  addModel(BlockFormat::F16);
  for (BlockFormat format : {BlockFormat::Q8_0, BlockFormat::E4M3}) {
    const std::string name(blockFormatInfo(format).name);
    // `source` stands at the end of a matrix's line.
    std::string text;
    llvm::SmallVector<llvm::StringRef> lines;
    const std::string original = program(name);
    llvm::StringRef(original).split(lines, '\n');
    for (llvm::StringRef line : lines)
      text += line.str() + (line.contains(name) ? " source = f16\n" : "\n");
    WeightLayout layout = llvm::cantFail(layOut(text));
    EXPECT_EQ(layout.quantizedFrom, 2u * 96 * (96 + 2 * (80 + 40)));
    const std::vector<uint8_t> bytes = segment(layout.plan);
    std::vector<float> row(96), unpacked(16 * 96), expected(96);
    std::vector<uint8_t> codes(blockFormatInfo(format).rowBytes(96));
    unpackRowBlockToFloat(format, bytes.data() + layout.layers[1].offsets[2], 96, unpacked.data());
    dequantizeRow(BlockFormat::F16, source("blk.1.up").row(5), row.data(), 96);
    quantizeRow(format, row.data(), codes.data(), 96);
    dequantizeRow(format, codes.data(), expected.data(), 96);
    for (int64_t k = 0; k < 96; ++k) EXPECT_EQ(unpacked[5 * 96 + k], expected[k]) << name;
  }
}

TEST_F(WeightLayoutTest, ShortFloatVectorsBecomeFloat32) {
  addModel(BlockFormat::Q4_0, BlockFormat::BF16);
  WeightLayout layout = llvm::cantFail(layOut(program("q4_0", "32", "bf16")));
  const std::vector<uint8_t> bytes = segment(layout.plan);
  std::vector<float> expected(96), seen(96);
  dequantizeRow(BlockFormat::BF16, source("blk.1.norm").row(0), expected.data(), 96);
  std::memcpy(seen.data(), bytes.data() + layout.layers[1].offsets[0], 96 * 4);
  EXPECT_EQ(seen, expected);
}

/// A large matrix goes through the path of two threads and several bands.
TEST_F(WeightLayoutTest, BandsAndThreadsDoNotShow) {
  addTensor("big", BlockFormat::F32, 1000, 1504);
  WeightPlan plan;
  plan.append({&file[0], BlockFormat::F32, false, 0, 1000, 0, 1504, 0});
  EXPECT_EQ(segment(plan), packed("big", 0, 1000, 0, 1504));
}

std::string messageOf(llvm::Error error) { return llvm::toString(std::move(error)); }

TEST_F(WeightLayoutTest, RefusesNumbersThatAreNotFinite) {
  struct Case {
    BlockFormat format;
    size_t at;  // of the scale, minimum or number in a block
    uint16_t bits;
  };
  constexpr int64_t kRows = 40, kColumns = 512;
  for (const Case& c : {Case{BlockFormat::Q4_0, 0, 0x7c00}, Case{BlockFormat::Q4_1, 2, 0x7e01},
                        Case{BlockFormat::Q2_K, 82, 0xfc00}, Case{BlockFormat::Q6_K, 208, 0x7fff},
                        Case{BlockFormat::F16, 0, 0x7c00}, Case{BlockFormat::BF16, 0, 0x7f80},
                        Case{BlockFormat::F32, 2, 0x7fc0}, Case{BlockFormat::E4M3, 5, 0x7f00}}) {
    const BlockFormatInfo& info = blockFormatInfo(c.format);
    const int64_t rowBytes = info.rowBytes(kColumns);
    std::vector<uint8_t> data(kRows * rowBytes);
    const WeightSource weight{"big", c.format, kRows, kColumns, data};
    WeightPlan plan;
    plan.append({&weight, c.format, false, 0, kRows, 0, kColumns, 0});
    const auto stream = [&] {
      return streamWeights(plan, [](std::span<const uint8_t>) { return llvm::Error::success(); });
    };
    EXPECT_FALSE(static_cast<bool>(stream()));
    std::memcpy(data.data() + 37 * rowBytes + info.blockBytes + c.at, &c.bits, sizeof(c.bits));
    const std::string message = messageOf(stream());
    EXPECT_NE(message.find("tensor \"big\""), std::string::npos) << info.name << message;
    EXPECT_NE(message.find("row 37, bytes " + std::to_string(37 * rowBytes)), std::string::npos)
        << info.name << message;
  }
  std::vector<float> norm(96, 1.0f);
  norm[5] = std::numeric_limits<float>::quiet_NaN();
  const WeightSource vector{
      "norm", BlockFormat::F32, 1, 96, {reinterpret_cast<uint8_t*>(norm.data()), 96 * 4}};
  WeightPlan plan;
  plan.append({&vector, BlockFormat::F32, true, 0, 1, 0, 96, 0});
  EXPECT_NE(messageOf(streamWeights(
                          plan, [](std::span<const uint8_t>) { return llvm::Error::success(); }))
                .find("tensor \"norm\""),
            std::string::npos);
}

TEST_F(WeightLayoutTest, RefusesWhatDoesNotFit) {
  addModel(BlockFormat::Q4_0);
  struct Case {
    const char *from, *to, *word;
  };
  for (const Case& c : {
           Case{"tensor<80x96x", "tensor<96x80x", "in the IR"},
           Case{"\"factors\"", "\"missing\"", "no missing"},
           Case{"[0:64], [64:96]", "[0:48], [48:96]", "block of 32"},
           Case{"[0:48], [48:80]", "[0:48], [48:64], [64:80]", "2 shares"},
           Case{"80x96x!lm.block<q4_0>", "80x96x!lm.block<a8>", "weight format"},
       }) {
    // Verifiers catch some of these at once; what they let through is refused.
    mlir::ScopedDiagnosticHandler quiet(&context, [](mlir::Diagnostic&) {});
    const std::string text = replaced(program("q4_0"), c.from, c.to);
    if (!mlir::parseSourceString<mlir::ModuleOp>(text, &context)) continue;
    llvm::Expected<WeightLayout> layout = layOut(text);
    ASSERT_FALSE(static_cast<bool>(layout)) << c.to;
    EXPECT_NE(messageOf(layout.takeError()).find(c.word), std::string::npos) << c.to;
  }
}

}  // namespace

#include "codegen/artifact/WeightLayout.h"

#include "codegen/host/PackedLayout.h"
#include "runtime/schema/kernel_abi.h"
#include "llvm/ADT/StringMap.h"

#include <map>
#include <set>
#include <tuple>

using namespace mlir;
using namespace quern;

//===----------------------------------------------------------------------===//
// Bodies
//===----------------------------------------------------------------------===//

static ProgramBody takeApart(std::string name, Region &region) {
  ProgramBody body;
  body.name = std::move(name);
  for (Operation &op : region.getOps()) {
    if (auto slot = dyn_cast<rt::WeightSlotOp>(op))
      body.slots.push_back(slot);
    else
      body.instructions.push_back(&op);
  }
  return body;
}

llvm::Expected<ProgramBodies> quern::programBodies(rt::ProgramOp program) {
  ProgramBodies result;
  llvm::StringMap<size_t> blocks;
  Region &region = program.getBody();
  auto prologues = region.getOps<rt::PrologueOp>();
  auto epilogues = region.getOps<rt::EpilogueOp>();
  if (prologues.empty() || epilogues.empty())
    return compileError(ExitCode::Malformed,
                        "rt.program has no prologue or no epilogue; give one "
                        "of each");
  result.bodies.push_back(takeApart("embed", (*prologues.begin()).getBody()));
  for (auto block : region.getOps<rt::BlockOp>()) {
    blocks[block.getSymName()] = result.bodies.size();
    result.bodies.push_back(
        takeApart(block.getSymName().str(), block.getBody()));
  }
  for (Attribute layer : program.getLayers()) {
    StringRef name = cast<FlatSymbolRefAttr>(layer).getValue();
    auto block = blocks.find(name);
    if (block == blocks.end())
      return compileError(ExitCode::Malformed,
                          "rt.program names a layer @" + name +
                              " that is no rt.block of it");
    result.layers.push_back(block->second);
  }
  result.bodies.push_back(takeApart("head", (*epilogues.begin()).getBody()));
  return result;
}

//===----------------------------------------------------------------------===//
// Layout
//===----------------------------------------------------------------------===//

namespace {
/// A slot of one call, with its weight found and checked.
struct BoundSlot {
  const WeightSource *source;
  BlockFormat format;
  bool vector;
  lm::MatmulSplit split;
  /// Null: every share sees the whole weight.
  lm::RangesAttr ranges;

  WeightPiece piece(int64_t share) const {
    WeightPiece piece{source,       format, vector,          0,
                      source->rows, 0,      source->columns, 0};
    if (!ranges)
      return piece;
    const int64_t begin = ranges.getBegin(share, 0);
    const int64_t end = ranges.getEnd(share, 0);
    if (split == lm::MatmulSplit::N)
      piece.rowBegin = begin, piece.rowEnd = end;
    else
      piece.columnBegin = begin, piece.columnEnd = end;
    return piece;
  }
};

class LayoutBuilder {
public:
  LayoutBuilder(rt::ProgramOp program, const ProgramBodies &bodies,
                WeightLookup lookup)
      : shares(static_cast<int64_t>(program.getShares())), bodies(bodies),
        lookup(lookup) {}

  llvm::Expected<WeightLayout> run();

private:
  using Call = std::vector<BoundSlot>;

  llvm::Expected<const WeightSource *> find(WeightSource declared);
  llvm::Expected<BoundSlot> bind(rt::WeightSlotOp slot, int64_t layer);
  llvm::Error bindCall(const ProgramBody &body, int64_t layer);
  llvm::Error checkRanges(const BoundSlot &slot) const;

  uint64_t place(const WeightPiece &piece);
  void placeSlot(size_t call, size_t slot, int64_t share);
  void placeMatrices(size_t call, int64_t share);
  bool isTied(const BoundSlot &table, const BoundSlot &head) const;
  std::optional<size_t> tiedHead(const BoundSlot &table) const;
  void placeAll();

  uint64_t &offset(size_t call, size_t slot, int64_t share) {
    return offsets[call][slot * shares + share];
  }

  const int64_t shares;
  const ProgramBodies &bodies;
  WeightLookup lookup;
  /// Prologue, layers, epilogue.
  std::vector<Call> calls;
  std::vector<std::vector<uint64_t>> offsets;
  WeightLayout layout;
  llvm::StringMap<const WeightSource *> sources;
  /// Offsets of pieces by what they hold: source, format, rows, columns.
  std::map<std::tuple<const WeightSource *, BlockFormat, int64_t, int64_t,
                      int64_t, int64_t>,
           uint64_t>
      placed;
};
} // namespace

llvm::Expected<const WeightSource *>
LayoutBuilder::find(WeightSource declared) {
  const WeightSource *&known = sources[declared.name];
  if (known)
    return known;
  llvm::Expected<WeightSource> source =
      lookup ? lookup(declared.name) : std::move(declared);
  if (!source)
    return source.takeError();
  layout.sources.push_back(std::move(*source));
  known = &layout.sources.back();
  layout.parameters += static_cast<uint64_t>(known->rows * known->columns);
  layout.sourceBytes += static_cast<uint64_t>(
      known->rows * blockFormatInfo(known->format).rowBytes(known->columns));
  return known;
}

llvm::Expected<BoundSlot> LayoutBuilder::bind(rt::WeightSlotOp slot,
                                              int64_t layer) {
  std::string name = slot.getName().str();
  static constexpr llvm::StringLiteral kLayer = "{layer}";
  if (size_t at = name.find(kLayer); at != std::string::npos)
    name.replace(at, kLayer.size(), std::to_string(layer));
  auto type = dyn_cast<RankedTensorType>(slot.getType());
  std::optional<BlockFormat> format = type ? lm::formatOf(type) : std::nullopt;
  if (!format || !type.hasStaticShape() || type.getRank() < 1 ||
      type.getRank() > 2 || *format == BlockFormat::A8)
    return compileError(ExitCode::Malformed,
                        "weight " + name +
                            " has no type that a file can hold; give a vector "
                            "or a matrix of a weight format");
  const BlockFormat stored =
      slot.getSource() ? lm::formatOf(*slot.getSource()).value_or(*format)
                       : *format;
  const int64_t rows = type.getRank() == 2 ? type.getDimSize(0) : 1;
  const int64_t columns = type.getDimSize(type.getRank() - 1);
  llvm::Expected<const WeightSource *> source =
      find({name, stored, rows, columns, {}});
  if (!source)
    return source.takeError();
  const WeightSource &file = **source;
  auto describe = [](int64_t n, int64_t k, BlockFormat f) {
    return std::to_string(n) + "x" + std::to_string(k) + " " +
           std::string(blockFormatInfo(f).name);
  };
  if (file.rows != rows || file.columns != columns || file.format != stored)
    return compileError(ExitCode::Incompatible,
                        "weight " + name + " is " +
                            describe(file.rows, file.columns, file.format) +
                            " in the model file, but " +
                            describe(rows, columns, stored) +
                            " in the IR; give the file the IR was made from");
  if (stored != *format && !canQuantize(*format))
    return compileError(ExitCode::Unsupported,
                        "weight " + name + " cannot be packed as " +
                            std::string(blockFormatInfo(*format).name) +
                            "; use q8_0 or q4_0");
  BoundSlot bound{&file, *format, type.getRank() == 1, slot.getSplit(),
                  slot.getRanges().value_or(lm::RangesAttr())};
  if (llvm::Error error = checkRanges(bound))
    return std::move(error);
  return bound;
}

llvm::Error LayoutBuilder::checkRanges(const BoundSlot &slot) const {
  auto bad = [&](const llvm::Twine &what) {
    return compileError(ExitCode::Malformed,
                        "weight " + slot.source->name + ": " + what);
  };
  const int64_t unit =
      slot.vector ? 1 : packedFormat(slot.format).superblockColumns();
  if (slot.source->columns % unit)
    return bad("columns are no multiple of " + llvm::Twine(unit) +
               ", the packed layout's unit of " +
               blockFormatInfo(slot.format).name.data());
  if (!slot.ranges)
    return llvm::Error::success();
  const bool byRows = slot.split == lm::MatmulSplit::N;
  const int64_t extent = byRows ? slot.source->rows : slot.source->columns;
  if (slot.vector || slot.ranges.getSegments() != 1 ||
      slot.ranges.getShares() != shares || slot.ranges.getExtent(0) != extent)
    return bad("ranges do not cut the matrix in the program's " +
               llvm::Twine(shares) + " shares");
  for (int64_t share = 0; share < shares; ++share)
    if (!byRows && slot.ranges.getBegin(share, 0) % unit)
      return bad("a range of columns begins inside a block of " +
                 llvm::Twine(unit));
  return llvm::Error::success();
}

llvm::Error LayoutBuilder::bindCall(const ProgramBody &body, int64_t layer) {
  Call &call = calls.emplace_back();
  for (rt::WeightSlotOp slot : body.slots) {
    llvm::Expected<BoundSlot> bound = bind(slot, layer);
    if (!bound)
      return bound.takeError();
    call.push_back(*bound);
  }
  offsets.emplace_back(call.size() * shares);
  return llvm::Error::success();
}

/// Where the piece lies; a piece that was placed before is not placed again. A
/// share without work has no bytes, and its offset means nothing.
uint64_t LayoutBuilder::place(const WeightPiece &piece) {
  if (piece.size() == 0)
    return 0;
  auto [entry, isNew] =
      placed.try_emplace({piece.source, piece.format, piece.rowBegin,
                          piece.rowEnd, piece.columnBegin, piece.columnEnd},
                         0);
  if (isNew) {
    entry->second = layout.plan.append(piece);
    if (!piece.vector && piece.format != piece.source->format) {
      layout.quantizedFrom += static_cast<uint64_t>(
          (piece.rowEnd - piece.rowBegin) *
          blockFormatInfo(piece.source->format)
              .rowBytes(piece.columnEnd - piece.columnBegin));
      layout.quantizedTo += piece.size();
    }
  }
  return entry->second;
}

void LayoutBuilder::placeSlot(size_t call, size_t slot, int64_t share) {
  offset(call, slot, share) = place(calls[call][slot].piece(share));
}

void LayoutBuilder::placeMatrices(size_t call, int64_t share) {
  for (size_t slot = 0; slot < calls[call].size(); ++slot)
    if (!calls[call][slot].vector)
      placeSlot(call, slot, share);
}

/// Whether the pieces of `head` are, one after another, the whole of `table`:
/// the same weight, cut by rows, without padding between the pieces.
bool LayoutBuilder::isTied(const BoundSlot &table,
                           const BoundSlot &head) const {
  if (table.source != head.source || table.format != head.format ||
      table.ranges || !head.ranges || head.split != lm::MatmulSplit::N)
    return false;
  const int64_t rows = table.source->rows;
  for (int64_t share = 0; share < shares; ++share) {
    const WeightPiece piece = head.piece(share);
    if (piece.rowEnd != rows &&
        (piece.rowEnd % kPackedRows || piece.size() % kBufferAlignment))
      return false;
  }
  return true;
}

/// The slot of the epilogue that `table` of the prologue is tied to.
std::optional<size_t> LayoutBuilder::tiedHead(const BoundSlot &table) const {
  const Call &epilogue = calls.back();
  for (size_t slot = 0; slot < epilogue.size(); ++slot)
    if (!table.vector && isTied(table, epilogue[slot]))
      return slot;
  return std::nullopt;
}

void LayoutBuilder::placeAll() {
  const size_t last = calls.size() - 1;
  for (size_t call = 0; call <= last; ++call)
    for (size_t slot = 0; slot < calls[call].size(); ++slot)
      for (int64_t share = 0; calls[call][slot].vector && share < shares;
           ++share)
        placeSlot(call, slot, share);

  for (size_t slot = 0; slot < calls[0].size(); ++slot)
    for (int64_t share = 0; share < shares && !tiedHead(calls[0][slot]);
         ++share)
      placeSlot(0, slot, share);
  for (int64_t share = 0; share < shares; ++share)
    for (size_t call = 1; call < last; ++call)
      placeMatrices(call, share);
  for (size_t slot = 0; slot < calls[last].size(); ++slot)
    for (int64_t share = 0; share < shares; ++share)
      placeSlot(last, slot, share);

  for (size_t slot = 0; slot < calls[0].size(); ++slot)
    if (std::optional<size_t> head = tiedHead(calls[0][slot])) {
      // The first share that has rows holds row 0.
      int64_t first = 0;
      while (first + 1 < shares && calls[last][*head].piece(first).size() == 0)
        ++first;
      for (int64_t share = 0; share < shares; ++share)
        offset(0, slot, share) = offset(last, *head, first);
    }
}

llvm::Expected<WeightLayout> LayoutBuilder::run() {
  if (llvm::Error error = bindCall(bodies.bodies.front(), 0))
    return std::move(error);
  for (size_t layer = 0; layer < bodies.layers.size(); ++layer)
    if (llvm::Error error = bindCall(bodies.bodies[bodies.layers[layer]],
                                     static_cast<int64_t>(layer)))
      return std::move(error);
  if (llvm::Error error = bindCall(bodies.bodies.back(), 0))
    return std::move(error);

  placeAll();
  layout.plan.size = (layout.plan.size + kBufferAlignment - 1) /
                     kBufferAlignment * kBufferAlignment;

  layout.sizes.resize(bodies.bodies.size());
  auto recordSizes = [&](size_t body, const Call &call) {
    if (!layout.sizes[body].empty())
      return;
    for (const BoundSlot &slot : call)
      for (int64_t share = 0; share < shares; ++share)
        layout.sizes[body].push_back(slot.piece(share).size());
  };
  recordSizes(0, calls.front());
  recordSizes(bodies.bodies.size() - 1, calls.back());
  for (size_t layer = 0; layer < bodies.layers.size(); ++layer)
    recordSizes(bodies.layers[layer], calls[layer + 1]);

  layout.prologue.offsets = std::move(offsets.front());
  layout.epilogue.offsets = std::move(offsets.back());
  for (size_t call = 1; call + 1 < calls.size(); ++call)
    layout.layers.push_back({std::move(offsets[call])});
  return std::move(layout);
}

llvm::Expected<WeightLayout> quern::layOutWeights(rt::ProgramOp program,
                                                  const ProgramBodies &bodies,
                                                  WeightLookup lookup) {
  return LayoutBuilder(program, bodies, lookup).run();
}

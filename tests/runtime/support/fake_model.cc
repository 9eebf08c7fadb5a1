#include "tests/runtime/support/fake_model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/loader/hash.h"
#include "runtime/schema/file_header.h"
#include "runtime/schema/kernel_abi.h"
#include "runtime/schema/tokenizer_generated.h"

namespace quern::testing {
namespace {

using schema::Access;
using schema::Arg;
using schema::ArgKind;
using schema::RowClass;
using schema::Split;
using schema::StepInput;
using schema::WeightSplit;

/// A small generator: the same numbers everywhere.
uint32_t Next(uint32_t& state) {
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}

std::vector<float> Random(size_t count, uint32_t seed) {
  std::vector<float> values(count);
  for (float& value : values) value = (static_cast<float>(Next(seed) % 2001) - 1000.0f) / 4000.0f;
  return values;
}

/// Begin of share `share` of `shares` over `n`: unequal on purpose.
int64_t Cut(int64_t n, uint32_t share, uint32_t shares) {
  if (share == 0) return 0;
  return std::min<int64_t>(n, n * share / shares + 1 - (share == shares));
}

uint64_t Align64(uint64_t value) { return (value + 63) / 64 * 64; }

class Maker {
 public:
  explicit Maker(uint32_t shares) : shares_(shares) { model_.manifest.shares = shares; }

  FakeModel Make() {
    MakeNumbers();
    MakeModelInfo();
    MakeKernels();
    MakeBuffers();
    MakeBodies();
    MakeCalls();
    model_.tokenizer = FakeTokenizer();
    return std::move(model_);
  }

 private:
  enum BufferIndex : uint32_t { kX, kQ, kA, kD, kH, kD2, kY };

  void MakeNumbers() {
    model_.table = Random(kVocab * kHidden, 1);
    model_.head = Random(kVocab * kHidden, 2);
    model_.bias = Random(kVocab, 3);
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      for (uint32_t i = 0; i < 4; ++i) {
        model_.w[layer][i] = Random(kHidden * kHidden, 10 + 4 * layer + i);
      }
    }
  }

  void MakeModelInfo() {
    schema::ManifestT& m = model_.manifest;
    m.version = kManifestVersion;
    m.producer = "fake 1";
    m.model = std::make_unique<schema::ModelInfoT>();
    m.model->name = "Fake";
    m.model->family = "fake";
    m.model->vocab = kVocab;
    m.model->hidden = kHidden;
    m.model->layers = kLayers;
    m.model->heads = kHidden;
    m.model->kv_heads = kHidden;
    m.model->head_dim = 1;
    m.model->ffn = kHidden;
    m.model->context = kContext;
    m.model->parameters = 2 * kVocab * kHidden;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      m.kv.push_back(FakeKvLayer());
    }
    for (const char* name : {"plain", "future"}) {
      auto target = std::make_unique<schema::TargetT>();
      target->name = name;
      if (std::string_view(name) == "future") target->features = {"avx4096"};
      target->code_segment = 1;
      m.targets.push_back(std::move(target));
    }
  }

  /// Of the kernels whose profiles are tested; null for the others.
  static std::unique_ptr<schema::KernelWorkT> Work(FakeKernel kernel) {
    auto work = std::make_unique<schema::KernelWorkT>();
    work->bytes_per_row = 2 * kHidden * 4;
    if (kernel == kEmbed) {
      work->bytes_per_row += 4;
      work->gathers_weights = true;
    } else if (kernel == kProject) {
      work->flops_per_row = 2 * kHidden * kHidden;
    } else if (kernel == kAttend) {
      work->flops_per_pair = 4 * kHidden;
      work->bytes_per_key = 2 * kHidden * 4;
    } else {
      return nullptr;
    }
    return work;
  }

  void MakeKernels() {
    const struct {
      const char* name;
      uint32_t args, ranges;
    } kernels[kKernels] = {{"embed", 3, 0},  {"project", 3, 1},     {"append", 5, 2},
                           {"attend", 6, 1}, {"reduce_into", 3, 1}, {"add", 3, 0},
                           {"select", 3, 0}, {"head", 4, 1}};
    for (uint64_t i = 0; i < kKernels; ++i) {
      auto kernel = std::make_unique<schema::KernelT>();
      kernel->name = kernels[i].name;
      kernel->argument_count = kernels[i].args;
      kernel->range_count = kernels[i].ranges;
      kernel->work = Work(static_cast<FakeKernel>(i));
      for (uint32_t target = 0; target < 2; ++target) {
        for (auto role : {schema::Role::Decode, schema::Role::Prefill}) {
          kernel->codes.emplace_back(i * kKernelAlignment, 64, target, role);
        }
      }
      model_.manifest.kernels.push_back(std::move(kernel));
    }
    model_.code.assign(kKernels * kKernelAlignment, 0xc3);
    // mov rax, [rdi + 24]; mov dword [rax + 4 * 65], 1.0f; ret
    const uint8_t head[] = {0x48, 0x8b, 0x47, 0x18, 0xc7, 0x80, 0x04, 0x01,
                            0x00, 0x00, 0x00, 0x00, 0x80, 0x3f, 0xc3};
    std::copy(std::begin(head), std::end(head), model_.code.begin() + kHead * kKernelAlignment);
  }

  void MakeBuffers() {
    schema::ManifestT& m = model_.manifest;
    const struct {
      const char* name;
      RowClass rows;
      uint32_t copies;
      bool per_thread;
    } buffers[] = {{"x", RowClass::Tokens, 1, true},  {"q", RowClass::Tokens, 1, false},
                   {"a", RowClass::Tokens, 1, false}, {"d", RowClass::Tokens, shares_, false},
                   {"h", RowClass::Tokens, 1, false}, {"d2", RowClass::Tokens, shares_, false},
                   {"y", RowClass::Logits, 1, true}};
    for (const auto& b : buffers) {
      auto buffer = std::make_unique<schema::BufferT>();
      buffer->name = b.name;
      buffer->bytes_per_row = kHidden * 4;
      buffer->row_class = b.rows;
      buffer->copies = b.copies;
      buffer->per_thread = b.per_thread;
      uint64_t& arena = b.rows == RowClass::Tokens ? m.token_bytes_per_row : m.logit_bytes_per_row;
      buffer->offset = arena;
      arena += Align64(b.copies * buffer->bytes_per_row);
      if (b.per_thread) {
        buffer->private_offset = m.private_bytes_per_row;
        m.private_bytes_per_row += Align64(buffer->bytes_per_row);
      }
      m.buffers.push_back(std::move(buffer));
    }
  }

  static Arg Read(ArgKind kind, uint32_t index) { return Arg(kind, Access::Read, index); }
  static Arg Input(StepInput input) { return Read(ArgKind::Step, static_cast<uint32_t>(input)); }
  static Arg Write(ArgKind kind, uint32_t index) { return Arg(kind, Access::Write, index); }

  static void Rows(schema::BodyT& body, FakeKernel kernel, std::vector<Arg> args,
                   RowClass rows = RowClass::Tokens) {
    auto d = std::make_unique<schema::InstructionT>();
    d->op = schema::Op::Dispatch;
    d->kernel = kernel;
    d->split = Split::Rows;
    d->row_class = rows;
    d->args = std::move(args);
    body.instructions.push_back(std::move(d));
  }

  void Shares(schema::BodyT& body, FakeKernel kernel, std::vector<Arg> args, int64_t width,
              RowClass rows = RowClass::Tokens) {
    Rows(body, kernel, std::move(args), rows);
    schema::InstructionT& d = *body.instructions.back();
    d.split = Split::Shares;
    for (uint32_t share = 0; share < shares_; ++share) {
      for (uint32_t i = 0; i < model_.manifest.kernels[kernel]->range_count; ++i) {
        d.ranges.push_back(Cut(width, share, shares_));
        d.ranges.push_back(Cut(width, share + 1, shares_));
      }
    }
  }

  static void Join(schema::BodyT& body, schema::JoinWhen when) {
    auto join = std::make_unique<schema::InstructionT>();
    join->op = schema::Op::Join;
    join->when = when;
    body.instructions.push_back(std::move(join));
  }

  schema::BodyT& NewBody(const char* name) {
    model_.manifest.bodies.push_back(std::make_unique<schema::BodyT>());
    model_.manifest.bodies.back()->name = name;
    return *model_.manifest.bodies.back();
  }

  void Slot(schema::BodyT& body, const char* name, int64_t n, int64_t k, WeightSplit split) {
    auto slot = std::make_unique<schema::WeightSlotT>();
    slot->name = name;
    slot->format = "f32";
    slot->n = static_cast<uint64_t>(n);
    slot->k = static_cast<uint64_t>(k);
    slot->split = split;
    for (uint32_t share = 0; share < shares_; ++share) {
      const int64_t extent = split == WeightSplit::K ? k : n;
      const int64_t part = Cut(extent, share + 1, shares_) - Cut(extent, share, shares_);
      const int64_t elements = split == WeightSplit::Whole ? n * k : n * k / extent * part;
      slot->sizes.push_back(static_cast<uint64_t>(elements) * 4);
    }
    body.weights.push_back(std::move(slot));
  }

  void MakeBodies() {
    schema::BodyT& embed = NewBody("embed");
    Slot(embed, "table", kVocab, kHidden, WeightSplit::Whole);
    Rows(embed, kEmbed,
         {Input(StepInput::Tokens), Read(ArgKind::Weight, 0), Write(ArgKind::Activation, kX)});
    Join(embed, schema::JoinWhen::Rows);

    schema::BodyT& layer = NewBody("layer_0");
    Slot(layer, "layer.{layer}.w1", kHidden, kHidden, WeightSplit::N);
    Slot(layer, "layer.{layer}.w2", kHidden, kHidden, WeightSplit::K);
    Slot(layer, "layer.{layer}.w3", kHidden, kHidden, WeightSplit::N);
    Slot(layer, "layer.{layer}.w4", kHidden, kHidden, WeightSplit::K);
    Slot(layer, "shares", 1, 1, WeightSplit::Whole);
    Shares(
        layer, kProject,
        {Read(ArgKind::Activation, kX), Read(ArgKind::Weight, 0), Write(ArgKind::Activation, kQ)},
        kHidden);
    Shares(layer, kAppend,
           {Read(ArgKind::Activation, kQ), Input(StepInput::Slots), Input(StepInput::RowSequences),
            Input(StepInput::PageTable), Write(ArgKind::Kv, 0)},
           kHidden);
    Join(layer, schema::JoinWhen::Split);
    Shares(
        layer, kAttend,
        {Input(StepInput::Slots), Input(StepInput::AttentionTiles), Input(StepInput::PageTable),
         Read(ArgKind::Kv, 0), Write(ArgKind::Activation, kA),
         Arg(ArgKind::Step, Access::ReadWrite, static_cast<uint32_t>(StepInput::AttentionStates))},
        kHidden);
    auto merge = std::make_unique<schema::InstructionT>(*layer.instructions.back());
    merge->merge = true;
    Join(layer, schema::JoinWhen::Split);
    layer.instructions.push_back(std::move(merge));
    AddStage(layer, kA, 1, kD);
    Shares(
        layer, kProject,
        {Read(ArgKind::Activation, kX), Read(ArgKind::Weight, 2), Write(ArgKind::Activation, kH)},
        kHidden);
    AddStage(layer, kH, 3, kD2);

    schema::BodyT& head = NewBody("head");
    Slot(head, "head", kVocab, kHidden, WeightSplit::N);
    Slot(head, "bias", 1, kVocab, WeightSplit::Whole);
    Rows(head, kSelect,
         {Read(ArgKind::Activation, kX), Input(StepInput::LogitRows),
          Write(ArgKind::Activation, kY)},
         RowClass::Logits);
    Join(head, schema::JoinWhen::Rows);
    Shares(head, kHead,
           {Read(ArgKind::Activation, kY), Read(ArgKind::Weight, 0), Read(ArgKind::Weight, 1),
            Write(ArgKind::Logits, 0)},
           kVocab, RowClass::Logits);
  }

  /// A partial product and its addition to x.
  void AddStage(schema::BodyT& body, uint32_t from, uint32_t slot, uint32_t partial) {
    Shares(body, kReduceInto,
           {Read(ArgKind::Activation, from), Read(ArgKind::Weight, slot),
            Write(ArgKind::Partial, partial)},
           kHidden);
    Join(body, schema::JoinWhen::Always);
    Rows(body, kAdd,
         {Arg(ArgKind::Activation, Access::ReadWrite, kX), Read(ArgKind::Activation, partial),
          Read(ArgKind::Weight, 4)});
    Join(body, schema::JoinWhen::Rows);
  }

  /// Appends floats to the weights segment; returns their offset.
  uint64_t Put(const std::vector<float>& values) {
    const uint64_t offset = Align64(model_.weights.size());
    model_.weights.resize(offset + values.size() * 4);
    if (!values.empty()) {
      std::memcpy(model_.weights.data() + offset, values.data(), values.size() * 4);
    }
    return offset;
  }

  void PutWhole(schema::BodyCallT& call, const std::vector<float>& values) {
    const uint64_t offset = Put(values);
    call.weight_offsets.insert(call.weight_offsets.end(), shares_, offset);
  }

  void PutCut(schema::BodyCallT& call, const std::vector<float>& matrix, int64_t n, int64_t k,
              WeightSplit split) {
    const int64_t extent = split == WeightSplit::K ? k : n;
    for (uint32_t share = 0; share < shares_; ++share) {
      const int64_t begin = Cut(extent, share, shares_), end = Cut(extent, share + 1, shares_);
      std::vector<float> piece;
      for (int64_t row = 0; row < n; ++row) {
        for (int64_t column = 0; column < k; ++column) {
          const int64_t at = split == WeightSplit::K ? column : row;
          if (at >= begin && at < end) {
            piece.push_back(matrix[static_cast<size_t>(row * k + column)]);
          }
        }
      }
      call.weight_offsets.push_back(Put(piece));
    }
  }

  void MakeCalls() {
    schema::ManifestT& m = model_.manifest;
    m.prologue = std::make_unique<schema::BodyCallT>();
    PutWhole(*m.prologue, model_.table);
    for (auto& w : model_.w) {
      auto layer = std::make_unique<schema::BodyCallT>();
      layer->body = 1;
      for (size_t i = 0; i < 4; ++i) {
        PutCut(*layer, w[i], kHidden, kHidden, i % 2 ? WeightSplit::K : WeightSplit::N);
      }
      PutWhole(*layer, {static_cast<float>(shares_)});
      m.layers.push_back(std::move(layer));
    }
    m.epilogue = std::make_unique<schema::BodyCallT>();
    m.epilogue->body = 2;
    PutCut(*m.epilogue, model_.head, kVocab, kHidden, WeightSplit::N);
    PutWhole(*m.epilogue, model_.bias);
  }

  const uint32_t shares_;
  FakeModel model_;
};

float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// x += W a, a's columns cut in shares.
void AddShares(const std::vector<float>& w, const float* a, uint32_t shares, float* x) {
  for (int64_t n = 0; n < kHidden; ++n) {
    for (uint32_t share = 0; share < shares; ++share) {
      const int64_t begin = Cut(kHidden, share, shares), end = Cut(kHidden, share + 1, shares);
      x[n] += Dot(a + begin, w.data() + n * kHidden + begin, end - begin);
    }
  }
}

}  // namespace

FakeModel MakeFakeModel(uint32_t shares) { return Maker(shares).Make(); }

std::vector<uint8_t> Assemble(const FakeModel& model,
                              const std::function<void(schema::ManifestT&)>& mutate) {
  schema::ManifestT manifest = model.manifest;
  std::vector<uint8_t> file(kSegmentAlignment);
  auto add = [&](schema::SegmentKind kind, const std::string& name,
                 std::span<const uint8_t> bytes) {
    if (bytes.empty()) return;
    auto segment = std::make_unique<schema::SegmentT>();
    segment->kind = kind;
    segment->name = name;
    segment->offset = file.size();
    segment->size = bytes.size();
    const Digest digest = HashBytes(bytes);
    segment->hash = std::make_unique<schema::Hash256>(digest);
    manifest.segments.push_back(std::move(segment));
    file.insert(file.end(), bytes.begin(), bytes.end());
    file.resize((file.size() + kSegmentAlignment - 1) / kSegmentAlignment * kSegmentAlignment);
  };
  add(schema::SegmentKind::Weights, "weights", model.weights);
  add(schema::SegmentKind::HostCode, "code", model.code);
  add(schema::SegmentKind::Tokenizer, "tokenizer", model.tokenizer);
  for (size_t i = 0; i < model.ptx.size(); ++i) {
    const std::string& text = model.ptx[i];
    add(schema::SegmentKind::Ptx, "ptx." + std::to_string(i),
        {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  if (mutate) mutate(manifest);
  flatbuffers::FlatBufferBuilder builder;
  schema::FinishManifestBuffer(builder, schema::Manifest::Pack(builder, &manifest));
  FileHeader header{};
  std::memcpy(header.magic, kFileMagic, sizeof(kFileMagic));
  header.version = kFileVersion;
  header.manifest_offset = file.size();
  header.manifest_size = builder.GetSize();
  const Digest digest = HashBytes({builder.GetBufferPointer(), builder.GetSize()});
  std::memcpy(header.manifest_hash, digest.data(), digest.size());
  file.insert(file.end(), builder.GetBufferPointer(),
              builder.GetBufferPointer() + builder.GetSize());
  std::memcpy(file.data(), &header, sizeof(header));
  return file;
}

std::vector<uint8_t> FakeTokenizer() {
  schema::TokenizerT tokenizer;
  auto add = [&tokenizer](std::string_view bytes, schema::TokenType type) {
    tokenizer.token_bytes.insert(tokenizer.token_bytes.end(), bytes.begin(), bytes.end());
    tokenizer.token_offsets.push_back(static_cast<uint32_t>(tokenizer.token_bytes.size()));
    tokenizer.token_types.push_back(static_cast<uint8_t>(type));
  };
  tokenizer.token_offsets.push_back(0);
  for (int byte = 0; byte < 256; ++byte) {
    const char letter = static_cast<char>(byte);
    add({&letter, 1}, schema::TokenType::Normal);
  }
  add("<|end|>", schema::TokenType::Control);
  add("<|user|>", schema::TokenType::Control);
  add("ab", schema::TokenType::Normal);
  tokenizer.merges.emplace_back('a', 'b', 258);
  tokenizer.pre_tokenizer_name = "fake";
  tokenizer.pre_tokenizer_patterns = {"[a-z]+"};
  tokenizer.eos_id = 256;
  tokenizer.end_of_generation_ids = {256};
  tokenizer.chat_template =
      "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"
      "{% if add_generation_prompt %}>{% endif %}";
  flatbuffers::FlatBufferBuilder builder;
  schema::FinishTokenizerBuffer(builder, schema::Tokenizer::Pack(builder, &tokenizer));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

std::vector<float> Reference(const FakeModel& model, std::span<const int32_t> tokens,
                             std::span<const schema::Role> roles) {
  const uint32_t shares = model.manifest.shares;
  std::vector<float> logits;
  std::vector<std::vector<float>> keys(kLayers);  // (slots, hidden)
  for (size_t i = 0; i < tokens.size(); ++i) {
    float x[kHidden], q[kHidden], a[kHidden];
    const float scale = roles[i] == schema::Role::Prefill ? 1.0f : 1.5f;
    for (int64_t n = 0; n < kHidden; ++n) {
      x[n] = model.table[static_cast<size_t>(tokens[i] * kHidden + n)] * scale;
    }
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const auto& w = model.w[layer];
      for (int64_t n = 0; n < kHidden; ++n) q[n] = Dot(x, w[0].data() + n * kHidden, kHidden);
      std::vector<float>& k = keys[static_cast<size_t>(layer)];
      k.insert(k.end(), q, q + kHidden);
      for (int64_t n = 0; n < kHidden; ++n) {
        a[n] = 0.0f;
        float sum = 0.0f;  // of a block
        for (size_t s = 0; s <= i; ++s) {
          const float key = k[s * kHidden + static_cast<size_t>(n)];
          sum += key * (2.0f * key) * (0.25f / static_cast<float>(s + 1));
          if ((s + 1) % kAttentionBlock == 0) a[n] += std::exchange(sum, 0.0f);
        }
        a[n] += sum;
      }
      AddShares(w[1], a, shares, x);
      for (int64_t n = 0; n < kHidden; ++n) q[n] = Dot(x, w[2].data() + n * kHidden, kHidden);
      AddShares(w[3], q, shares, x);
    }
    for (int64_t n = 0; n < kVocab; ++n) {
      logits.push_back(Dot(x, model.head.data() + n * kHidden, kHidden) +
                       model.bias[static_cast<size_t>(n)]);
    }
  }
  return logits;
}

std::vector<int32_t> SomeTokens(size_t count, uint32_t seed) {
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(Next(seed) % kVocab);
  return tokens;
}

}  // namespace quern::testing

#include "runtime/llm/tokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <optional>

#include "runtime/llm/bpe.h"
#include "runtime/llm/pre_tokenizer.h"
#include "runtime/llm/special_tokens.h"
#include "runtime/llm/utf8.h"
#include "runtime/schema/tokenizer_generated.h"

namespace quern {
namespace {

std::string Field(std::string_view name) { return "tokenizer segment: " + std::string(name); }

/// `text` in Unicode normalization form C.
Result<std::string> NormalizeNfc(std::string_view text) {
  auto ascii = [](char byte) { return static_cast<uint8_t>(byte) < 0x80; };
  if (std::all_of(text.begin(), text.end(), ascii)) return std::string(text);
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (length < 0)
    return length == UTF8PROC_ERROR_NOMEM
               ? OutOfMemory("no memory for normalizing the text")
               : Failure(std::string("cannot normalize the text: ") + utf8proc_errmsg(length));
  std::string result(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
  std::free(mapped);
  return result;
}

/// `text` without any `mark`.
std::string Without(std::string_view mark, std::string_view text) {
  std::string kept;
  for (size_t at; (at = text.find(mark)) != text.npos; text.remove_prefix(at + mark.size()))
    kept += text.substr(0, at);
  return kept.append(text);
}

}  // namespace

class Tokenizer::Impl {
 public:
  /// Reads and checks `segment`.
  Status Load(std::span<const uint8_t> segment);

  /// Appends the tokens of valid UTF-8 to `out`.
  Status EncodeText(std::string_view text, const EncodeOptions& options, BpeMerger& merger,
                    std::vector<int32_t>& out) const;

  std::string_view BytesOf(uint32_t id) const {
    const uint32_t begin = (*offsets_)[id];
    return {reinterpret_cast<const char*>(data_->token_bytes()->data()) + begin,
            (*offsets_)[id + 1] - begin};
  }
  schema::TokenType TypeOf(uint32_t id) const {
    return static_cast<schema::TokenType>((*data_->token_types())[id]);
  }
  bool Has(int64_t id) const { return id >= 0 && id < int64_t{vocab_}; }

  const schema::Tokenizer* data_ = nullptr;
  const flatbuffers::Vector<uint32_t>* offsets_ = nullptr;
  uint32_t vocab_ = 0;
  MergeTable merges_;
  std::optional<PreTokenizer> pre_tokenizer_;
  SpecialTokens special_;
  std::array<int32_t, 256> byte_tokens_{};  // -1: none
  std::vector<int32_t> whole_pieces_;       // normal tokens by bytes, for ignore_merges
  std::vector<int32_t> ends_;               // sorted

 private:
  Status CheckTokens() const;
  Status CheckIds() const;
  Status LoadMerges();
  Status LoadPatterns();
  void IndexTokens();
  int32_t WholePiece(std::string_view piece) const;
  Status EncodePart(std::string_view text, BpeMerger& merger, std::vector<int32_t>& out) const;
};

Status Tokenizer::Impl::Load(std::span<const uint8_t> segment) {
  if (segment.size() >= FLATBUFFERS_MAX_BUFFER_SIZE)
    return Malformed(Field("has ") + std::to_string(segment.size()) + " bytes, 2 GiB or more");
  if (reinterpret_cast<uintptr_t>(segment.data()) % alignof(uint64_t) != 0)
    return Malformed(Field("is not aligned to 8 bytes"));
  flatbuffers::Verifier verifier(segment.data(), segment.size(), /*max_depth=*/8,
                                 /*max_tables=*/64);
  if (!schema::VerifyTokenizerBuffer(verifier))
    return Malformed(Field("is not a FlatBuffer with identifier QRNT, or is cut short"));
  data_ = schema::GetTokenizer(segment.data());
  offsets_ = data_->token_offsets();
  if (data_->kind() != schema::TokenizerKind::ByteLevelBpe)
    return Unsupported(Field("kind ") + std::to_string(static_cast<int>(data_->kind())) +
                       " is not known to this runtime; it knows byte-level BPE (0)");
  if (data_->normalizer() > schema::TextNormalizer::MAX)
    return Unsupported(Field("normalizer ") +
                       std::to_string(static_cast<int>(data_->normalizer())) +
                       " is not known to this runtime");
  QUERN_RETURN_IF_ERROR(CheckTokens());
  vocab_ = data_->token_types()->size();
  QUERN_RETURN_IF_ERROR(CheckIds());
  QUERN_RETURN_IF_ERROR(LoadMerges());
  QUERN_RETURN_IF_ERROR(LoadPatterns());
  IndexTokens();
  return {};
}

Status Tokenizer::Impl::CheckTokens() const {
  const size_t vocab = data_->token_types()->size();
  if (vocab == 0) return Malformed(Field("token_types is empty"));
  if (vocab > INT32_MAX || offsets_->size() != vocab + 1)
    return Malformed(Field("token_offsets has ") + std::to_string(offsets_->size()) +
                     " entries, expected " + std::to_string(vocab + 1));
  if ((*offsets_)[0] != 0 || (*offsets_)[vocab] != data_->token_bytes()->size())
    return Malformed(Field("token_offsets does not cover token_bytes"));
  for (uint32_t id = 0; id < vocab; ++id) {
    const uint32_t begin = (*offsets_)[id], end = (*offsets_)[id + 1];
    if (end < begin || end - begin > kMaxTokenBytes)
      return Malformed(Field("token ") + std::to_string(id) + " spans bytes " +
                       std::to_string(begin) + " to " + std::to_string(end) + ", expected 0 to " +
                       std::to_string(kMaxTokenBytes) + " bytes");
    const uint8_t type = (*data_->token_types())[id];
    if (type < 1 || type > 6)
      return Malformed(Field("token ") + std::to_string(id) + " has type " + std::to_string(type) +
                       ", expected 1 to 6");
  }
  return {};
}

Status Tokenizer::Impl::CheckIds() const {
  const std::pair<const char*, int32_t> roles[] = {{"bos_id", data_->bos_id()},
                                                   {"eos_id", data_->eos_id()},
                                                   {"eot_id", data_->eot_id()},
                                                   {"pad_id", data_->pad_id()},
                                                   {"unknown_id", data_->unknown_id()}};
  auto outside = [this](const char* name, int32_t id) {
    return Malformed(Field(name) + " is " + std::to_string(id) + ", but there are " +
                     std::to_string(vocab_) + " tokens");
  };
  for (const auto& [name, id] : roles)
    if (id != -1 && !Has(id)) return outside(name, id);
  if (data_->end_of_generation_ids())
    for (const int32_t id : *data_->end_of_generation_ids())
      if (!Has(id)) return outside("end_of_generation_ids", id);
  if (data_->add_bos() && data_->bos_id() < 0)
    return Malformed(Field("add_bos is set without bos_id"));
  if (data_->add_eos() && data_->eos_id() < 0)
    return Malformed(Field("add_eos is set without eos_id"));
  return {};
}

Status Tokenizer::Impl::LoadMerges() {
  std::vector<MergeTable::Source> merges;
  merges.reserve(data_->merges()->size());
  for (const schema::Merge* merge : *data_->merges()) {
    const std::string where = "merge " + std::to_string(merges.size());
    for (const uint32_t id : {merge->left(), merge->right(), merge->result()})
      if (!Has(id))
        return Malformed(Field(where) + " names token " + std::to_string(id) + ", but there are " +
                         std::to_string(vocab_));
    // What makes decoding the inverse of encoding.
    const std::string_view left = BytesOf(merge->left()), right = BytesOf(merge->right());
    const std::string_view result = BytesOf(merge->result());
    if (result.size() != left.size() + right.size() || !result.starts_with(left) ||
        !result.ends_with(right))
      return Malformed(Field(where) + ": the bytes of token " + std::to_string(merge->result()) +
                       " are not those of " + std::to_string(merge->left()) + " and " +
                       std::to_string(merge->right()) + " joined");
    merges.push_back({merge->left(), merge->right(), merge->result()});
  }
  merges_ = MergeTable(merges, vocab_);
  return {};
}

Status Tokenizer::Impl::LoadPatterns() {
  std::vector<std::string_view> patterns;
  for (const flatbuffers::String* pattern : *data_->pre_tokenizer_patterns())
    patterns.push_back(pattern->string_view());
  QUERN_ASSIGN_OR_RETURN(pre_tokenizer_, PreTokenizer::Create(patterns));
  return {};
}

void Tokenizer::Impl::IndexTokens() {
  byte_tokens_.fill(-1);
  std::vector<SpecialTokens::Token> special;
  for (uint32_t id = 0; id < vocab_; ++id) {
    const std::string_view bytes = BytesOf(id);
    const auto token = static_cast<int32_t>(id);
    switch (TypeOf(id)) {
      case schema::TokenType::Normal:
        if (bytes.size() == 1) {
          int32_t& slot = byte_tokens_[static_cast<uint8_t>(bytes[0])];
          if (slot < 0) slot = token;
        }
        if (data_->ignore_merges()) whole_pieces_.push_back(token);
        break;
      case schema::TokenType::Unknown:
      case schema::TokenType::Control:
      case schema::TokenType::UserDefined:
        // Texts are valid UTF-8: a token that is not would cut a character in two.
        if (!bytes.empty() && utf8::IsValid(bytes))
          special.push_back({bytes, token, TypeOf(id) != schema::TokenType::UserDefined});
        break;
      case schema::TokenType::Unused:
      case schema::TokenType::Byte:
        break;
    }
  }
  special_ = SpecialTokens(std::move(special));
  std::sort(whole_pieces_.begin(), whole_pieces_.end(), [this](int32_t a, int32_t b) {
    const int order = BytesOf(a).compare(BytesOf(b));
    return order != 0 ? order < 0 : a < b;
  });
  if (data_->end_of_generation_ids())
    ends_.assign(data_->end_of_generation_ids()->begin(), data_->end_of_generation_ids()->end());
  std::sort(ends_.begin(), ends_.end());
}

int32_t Tokenizer::Impl::WholePiece(std::string_view piece) const {
  auto it =
      std::lower_bound(whole_pieces_.begin(), whole_pieces_.end(), piece,
                       [this](int32_t id, std::string_view bytes) { return BytesOf(id) < bytes; });
  return it != whole_pieces_.end() && BytesOf(*it) == piece ? *it : -1;
}

/// Encodes text that has no special tokens in it.
Status Tokenizer::Impl::EncodePart(std::string_view text, BpeMerger& merger,
                                   std::vector<int32_t>& out) const {
  std::string normalized;
  if (data_->normalizer() == schema::TextNormalizer::Nfc) {
    QUERN_ASSIGN_OR_RETURN(normalized, NormalizeNfc(text));
    text = normalized;
  }
  QUERN_ASSIGN_OR_RETURN(const std::vector<std::string_view> pieces, pre_tokenizer_->Split(text));
  std::vector<uint32_t> bytes;
  for (const std::string_view piece : pieces) {
    if (const int32_t whole = WholePiece(piece); whole >= 0) {
      out.push_back(whole);
      continue;
    }
    bytes.clear();
    for (const char byte : piece) {
      const int32_t token = byte_tokens_[static_cast<uint8_t>(byte)];
      if (token >= 0) bytes.push_back(static_cast<uint32_t>(token));
    }
    merger.Merge(bytes, out);
  }
  return {};
}

Status Tokenizer::Impl::EncodeText(std::string_view text, const EncodeOptions& options,
                                   BpeMerger& merger, std::vector<int32_t>& out) const {
  size_t position = 0;
  while (position < text.size()) {
    const SpecialTokens::Match match = special_.Find(text, position, options.parse_special);
    const std::string_view part = text.substr(position, match.begin - position);
    if (!options.mark.empty() && part.find(options.mark) != part.npos) {
      QUERN_RETURN_IF_ERROR(EncodeText(Without(options.mark, part), {}, merger, out));
    } else {
      QUERN_RETURN_IF_ERROR(EncodePart(part, merger, out));
    }
    if (match.id >= 0) out.push_back(match.id);
    position = match.end;
  }
  return {};
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::Create(std::span<const uint8_t> segment) {
  try {
    auto impl = std::make_unique<Impl>();
    QUERN_RETURN_IF_ERROR(impl->Load(segment));
    return Tokenizer(std::move(impl));
  } catch (const std::bad_alloc&) {
    return OutOfMemory("no memory for the tokenizer's tables");
  }
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view text, EncodeOptions options) const
    try {
  if (text.size() > kMaxTextBytes)
    return UsageError("the text has " + std::to_string(text.size()) + " bytes, at most " +
                      std::to_string(kMaxTextBytes) + " can be encoded at once");
  std::string sanitized;
  if (!utf8::IsValid(text)) {
    sanitized = utf8::Sanitize(text);
    text = sanitized;
  }
  std::vector<int32_t> ids;
  if (options.add_special && add_bos()) ids.push_back(bos());
  BpeMerger merger(impl_->merges_);
  QUERN_RETURN_IF_ERROR(impl_->EncodeText(text, options, merger, ids));
  if (options.add_special && impl_->data_->add_eos()) ids.push_back(eos());
  return ids;
} catch (const std::bad_alloc&) {
  return OutOfMemory("no memory for encoding " + std::to_string(text.size()) + " bytes");
}

std::string Tokenizer::MarkControl(std::string_view text, std::string_view mark) const {
  // A template may trim what it is given, so white space at the end does not count.
  const size_t end = text.find_last_not_of(" \t\r\n\f\v") + 1;
  std::string marked;
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8::ScanOne(text.substr(at)).length;
    marked += text.substr(at, length);
    if (at < end && impl_->special_.MayBeginControl(text.substr(at, end - at))) marked += mark;
    at += length;
  }
  return marked;
}

Result<std::string> Tokenizer::Decode(std::span<const int32_t> ids, DecodeOptions options) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!impl_->Has(id))
      return UsageError("token id " + std::to_string(id) + " is outside the vocabulary of " +
                        std::to_string(vocab_size()));
    if (options.skip_special && IsControl(id)) continue;
    bytes += TokenBytes(id);
  }
  return bytes;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->vocab_); }

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  return impl_->Has(id) ? impl_->BytesOf(static_cast<uint32_t>(id)) : std::string_view();
}

bool Tokenizer::IsControl(int32_t id) const {
  return impl_->Has(id) && impl_->TypeOf(static_cast<uint32_t>(id)) == schema::TokenType::Control;
}

bool Tokenizer::IsEndOfGeneration(int32_t id) const {
  return std::binary_search(impl_->ends_.begin(), impl_->ends_.end(), id);
}

int32_t Tokenizer::bos() const { return impl_->data_->bos_id(); }
int32_t Tokenizer::eos() const { return impl_->data_->eos_id(); }
int32_t Tokenizer::eot() const { return impl_->data_->eot_id(); }
int32_t Tokenizer::pad() const { return impl_->data_->pad_id(); }
int32_t Tokenizer::unknown() const { return impl_->data_->unknown_id(); }
bool Tokenizer::add_bos() const { return impl_->data_->add_bos(); }
std::span<const int32_t> Tokenizer::end_of_generation() const { return impl_->ends_; }

std::string_view Tokenizer::chat_template() const {
  const flatbuffers::String* source = impl_->data_->chat_template();
  return source ? source->string_view() : std::string_view();
}

std::string_view Tokenizer::pre_tokenizer_name() const {
  const flatbuffers::String* name = impl_->data_->pre_tokenizer_name();
  return name ? name->string_view() : std::string_view();
}

}  // namespace quern

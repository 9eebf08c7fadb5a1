// The texts of a manifest, which go into messages and to terminals.
#include <string>

#include "runtime/loader/manifest_check.h"
#include "runtime/schema/plain_text.h"

namespace quern {
namespace {

/// Checks texts one after the other and keeps the first refusal.
class TextCheck {
 public:
  explicit TextCheck(const ManifestCheck& check) : check_(check) {}

  void Add(const std::string& field, const flatbuffers::String* text) {
    if (!text || !verdict_.ok() || IsPlainText(text->string_view())) return;
    verdict_ = check_.Bad(
        field, text,
        "a text of " + std::to_string(text->size()) + " bytes, or one with control characters",
        "one plain line of at most " + std::to_string(kMaxPlainTextBytes));
  }
  const Status& verdict() const { return verdict_; }

 private:
  const ManifestCheck& check_;
  Status verdict_;
};

}  // namespace

Status CheckTexts(const ManifestCheck& check) {
  const schema::Manifest& m = check.manifest;
  TextCheck texts(check);
  texts.Add("producer", m.producer());
  texts.Add("model.name", m.model()->name());
  texts.Add("model.family", m.model()->family());
  texts.Add("model.licence", m.model()->licence());
  for (uint32_t i = 0; i < m.segments()->size(); ++i) {
    texts.Add(Item("segments", i) + ".name", m.segments()->Get(i)->name());
  }
  for (uint32_t i = 0; i < m.targets()->size(); ++i) {
    texts.Add(Item("targets", i) + ".name", m.targets()->Get(i)->name());
    for (const flatbuffers::String* feature : *m.targets()->Get(i)->features()) {
      texts.Add(Item("targets", i) + ".features", feature);
    }
  }
  for (uint32_t i = 0; i < m.kernels()->size(); ++i) {
    const schema::Kernel& kernel = *m.kernels()->Get(i);
    texts.Add(Item("kernels", i) + ".name", kernel.name());
    texts.Add(Item("kernels", i) + ".signature", kernel.signature());
    for (uint32_t j = 0; kernel.gpu_codes() && j < kernel.gpu_codes()->size(); ++j) {
      texts.Add(Item("kernels", i) + "." + Item("gpu_codes", j) + ".entry",
                kernel.gpu_codes()->Get(j)->entry());
    }
    for (uint32_t j = 0; kernel.forms() && j < kernel.forms()->size(); ++j) {
      texts.Add(Item("kernels", i) + "." + Item("forms", j) + ".generator",
                kernel.forms()->Get(j)->generator());
    }
  }
  for (uint32_t i = 0; i < m.buffers()->size(); ++i) {
    texts.Add(Item("buffers", i) + ".name", m.buffers()->Get(i)->name());
  }
  for (uint32_t i = 0; i < m.bodies()->size(); ++i) {
    const schema::Body& body = *m.bodies()->Get(i);
    texts.Add(Item("bodies", i) + ".name", body.name());
    for (const schema::WeightSlot* slot : *body.weights()) {
      texts.Add(Item("bodies", i) + ".weights.name", slot->name());
      texts.Add(Item("bodies", i) + ".weights.format", slot->format());
    }
  }
  for (uint32_t i = 0; m.tuning() && i < m.tuning()->size(); ++i) {
    texts.Add(Item("tuning", i), m.tuning()->Get(i));
  }
  return texts.verdict();
}

}  // namespace quern

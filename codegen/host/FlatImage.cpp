//===- FlatImage.cpp - Objects linked to position-free bytes --------------===//
//
// Relocations of x86-64 ELF objects: System V ABI, AMD64 supplement, table 4.9.
//
//===----------------------------------------------------------------------===//
#include "codegen/host/FlatImage.h"

#include "llvm/ADT/DenseMap.h"
#include "llvm/BinaryFormat/ELF.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Support/Endian.h"

using namespace llvm;
using namespace llvm::object;

namespace quern::host {
namespace {

class Linker {
public:
  Linker(std::vector<uint8_t> &image, const ELF64LEObjectFile &object)
      : image(image), object(object) {}

  Error place();
  Error relocate();
  Expected<uint64_t> addressOf(SymbolRef symbol);

private:
  Error apply(uint64_t section, const ELFRelocationRef &relocation);

  std::vector<uint8_t> &image;
  const ELF64LEObjectFile &object;
  DenseMap<uint64_t, uint64_t> places; ///< section index -> offset in the image
};

bool isLoaded(ELFSectionRef section) {
  // Unwind tables describe code to debuggers; nothing reads them in an image.
  return section.getFlags() & ELF::SHF_ALLOC && section.getSize() > 0 &&
         section.getType() != ELF::SHT_X86_64_UNWIND &&
         cantFail(section.getName()) != ".eh_frame" &&
         cantFail(section.getName()) != ".llvm_addrsig";
}

Error Linker::place() {
  for (ELFSectionRef section : object.sections()) {
    if (!isLoaded(section))
      continue;
    StringRef name = cantFail(section.getName());
    if (section.getFlags() & ELF::SHF_WRITE)
      return createStringError("section " + name +
                               " is writable; kernels keep no state");
    Expected<StringRef> contents = section.getContents();
    if (!contents)
      return contents.takeError();
    uint64_t alignment =
        std::max<uint64_t>(section.getAlignment().value(), kImageAlignment);
    image.resize(alignTo(image.size(), alignment));
    places[section.getIndex()] = image.size();
    image.insert(image.end(), contents->begin(), contents->end());
  }
  return Error::success();
}

Expected<uint64_t> Linker::addressOf(SymbolRef symbol) {
  Expected<section_iterator> section = symbol.getSection();
  if (!section)
    return section.takeError();
  auto place = *section == object.section_end()
                   ? places.end()
                   : places.find((*section)->getIndex());
  if (place == places.end()) {
    Expected<StringRef> name = symbol.getName();
    return createStringError("kernel refers to '" + (name ? name->str() : "?") +
                             "', which is outside of its object");
  }
  Expected<uint64_t> value = symbol.getValue();
  if (!value)
    return value.takeError();
  return place->second + *value;
}

Error Linker::apply(uint64_t section, const ELFRelocationRef &relocation) {
  uint64_t type = relocation.getType();
  if (type != ELF::R_X86_64_PC32 && type != ELF::R_X86_64_PLT32)
    return createStringError(
        "kernel has a relocation of type " + Twine(type) +
        ", expected one relative to the instruction pointer");
  Expected<uint64_t> symbol = addressOf(*relocation.getSymbol());
  if (!symbol)
    return symbol.takeError();
  Expected<int64_t> addend = relocation.getAddend();
  if (!addend)
    return addend.takeError();
  uint64_t at = places[section] + relocation.getOffset();
  int64_t value = static_cast<int64_t>(*symbol + *addend - at);
  support::endian::write32le(image.data() + at, static_cast<uint32_t>(value));
  return Error::success();
}

Error Linker::relocate() {
  for (SectionRef section : object.sections()) {
    Expected<section_iterator> target = section.getRelocatedSection();
    if (!target)
      return target.takeError();
    if (*target == object.section_end() || !places.count((*target)->getIndex()))
      continue;
    for (ELFRelocationRef relocation : section.relocations())
      if (Error error = apply((*target)->getIndex(), relocation))
        return error;
  }
  return Error::success();
}

} // namespace

Expected<uint64_t> appendObject(std::vector<uint8_t> &image,
                                ArrayRef<char> object, StringRef entry) {
  auto parsed = ELF64LEObjectFile::create(
      MemoryBufferRef(StringRef(object.data(), object.size()), entry));
  if (!parsed)
    return parsed.takeError();
  Linker linker(image, *parsed);
  if (Error error = linker.place())
    return std::move(error);
  if (Error error = linker.relocate())
    return std::move(error);
  for (SymbolRef symbol : parsed->symbols()) {
    Expected<StringRef> name = symbol.getName();
    if (name && *name == entry)
      return linker.addressOf(symbol);
  }
  return createStringError("object has no function " + entry);
}

} // namespace quern::host

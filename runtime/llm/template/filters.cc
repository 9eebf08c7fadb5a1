#include "runtime/llm/template/filters.h"

namespace quern::jinja {

const FilterEntry* FindFilter(std::string_view name) {
  for (const auto table : {TextFilters(), SequenceFilters()})
    for (const FilterEntry& entry : table)
      if (entry.name == name) return &entry;
  return nullptr;
}

}  // namespace quern::jinja

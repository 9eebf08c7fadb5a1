// "Did you mean ...?"
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quern::tools {

/// The candidate that `word` most likely stands for, or empty: one that begins with it, or the
/// nearest by edit distance within a third of its length.
std::string Suggest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace quern::tools

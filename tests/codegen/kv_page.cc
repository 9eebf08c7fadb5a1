#include "tests/codegen/kv_page.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "dialects/lm/BlockFormat.h"
#include "runtime/schema/kernel_abi.h"

namespace quern::test {
namespace {

template <typename T>
T Load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <typename T>
void Store(uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

double Norm(const std::vector<float>& numbers) {
  double sum = 0;
  for (double x : numbers) sum += x * x;
  return std::sqrt(sum);
}

float Largest(const float* numbers, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(numbers[i]));
  return largest;
}

}  // namespace

int64_t KvPage::head_bytes() const {
  if (is_fixed()) return static_cast<int64_t>(FixedKvHeadBytes(head_dim, kTokens));
  return 2 * (part_bytes() + scales_bytes());
}

int64_t KvPage::Offset(bool value, int64_t token, int64_t d) const {
  int64_t element = value ? token * head_dim + d : d * kTokens + token;
  if (on_gpu && !f32) element = (token / 8 * (head_dim / 8) + d / 8) * 64 + token % 8 * 8 + d % 8;
  if (is_fixed()) {
    element =
        value ? (token / 2 * head_dim + d) * 2 + token % 2 : (d / 2 * kTokens + token) * 2 + d % 2;
  }
  const int64_t between = is_fixed() ? kFixedKvScales * kTokens * 4 : 0;
  return (value ? part_bytes() + between : 0) + element * element_bytes();
}

int64_t KvPage::HeadOffset(int64_t page, int64_t heads, int64_t head) const {
  const int64_t run = on_gpu ? 1 : kKvPageRun;
  return (page / run * run * heads + head * run + page % run) * head_bytes();
}

int64_t KvPage::PoolBytes(int64_t pages, int64_t heads) const {
  const int64_t run = on_gpu ? 1 : kKvPageRun;
  return (pages + run - 1) / run * run * heads * head_bytes();
}

void KvPage::WriteInt8(uint8_t* head, bool value, int64_t token,
                       const std::vector<float>& numbers) const {
  for (int64_t group = 0; group < head_dim / kGroup; ++group) {
    const float scale = Largest(numbers.data() + group * kGroup, kGroup) / 127;
    Store(head + OffsetOfScale(value, token, group), scale);
    for (int64_t d = group * kGroup; d < (group + 1) * kGroup; ++d)
      Store(head + Offset(value, token, d),
            static_cast<int8_t>(std::nearbyint(numbers[d] / scale)));
  }
}

void KvPage::WriteFixed(uint8_t* head, bool value, int64_t token,
                        const std::vector<float>& numbers) const {
  float inverse;
  if (value) {
    // Any scale serves under which no code is larger than kFixedValueMax.
    const float log =
        0.05f + static_cast<float>(std::log2(Largest(numbers.data(), head_dim) / kFixedValueMax));
    inverse = 1 / std::exp2(log);
    Store(head + OffsetOfScale(FixedKvScale::kValueLog2, token), log);
    Store(head + OffsetOfScale(FixedKvScale::kValueInverse, token), inverse);
  } else {
    const double norm = Norm(numbers);
    inverse = static_cast<float>(kFixedKeyNorm / norm);
    Store(head + OffsetOfScale(FixedKvScale::kKey, token),
          static_cast<float>(norm / kFixedKeyNorm));
  }
  for (int64_t d = 0; d < head_dim; ++d)
    Store(head + Offset(value, token, d),
          static_cast<int16_t>(std::nearbyint(numbers[d] * inverse)));
}

void KvPage::Write(uint8_t* head, bool value, int64_t token,
                   const std::vector<float>& numbers) const {
  if (int8) return WriteInt8(head, value, token, numbers);
  if (is_fixed()) return WriteFixed(head, value, token, numbers);
  for (int64_t d = 0; d < head_dim; ++d) {
    uint8_t* at = head + Offset(value, token, d);
    f32 ? Store(at, numbers[d]) : Store(at, f32ToF16(numbers[d]));
  }
}

std::vector<float> KvPage::Read(const uint8_t* head, bool value, int64_t token) const {
  std::vector<float> numbers(head_dim);
  for (int64_t d = 0; d < head_dim; ++d) {
    const uint8_t* at = head + Offset(value, token, d);
    if (int8) {
      numbers[d] = Load<float>(head + OffsetOfScale(value, token, d / kGroup)) * Load<int8_t>(at);
    } else if (is_fixed() && value) {
      const float log = Load<float>(head + OffsetOfScale(FixedKvScale::kValueLog2, token));
      numbers[d] = std::exp2(log) * Load<int16_t>(at);
    } else if (is_fixed()) {
      numbers[d] = Load<float>(head + OffsetOfScale(FixedKvScale::kKey, token)) * Load<int16_t>(at);
    } else {
      numbers[d] = f32 ? Load<float>(at) : f16ToF32(Load<uint16_t>(at));
    }
  }
  return numbers;
}

}  // namespace quern::test

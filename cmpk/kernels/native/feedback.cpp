// A tile of columns at a time, which know nothing of each other: its rows stay in cache. A block of rows is
// rounded one by one, then all later rows take its errors up at once.
//
// Compiled without contraction (CMakeLists.txt): a fused multiply and add would round once, not twice.
#include "feedback.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "float_rounding.hpp"
#include "parallel.hpp"
#include "vectors.hpp"

namespace cmpk {

namespace {

constexpr std::size_t kTile = 32;
constexpr std::size_t kBlock = 32;
constexpr float kMaxCode = 1073741824.0f;
// Numbers from here on have no fraction.
constexpr float kWhole = 8388608.0f;

using Line = std::array<float, kTile>;

// std::nearbyint, as a vector: in the default rounding mode the sum is rounded to a whole number.
CMPK_INLINE inline float nearest_code(float x) {
  const float whole = std::copysign(kWhole, x);
  const float rounded = std::fabs(x) < kWhole ? (x + whole) - whole : x;
  return rounded > kMaxCode ? kMaxCode : rounded < -kMaxCode ? -kMaxCode : rounded == rounded ? rounded : 0.0f;
}

CMPK_INLINE inline void round_row(const Feedback& job, std::size_t row, std::size_t first, std::size_t count,
                                  const Line& wanted, Line& errors, std::int32_t* codes) {
  const float* const values = job.values + row * job.columns + first;
  const float* const steps = job.steps + row * job.columns + first;
  std::int32_t* const out = codes + row * job.columns + first;
  for (std::size_t i = 0; i < count; ++i) {
    const float code = nearest_code(wanted[i] / steps[i]);
    errors[i] = values[i] - code * steps[i];
    out[i] = static_cast<std::int32_t>(code);
  }
}

CMPK_INLINE inline void feed_tile(const Feedback& job, std::size_t first, std::size_t count, std::vector<Line>& wanted,
                                  std::int32_t* codes) {
  std::array<Line, kBlock> errors{};
  for (std::size_t row = 0; row < job.rows; ++row) {
    wanted[row].fill(0.0f);
    std::copy_n(job.values + row * job.columns + first, count, wanted[row].begin());
  }
  for (std::size_t start = 0; start < job.rows; start += kBlock) {
    const std::size_t n = std::min(kBlock, job.rows - start);
    for (std::size_t j = 0; j < n; ++j) {
      round_row(job, start + j, first, count, wanted[start + j], errors[j], codes);
      const float* const factors = job.factor + (start + j) * job.rows;
      for (std::size_t row = start + j + 1; row < start + n; ++row) {
        for (std::size_t i = 0; i < kTile; ++i) wanted[row][i] += factors[row] * errors[j][i];
      }
    }
    for (std::size_t row = start + n; row < job.rows; ++row) {
      const float* const factors = job.factor + start * job.rows + row;
      Line sums = wanted[row];
      for (std::size_t j = 0; j < n; ++j) {
        const float factor = factors[j * job.rows];
        for (std::size_t i = 0; i < kTile; ++i) sums[i] += factor * errors[j][i];
      }
      wanted[row] = sums;
    }
  }
}

}  // namespace

void feed_errors(const Feedback& job, std::int32_t* codes, unsigned n_threads) {
  const std::size_t n_tiles = (job.columns + kTile - 1) / kTile;
  parallel_for(n_tiles, n_threads, [&](unsigned, std::size_t tile) {
    const FloatEnvironment environment;
    std::vector<Line> wanted(job.rows);
    const std::size_t first = tile * kTile;
    with_widest_vectors(
        [&]() CMPK_INLINE { feed_tile(job, first, std::min(kTile, job.columns - first), wanted, codes); });
  });
}

}  // namespace cmpk

// The best intervals of numbers on a line; pass share clusters by them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cmpk {

// Sums over all points before each of n places: of their weights, of these times the points, and times
// their squares.
struct Places {
  const double* mass;
  const double* moment;
  const double* square;
  std::size_t n;
};

// Writes where each of the n_intervals with the least squared error begins. 1 <= n_intervals < places.n,
// places.n <= 2^31.
void best_intervals(const Places& places, std::size_t n_intervals, std::int64_t* begins);

}  // namespace cmpk

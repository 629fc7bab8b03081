// Dynamic programming, a layer for each interval. Where the last of them best begins only grows with its
// end, so ends in the middle bound those on either side of them.
//
// Compiled without contraction (CMakeLists.txt): what is rounded otherwise may choose otherwise.
#include "intervals.hpp"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "float_rounding.hpp"

namespace cmpk {

namespace {

// What the points of an interval lie from their mean, squared.
inline double error_of(const Places& places, std::size_t begin, std::size_t end) {
  const double weight = places.mass[end] - places.mass[begin];
  const double first = places.moment[end] - places.moment[begin];
  // Weights that are too small to show in the sums have no say.
  return weight > 0 ? places.square[end] - places.square[begin] - first * first / weight : 0.0;
}

// `best` are the errors up to each place with one interval less; `reached` become those with this one.
void add_layer(const Places& places, std::size_t layer, const std::vector<double>& best, std::vector<double>& reached,
               std::uint32_t* begin) {
  const std::size_t n = places.n;
  std::fill(reached.begin(), reached.end(), std::numeric_limits<double>::infinity());
  std::fill(begin, begin + n, static_cast<std::uint32_t>(layer));
  std::size_t step = 1;
  while (step < n - layer) step *= 2;
  for (; step > 1; step /= 2) {
    const std::size_t half = step / 2;
    for (std::size_t end = layer + half; end < n; end += step) {
      const std::size_t low = end - half > layer ? begin[end - half] : layer;
      const std::size_t high = std::min<std::size_t>(end + half < n ? begin[end + half] : end - 1, end - 1);
      double lowest = std::numeric_limits<double>::infinity();
      std::size_t chosen = low;
      for (std::size_t tried = low; tried <= high; ++tried) {
        const double cost = best[tried] + error_of(places, tried, end);
        if (cost < lowest) {
          lowest = cost;
          chosen = tried;
        }
      }
      reached[end] = lowest;
      begin[end] = static_cast<std::uint32_t>(chosen);
    }
  }
}

}  // namespace

void best_intervals(const Places& places, std::size_t n_intervals, std::int64_t* begins) {
  const FloatEnvironment environment;
  const std::size_t n = places.n;
  std::vector<double> best(n), reached(n);
  for (std::size_t end = 1; end < n; ++end) best[end] = error_of(places, 0, end);
  std::vector<std::uint32_t> begin((n_intervals - 1) * n);
  for (std::size_t layer = 1; layer < n_intervals; ++layer) {
    add_layer(places, layer, best, reached, begin.data() + (layer - 1) * n);
    std::swap(best, reached);
  }
  std::size_t end = n - 1;
  for (std::size_t layer = n_intervals; layer-- > 1;) {
    end = begin[(layer - 1) * n + end];
    begins[layer] = static_cast<std::int64_t>(end);
  }
  begins[0] = 0;
}

}  // namespace cmpk

// Codes whose errors are fed on, and the best intervals of numbers on a line.
#include <algorithm>
#include <cmath>
#include <limits>

#include "case.hpp"
#include "feedback.hpp"
#include "intervals.hpp"

namespace {

using namespace fuzz;

enum : std::size_t { kRows, kColumns, kIntervals, kThreads, kNumbers };
enum : std::size_t { kValues, kStreams };

Case fresh(Random& random) {
  Case input{{random.size(80), random.size(80), random.size(20), random.below(4)}, {{}}};
  input.streams[kValues].resize(static_cast<std::size_t>(1 + random.size(2000)));
  const std::uint64_t limit = random.once_in(2) ? 256 : 1 + random.below(256);
  for (std::uint8_t& byte : input.streams[kValues]) byte = static_cast<std::uint8_t>(random.below(limit));
  return input;
}

Spans spans(const Case&, std::size_t) { return {}; }

void repair(Case&) {}

// Numbers from the bytes, over and over.
class Numbers {
 public:
  explicit Numbers(const Stream& bytes) : bytes_(bytes) {}
  int next() { return bytes_.empty() ? 0 : bytes_[at_++ % bytes_.size()]; }
  float value() { return static_cast<float>(next() - 128) * std::ldexp(1.0f, next() % 8 ? -6 : next() - 128); }

 private:
  const Stream& bytes_;
  std::size_t at_ = 0;
};

void check_feedback(const Case& input) {
  const std::size_t rows = static_cast<std::size_t>(input.numbers[kRows] % 90);
  const std::size_t columns = static_cast<std::size_t>(input.numbers[kColumns] % 90);
  Numbers numbers(input.streams[kValues]);
  std::vector<float> values(rows * columns), steps(rows * columns), factor(rows * rows);
  for (float& value : values) value = numbers.value();
  for (float& step : steps) step = static_cast<float>(1 + numbers.next()) / 64;
  for (float& each : factor) each = numbers.value() / 8;
  const Exact codes(4 * rows * columns);
  cmpk::feed_errors({values.data(), steps.data(), factor.data(), rows, columns},
                    reinterpret_cast<std::int32_t*>(codes.data()),
                    static_cast<unsigned>(1 + input.numbers[kThreads] % 3));
  std::vector<float> errors(rows);
  for (std::size_t column = 0; column < columns; ++column) {
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t at = row * columns + column;
      float wanted = values[at];
      for (std::size_t j = 0; j < row; ++j) {
        const float made_up = factor[j * rows + row] * errors[j];
        wanted += made_up;
      }
      float code = std::nearbyint(wanted / steps[at]);
      code = std::isnan(code) ? 0 : std::clamp(code, -1073741824.0f, 1073741824.0f);
      const float given = code * steps[at];
      errors[row] = values[at] - given;
      std::int32_t found;
      std::memcpy(&found, codes.data() + 4 * at, sizeof found);
      require(found == static_cast<std::int32_t>(code), "a code is that of the value and all errors before it");
    }
  }
}

void check_intervals(const Case& input) {
  Numbers numbers(input.streams[kValues]);
  const std::size_t n = std::min<std::size_t>(input.streams[kValues].size(), 60);
  if (!n) return;
  std::vector<int> points(n);
  for (int& point : points) point = numbers.next();
  std::sort(points.begin(), points.end());
  // Whole numbers: sums of them are exact, and so are equal errors, nearly.
  std::vector<double> mass(n + 1), moment(n + 1), square(n + 1);
  for (std::size_t i = 0; i < n; ++i) {
    const double weight = 1 + numbers.next() % 4;
    mass[i + 1] = mass[i] + weight;
    moment[i + 1] = moment[i] + weight * points[i];
    square[i + 1] = square[i] + weight * points[i] * points[i];
  }
  const std::size_t n_intervals = static_cast<std::size_t>(1 + input.numbers[kIntervals] % n);
  const Exact begins(8 * n_intervals);
  cmpk::best_intervals({mass.data(), moment.data(), square.data(), n + 1}, n_intervals,
                       reinterpret_cast<std::int64_t*>(begins.data()));
  const auto error = [&](std::size_t begin, std::size_t end) {
    const double first = moment[end] - moment[begin];
    return square[end] - square[begin] - first * first / (mass[end] - mass[begin]);
  };
  // All that there are, one interval more at a time.
  std::vector<double> least(n + 1, std::numeric_limits<double>::infinity());
  least[0] = 0;
  for (std::size_t k = 0; k < n_intervals; ++k) {
    for (std::size_t end = n + 1; end-- > 0;) {
      double best = std::numeric_limits<double>::infinity();
      for (std::size_t begin = k; begin < end; ++begin) best = std::min(best, least[begin] + error(begin, end));
      least[end] = best;
    }
  }
  double found = 0;
  std::size_t end = n;
  for (std::size_t k = n_intervals; k-- > 0;) {
    std::int64_t begin;
    std::memcpy(&begin, begins.data() + 8 * k, sizeof begin);
    require(begin >= 0 && static_cast<std::size_t>(begin) < end, "intervals are in order and not empty");
    found += error(static_cast<std::size_t>(begin), end);
    end = static_cast<std::size_t>(begin);
  }
  require(end == 0, "the first interval begins at the start");
  require(found <= least[n] + 1e-6 * (1 + square[n]), "no other intervals have less error");
}

void run(const Case& input) {
  check_feedback(input);
  check_intervals(input);
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, kStreams, fresh, spans, repair, run};

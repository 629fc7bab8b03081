// Encoding narrow: which floats are exact in a narrower type, and both ways.
#include <algorithm>

#include "case.hpp"
#include "slow_floats.hpp"

namespace {

using namespace fuzz;
using cmpk::FloatFormat;

enum : std::size_t { kPair, kRowElements, kNumbers };

struct Pair {
  const FloatFormat& wide;
  const FloatFormat& narrow;
};

Pair pair_of(const Case& input) {
  static const char* const pairs[][2] = {
      {"F32", "F16"}, {"F32", "BF16"}, {"F64", "F16"}, {"F64", "BF16"}, {"F64", "F32"}};
  const auto& names = pairs[input.numbers[kPair] % 5];
  return {cmpk::float_format(names[0]), cmpk::float_format(names[1])};
}

std::uint64_t element(const std::uint8_t* at, const FloatFormat& format) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, at, format.nbytes());
  return bits;
}

Case fresh(Random& random) {
  Case input{{random.below(5), 1 + random.size(600)}, {{}}};
  const Pair pair = pair_of(input);
  Stream& data = input.streams[0];
  const std::uint64_t wide_once_in = random.once_in(2) ? 1 + random.size(2000) : 0;
  for (std::uint64_t n = random.size(2500); n; --n) {
    const bool is_wide = wide_once_in && random.once_in(wide_once_in);
    const std::uint64_t bits =
        is_wide ? fresh_float(random, pair.wide) : slow_widen(fresh_float(random, pair.narrow), pair.narrow, pair.wide);
    data.resize(data.size() + pair.wide.nbytes());
    std::memcpy(data.data() + data.size() - pair.wide.nbytes(), &bits, pair.wide.nbytes());
  }
  return input;
}

Spans spans(const Case& input, std::size_t stream) {
  return {{0, input.streams[stream].size(), pair_of(input).wide.nbytes() == 4 ? Kind::kWords32 : Kind::kWords64}};
}

void repair(Case&) {}

// Any bytes are elements of the narrower type, and come back.
void check_widen(const Pair& pair, const Stream& bytes) {
  const std::size_t n = bytes.size() / pair.narrow.nbytes();
  const Exact narrow(bytes.data(), n * pair.narrow.nbytes());
  const Exact wide(n * pair.wide.nbytes());
  cmpk::widen(narrow.data(), n, pair.narrow, pair.wide, wide.data());
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t bits = element(narrow.data() + i * pair.narrow.nbytes(), pair.narrow);
    require(element(wide.data() + i * pair.wide.nbytes(), pair.wide) == slow_widen(bits, pair.narrow, pair.wide),
            "an element is widened as the page says");
  }
  const Exact again(narrow.size());
  cmpk::narrow(wide.bytes(), pair.wide, pair.narrow, again.data());
  require(again == narrow, "what was widened narrows to what it was");
}

void check_narrow(const Pair& pair, const Exact& data, std::size_t row_elements) {
  const std::size_t n = data.size() / pair.wide.nbytes();
  std::vector<std::uint64_t> expected(n);
  std::vector<bool> is_exact(n);
  for (std::size_t i = 0; i < n; ++i) {
    is_exact[i] =
        slow_narrow(element(data.data() + i * pair.wide.nbytes(), pair.wide), pair.wide, pair.narrow, expected[i]);
  }
  const std::size_t n_rows = n / row_elements;
  const Exact rows(n_rows * sizeof(bool));
  cmpk::narrows_to(data.bytes(), pair.wide, pair.narrow, row_elements, reinterpret_cast<bool*>(rows.data()));
  for (std::size_t row = 0; row < n_rows; ++row) {
    const auto begin = is_exact.begin() + static_cast<std::ptrdiff_t>(row * row_elements);
    const bool all = std::find(begin, begin + static_cast<std::ptrdiff_t>(row_elements), false) ==
                     begin + static_cast<std::ptrdiff_t>(row_elements);
    require(rows.data()[row] == all, "a row narrows if every element does");
  }
  const bool all = std::find(is_exact.begin(), is_exact.end(), false) == is_exact.end();
  const Exact narrow(n * pair.narrow.nbytes());
  try {
    cmpk::narrow(data.bytes(), pair.wide, pair.narrow, narrow.data());
    require(all, "what does not narrow is refused");
  } catch (const std::invalid_argument&) {
    require(!all, "what narrows is not refused");
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    require(element(narrow.data() + i * pair.narrow.nbytes(), pair.narrow) == expected[i],
            "an element narrows to itself");
  }
}

void run(const Case& input) {
  const Pair pair = pair_of(input);
  check_widen(pair, input.streams[0]);
  const std::size_t n = input.streams[0].size() / pair.wide.nbytes();
  const std::size_t row_elements =
      static_cast<std::size_t>(1 + input.numbers[kRowElements] % std::max<std::size_t>(n, 1));
  const std::size_t n_whole = n / row_elements * row_elements;
  check_narrow(pair, Exact(input.streams[0].data(), n_whole * pair.wide.nbytes()), row_elements);
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, 1, fresh, spans, repair, run};

// What rows cost under several tables.
#include "row_costs.hpp"

#include <algorithm>

#include "case.hpp"
#include "slow_floats.hpp"

namespace {

using namespace fuzz;
using cmpk::FloatFormat;

enum : std::size_t { kFormat, kRowElements, kTables, kNumbers };
enum : std::size_t { kData, kCosts, kStreams };

const FloatFormat& format_of(const Case& input) {
  return cmpk::float_format(float_names()[input.numbers[kFormat] % float_names().size()]);
}

Case fresh(Random& random) {
  Case input{{random.below(float_names().size()), random.size(1500), random.below(10)}, {{}, {}}};
  const FloatFormat& format = format_of(input);
  input.streams[kData].resize(format.nbytes() * random.size(3000));
  for (std::uint8_t& byte : input.streams[kData]) byte = static_cast<std::uint8_t>(random.next());
  input.streams[kCosts].resize(1 + random.below(300));
  const bool is_dear = random.once_in(2);
  for (std::uint8_t& byte : input.streams[kCosts]) byte = is_dear ? 255 : static_cast<std::uint8_t>(random.next());
  return input;
}

Spans spans(const Case&, std::size_t) { return {}; }

void repair(Case&) {}

void run(const Case& input) {
  const FloatFormat& format = format_of(input);
  const std::size_t nbytes = format.nbytes();
  const std::size_t n = input.streams[kData].size() / nbytes;
  const std::size_t row_elements =
      static_cast<std::size_t>(1 + input.numbers[kRowElements] % std::max<std::size_t>(n, 1));
  const std::size_t n_rows = n / row_elements;
  const std::size_t n_tables = static_cast<std::size_t>(input.numbers[kTables] % 34);
  const Exact data(input.streams[kData].data(), n_rows * row_elements * nbytes);
  const std::size_t n_exponents = std::size_t{1} << format.exponent_nbits;
  const Exact costs(n_tables * n_exponents);
  const Stream& given = input.streams[kCosts];
  for (std::size_t i = 0; i < costs.size() && !given.empty(); ++i) costs.data()[i] = given[i % given.size()];
  const Exact sums(8 * n_rows * n_tables);
  cmpk::row_costs(data.bytes(),
                  {static_cast<unsigned>(nbytes), format.exponent_nbits, format.mantissa_nbits, row_elements,
                   costs.data(), n_tables},
                  reinterpret_cast<std::uint64_t*>(sums.data()));
  std::vector<std::uint64_t> expected(n_rows * n_tables);
  for (std::size_t i = 0; i < n_rows * row_elements; ++i) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, data.data() + i * nbytes, nbytes);
    const std::size_t exponent = static_cast<std::size_t>(bits >> format.mantissa_nbits & (n_exponents - 1));
    for (std::size_t t = 0; t < n_tables; ++t)
      expected[i / row_elements * n_tables + t] += costs.data()[t * n_exponents + exponent];
  }
  require(sums.size() == 0 || !std::memcmp(sums.data(), expected.data(), sums.size()),
          "a row costs the sum of its exponents");
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, kStreams, fresh, spans, repair, run};

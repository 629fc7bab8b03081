// Encoding float_split: parts by the page, counts, and elements put together again.
#include <algorithm>

#include "case.hpp"
#include "slow_floats.hpp"

namespace {

using namespace fuzz;
using cmpk::FloatFormat;
using cmpk::FloatLayout;

enum : std::size_t { kFormat, kMantissaBits, kBase, kRowElements, kNumbers };

const FloatFormat& format_of(const Case& input) {
  return cmpk::float_format(float_names()[input.numbers[kFormat] % float_names().size()]);
}

Case fresh(Random& random) {
  Case input{{random.below(float_names().size()), 0, 0, random.size(1500)}, {{}}};
  const FloatFormat& format = format_of(input);
  input.numbers[kMantissaBits] = random.below(1 + std::min(format.mantissa_nbits, 16 - format.exponent_nbits));
  const std::uint64_t n_upper = std::uint64_t{1} << (format.exponent_nbits + input.numbers[kMantissaBits]);
  input.numbers[kBase] = n_upper > 256 ? random.below(n_upper - 255) : 0;
  Stream& data = input.streams[0];
  for (std::uint64_t n = random.size(3000); n; --n) {
    const std::uint64_t bits = fresh_float(random, format);
    data.resize(data.size() + format.nbytes());
    std::memcpy(data.data() + data.size() - format.nbytes(), &bits, format.nbytes());
  }
  return input;
}

Spans spans(const Case&, std::size_t) { return {}; }

void repair(Case& input) {
  const FloatFormat& format = format_of(input);
  input.numbers[kMantissaBits] %= 1 + std::min(format.mantissa_nbits, 16 - format.exponent_nbits);
  const std::uint64_t n_upper = std::uint64_t{1} << (format.exponent_nbits + input.numbers[kMantissaBits]);
  input.numbers[kBase] %= n_upper > 256 ? n_upper - 255 : 1;
}

struct Parts {
  Exact high;
  Exact rest;
  cmpk::FloatExceptions exceptions;
};

// Every part by the page, element by element, and the elements that they make again.
void check_parts(const FloatFormat& format, const FloatLayout& layout, unsigned mantissa_bits, const Exact& data,
                 const Parts& parts) {
  const std::size_t n = data.size() / format.nbytes();
  std::size_t exception = 0;
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, data.data() + i * format.nbytes(), format.nbytes());
    std::uint64_t q = 0;
    for (unsigned j = 0; j < layout.n_rest; ++j) q |= std::uint64_t{parts.rest.data()[j * n + i]} << (8 * j);
    require(layout.rest_nbits == 64 || !(q >> layout.rest_nbits), "the rest has no bits too many");
    std::uint64_t high = parts.high.data()[i] + std::uint64_t{layout.base};
    if (exception < parts.exceptions.index.size() && parts.exceptions.index[exception] == i) {
      require(parts.high.data()[i] == 0, "at an exception high is 0");
      high = parts.exceptions.high[exception++];
      require(high < layout.base || high - layout.base > 255, "what fits a byte is no exception");
    }
    require(slow_merge(format, mantissa_bits, high, q) == bits, "the parts make up the element");
  }
  require(exception == parts.exceptions.index.size() && exception == parts.exceptions.high.size(), "exceptions ascend");
}

void check_merge(const FloatLayout& layout, const Exact& data, const Parts& parts) {
  const std::size_t n = data.size() / layout.nbytes;
  const std::uint8_t* rest[cmpk::kMaxRest] = {};
  for (unsigned j = 0; j < layout.n_rest; ++j) rest[j] = parts.rest.data() + j * n;
  const Exact merged(data.size());
  cmpk::float_merge_of(layout)(layout, parts.high.data(), rest, n, merged.data());
  for (const std::uint64_t i : parts.exceptions.index) {
    std::memcpy(merged.data() + i * layout.nbytes, data.data() + i * layout.nbytes, layout.nbytes);
  }
  require(merged == data, "what was split is merged to what it was");
}

void check_counts(const FloatLayout& layout, const Exact& data) {
  std::vector<std::uint64_t> expected(std::size_t{1} << layout.upper_nbits);
  for (std::size_t at = 0; at < data.size(); at += layout.nbytes) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, data.data() + at, layout.nbytes);
    ++expected[static_cast<std::size_t>(bits >> layout.lower_nbits & (expected.size() - 1))];
  }
  const Exact counts(8 * expected.size());
  cmpk::upper_bits_histogram(data.bytes(), layout, reinterpret_cast<std::uint64_t*>(counts.data()));
  require(!std::memcmp(counts.data(), expected.data(), counts.size()), "upper bits are counted");
}

void check_exponents(const FloatFormat& format, const cmpk::PickedRows& picked, const Exact& copy, const Exact& data) {
  const std::size_t limit = picked.row_elements * 2 / 3, n_exponents = std::size_t{1} << format.exponent_nbits;
  const Exact counts(4 * picked.n_rows() * n_exponents);
  cmpk::exponent_histograms(data.bytes(), format, picked, limit, reinterpret_cast<std::uint32_t*>(counts.data()));
  std::vector<std::uint32_t> expected(picked.n_rows() * n_exponents);
  for (std::size_t i = 0; i < picked.n_rows() * limit; ++i) {
    const std::size_t row = i / limit, at = (row * picked.row_elements + i % limit) * format.nbytes();
    std::uint64_t bits = 0;
    std::memcpy(&bits, copy.data() + at, format.nbytes());
    ++expected[row * n_exponents + static_cast<std::size_t>(bits >> format.mantissa_nbits & (n_exponents - 1))];
  }
  require(!counts.size() || !std::memcmp(counts.data(), expected.data(), counts.size()), "exponents of rows are counted");
}

// Rows here and there, and two neighbours, are split as a copy of them is.
void check_picked(const Case& input, const FloatLayout& layout, const Exact& data) {
  const std::size_t n = data.size() / layout.nbytes;
  const std::size_t row_elements =
      static_cast<std::size_t>(1 + input.numbers[kRowElements] % std::max<std::size_t>(n, 1));
  const std::size_t n_rows = n / row_elements, row_nbytes = row_elements * layout.nbytes;
  std::vector<std::uint32_t> rows;
  for (std::size_t row = n_rows & 1; row < n_rows; row += 1 + row % 3) rows.push_back(static_cast<std::uint32_t>(row));
  const Exact copy(rows.size() * row_nbytes);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(copy.data() + i * row_nbytes, data.data() + rows[i] * row_nbytes, row_nbytes);
  }
  const Exact index(reinterpret_cast<const std::uint8_t*>(rows.data()), 4 * rows.size());
  const cmpk::PickedRows picked{index.bytes(), row_elements};
  const std::size_t n_picked = rows.size() * row_elements;
  const Parts expected{Exact(n_picked), Exact(n_picked * layout.n_rest), {}};
  const Parts found{Exact(n_picked), Exact(n_picked * layout.n_rest), {}};
  const auto of_copy = cmpk::float_split(copy.bytes(), layout, expected.high.data(), expected.rest.data());
  const auto of_rows = cmpk::float_split(data.bytes(), layout, found.high.data(), found.rest.data(), &picked);
  require(found.high == expected.high && found.rest == expected.rest && of_rows.index == of_copy.index &&
              of_rows.high == of_copy.high,
          "rows are split as a copy of them is");
  check_exponents(format_of(input), picked, copy, data);
}

void run(const Case& input) {
  const FloatFormat& format = format_of(input);
  std::unique_ptr<const FloatLayout> layout;
  try {
    layout = std::make_unique<FloatLayout>(format, static_cast<std::int64_t>(input.numbers[kMantissaBits]),
                                           static_cast<std::int64_t>(input.numbers[kBase]));
  } catch (const std::invalid_argument&) {
    return;
  }
  const std::size_t n = input.streams[0].size() / format.nbytes();
  const Exact data(input.streams[0].data(), n * format.nbytes());
  Parts parts{Exact(n), Exact(n * layout->n_rest), {}};
  parts.exceptions = cmpk::float_split(data.bytes(), *layout, parts.high.data(), parts.rest.data());
  check_parts(format, *layout, static_cast<unsigned>(input.numbers[kMantissaBits]), data, parts);
  check_merge(*layout, data, parts);
  check_counts(*layout, data);
  check_picked(input, *layout, data);
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, 1, fresh, spans, repair, run};

// Products of matrices, rounded to each type.
#include "product.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "case.hpp"
#include "slow_floats.hpp"

namespace {

using namespace fuzz;
using cmpk::FloatFormat;

enum : std::size_t { kFormat, kRank, kColumns, kThreads, kNumbers };
enum : std::size_t { kLeft, kRight, kStreams };

const std::array<const char*, 4> kFormats = {"F16", "BF16", "F32", "F64"};

Case fresh(Random& random) {
  Case input{{random.below(4), random.size(20), random.size(1200), random.below(4)}, {{}, {}}};
  const FloatFormat& format = cmpk::float_format("F32");
  for (Stream& stream : input.streams) {
    const std::size_t n = static_cast<std::size_t>(random.size(&stream == &input.streams[kLeft] ? 600 : 6000));
    // Sums of like size cancel and round; floats of any kind hardly ever meet.
    const std::uint32_t exponent = static_cast<std::uint32_t>(random.below(255));
    const bool is_like = !random.once_in(3);
    stream.resize(4 * n);
    for (std::size_t i = 0; i < n; ++i) {
      std::uint32_t bits = static_cast<std::uint32_t>(fresh_float(random, format));
      if (is_like) bits = (bits & 0x807fffff) | exponent << 23;
      std::memcpy(stream.data() + 4 * i, &bits, sizeof bits);
    }
  }
  return input;
}

Spans spans(const Case& input, std::size_t stream) { return {{0, input.streams[stream].size(), Kind::kWords32}}; }

void repair(Case&) {}

float at(const Exact& matrix, std::size_t i) {
  float value;
  std::memcpy(&value, matrix.data() + 4 * i, sizeof value);
  return value;
}

// A number of the type that is nearest, ties to even; affine.md.
double nearest(double x, const FloatFormat& format) {
  if (x == 0 || std::isinf(x)) return x;
  const int bias = (1 << (format.exponent_nbits - 1)) - 1;
  int exponent;
  std::frexp(x, &exponent);
  const int unit = std::max(exponent - 1, 1 - bias) - static_cast<int>(format.mantissa_nbits);
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
  const double limit = std::ldexp(2 - std::ldexp(1.0, -static_cast<int>(format.mantissa_nbits)), bias);
  return std::fabs(rounded) > limit ? std::copysign(std::numeric_limits<double>::infinity(), x) : rounded;
}

double value_of(const Exact& out, std::size_t i, const FloatFormat& format) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, out.data() + i * format.nbytes(), format.nbytes());
  const std::uint64_t wide = format.name == "F64" ? bits : slow_widen(bits, format, cmpk::float_format("F64"));
  double value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

void run(const Case& input) {
  const FloatFormat& format = cmpk::float_format(kFormats[input.numbers[kFormat] % kFormats.size()]);
  const std::size_t given = input.streams[kLeft].size() / 4;
  const std::size_t rank = static_cast<std::size_t>(1 + input.numbers[kRank] % std::max<std::size_t>(given, 1));
  const std::size_t rows = given / rank;
  const std::size_t columns = std::min<std::size_t>(input.streams[kRight].size() / 4 / rank, 2000);
  if (!rows || !columns || rows * columns * rank > 200000) return;
  const Exact left(input.streams[kLeft].data(), 4 * rows * rank);
  const Exact right(input.streams[kRight].data(), 4 * rank * columns);
  const Exact out(rows * columns * format.nbytes());
  cmpk::matrix_product(left.bytes(), right.bytes(), rank, format, out.data(),
                       static_cast<unsigned>(1 + input.numbers[kThreads] % 3));
  for (std::size_t i = 0; i < rows * columns; ++i) {
    float sum = 0;
    for (std::size_t k = 0; k < rank; ++k) {
      const float product = at(left, i / columns * rank + k) * at(right, k * columns + i % columns);
      sum += product;
    }
    const double found = value_of(out, i, format);
    if (std::isnan(sum)) {
      require(std::isnan(found), "what is no number stays none");
      continue;
    }
    const double wanted = nearest(sum, format);
    require(found == wanted && std::signbit(found) == std::signbit(wanted),
            "an element is the sum of the products, in order, each rounded");
  }
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, kStreams, fresh, spans, repair, run};

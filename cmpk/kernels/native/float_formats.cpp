// The types that float_split takes, and how it divides their bits.
#include "floats.hpp"

#include <algorithm>

namespace cmpk {

namespace {

constexpr FloatFormat kFormats[] = {
    {"F8_E4M3", 4, 3},     {"F8_E5M2", 5, 2}, {"F8_E4M3FNUZ", 4, 3}, {"F8_E5M2FNUZ", 5, 2},
    {"F16", 5, 10},        {"BF16", 8, 7},    {"F32", 8, 23},        {"F64", 11, 52},
};

}  // namespace

const FloatFormat& float_format(std::string_view name) {
  for (const FloatFormat& format : kFormats) {
    if (format.name == name) return format;
  }
  throw std::invalid_argument("no float_split for dtype '" + std::string(name) + "'");
}

bool may_narrow(const FloatFormat& wide, const FloatFormat& narrower) {
  if (wide.name == "F32") return narrower.name == "F16" || narrower.name == "BF16";
  return wide.name == "F64" && (narrower.name == "F16" || narrower.name == "BF16" || narrower.name == "F32");
}

FloatLayout::FloatLayout(const FloatFormat& format, std::int64_t mantissa_bits, std::int64_t base_parameter) {
  const unsigned max_bits = std::min(format.mantissa_nbits, 16 - format.exponent_nbits);
  if (mantissa_bits < 0 || mantissa_bits > max_bits) {
    throw std::invalid_argument("mantissa_bits is " + std::to_string(mantissa_bits) + "; " +
                                std::string(format.name) + " takes 0 .. " + std::to_string(max_bits));
  }
  const std::int64_t upper = format.exponent_nbits + mantissa_bits;
  const std::int64_t max_base = std::max<std::int64_t>(0, (std::int64_t{1} << upper) - 256);
  if (base_parameter < 0 || base_parameter > max_base) {
    throw std::invalid_argument("base is " + std::to_string(base_parameter) + "; with " + std::to_string(upper) +
                                " upper bits it is 0 .. " + std::to_string(max_base));
  }
  nbytes = format.nbytes();
  upper_nbits = static_cast<unsigned>(upper);
  rest_nbits = 8 * nbytes - upper_nbits;
  lower_nbits = rest_nbits - 1;
  n_rest = (rest_nbits + 7) / 8;
  base = static_cast<unsigned>(base_parameter);
}

}  // namespace cmpk

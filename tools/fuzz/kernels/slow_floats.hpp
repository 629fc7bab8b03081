// Encodings float_split and narrow by the letter of their pages, one element at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "floats.hpp"
#include "random.hpp"

namespace fuzz {

const std::vector<const char*>& float_names();

// The element of the parts `high` + base and q (spec/encodings/float_split.md).
inline std::uint64_t slow_merge(const cmpk::FloatFormat& format, unsigned mantissa_bits, std::uint64_t high,
                                std::uint64_t q) {
  const unsigned nbits = 8 * format.nbytes();
  const unsigned lower = format.mantissa_nbits - mantissa_bits;
  const std::uint64_t mask = (std::uint64_t{1} << lower) - 1;
  return q >> lower << (nbits - 1) | high << lower | (q & mask);
}

// The same number in the wider type (spec/encodings/narrow.md).
std::uint64_t slow_widen(std::uint64_t narrow, const cmpk::FloatFormat& from, const cmpk::FloatFormat& to);

// Whether an element of the wider type is exactly one of the narrower type; if so, which.
bool slow_narrow(std::uint64_t wide, const cmpk::FloatFormat& from, const cmpk::FloatFormat& to, std::uint64_t& narrow);

// Bits of a float of any kind: special, subnormal, of few exponents, or just any.
std::uint64_t fresh_float(Random& random, const cmpk::FloatFormat& format);

}  // namespace fuzz

// Encodings float_split and narrow by the letter of their pages, one element at a time.
#include "slow_floats.hpp"

namespace fuzz {

namespace {

// The fields of a float; the exponent with its bias.
struct Fields {
  std::uint64_t sign;
  std::int64_t exponent;
  std::uint64_t mantissa;
};

std::int64_t largest_exponent(const cmpk::FloatFormat& format) {
  return (std::int64_t{1} << format.exponent_nbits) - 1;
}

std::int64_t bias(const cmpk::FloatFormat& format) { return largest_exponent(format) / 2; }

Fields fields_of(std::uint64_t bits, const cmpk::FloatFormat& format) {
  return {bits >> (format.exponent_nbits + format.mantissa_nbits) & 1,
          static_cast<std::int64_t>(bits >> format.mantissa_nbits) & largest_exponent(format),
          bits & ((std::uint64_t{1} << format.mantissa_nbits) - 1)};
}

std::uint64_t bits_of(const Fields& fields, const cmpk::FloatFormat& format) {
  return fields.sign << (format.exponent_nbits + format.mantissa_nbits) |
         static_cast<std::uint64_t>(fields.exponent) << format.mantissa_nbits | fields.mantissa;
}

}  // namespace

const std::vector<const char*>& float_names() {
  static const std::vector<const char*> names{"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                                              "F16",     "BF16",    "F32",         "F64"};
  return names;
}

std::uint64_t slow_widen(std::uint64_t narrow, const cmpk::FloatFormat& from, const cmpk::FloatFormat& to) {
  Fields fields = fields_of(narrow, from);
  const std::int64_t rebias = bias(to) - bias(from);
  if (fields.exponent == largest_exponent(from)) {
    fields.exponent = largest_exponent(to);
  } else if (fields.exponent) {
    fields.exponent += rebias;
  } else if (fields.mantissa && rebias) {
    // Normal in the wider type: its leading bit moves up to where it is not written.
    fields.exponent = 1 + rebias;
    for (; !(fields.mantissa >> from.mantissa_nbits); fields.mantissa <<= 1) --fields.exponent;
    fields.mantissa ^= std::uint64_t{1} << from.mantissa_nbits;
  }
  fields.mantissa <<= to.mantissa_nbits - from.mantissa_nbits;
  return bits_of(fields, to);
}

bool slow_narrow(std::uint64_t wide, const cmpk::FloatFormat& from, const cmpk::FloatFormat& to,
                 std::uint64_t& narrow) {
  Fields fields = fields_of(wide, from);
  const std::int64_t rebias = bias(from) - bias(to);
  unsigned dropped = from.mantissa_nbits - to.mantissa_nbits;
  if (fields.exponent == largest_exponent(from)) {
    fields.exponent = largest_exponent(to);
  } else if (rebias && fields.exponent) {
    fields.exponent -= rebias;
    if (fields.exponent >= largest_exponent(to)) return false;
    if (fields.exponent < 1) {
      const std::int64_t more = 1 - fields.exponent;
      if (more > to.mantissa_nbits) return false;
      fields.mantissa |= std::uint64_t{1} << from.mantissa_nbits;
      fields.exponent = 0;
      dropped += static_cast<unsigned>(more);
    }
  } else if (rebias && fields.mantissa) {
    return false;  // a subnormal number of a type of more exponents is too small for the other one
  }
  if (fields.mantissa & ((std::uint64_t{1} << dropped) - 1)) return false;
  fields.mantissa >>= dropped;
  narrow = bits_of(fields, to);
  return true;
}

std::uint64_t fresh_float(Random& random, const cmpk::FloatFormat& format) {
  Fields fields = fields_of(random.next(), format);
  const std::int64_t largest = largest_exponent(format);
  switch (random.below(8)) {
    case 0:
      fields.exponent = 0;
      break;
    case 1:
      fields.exponent = largest;
      break;
    case 2:
      break;
    default:
      fields.exponent = (bias(format) - 4 + static_cast<std::int64_t>(random.below(8))) & largest;
      break;
  }
  if (random.once_in(4)) fields.mantissa = random.size(fields.mantissa);
  if (random.once_in(8)) fields.mantissa = 0;
  return bits_of(fields, format);
}

}  // namespace fuzz

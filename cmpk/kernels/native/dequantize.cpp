// Encodings affine and cast: codes to elements.
#include "dequantize.hpp"

#include <algorithm>
#include <cmath>

#include "float_rounding.hpp"
#include "vectors.hpp"

namespace cmpk {

namespace {

// Arguments by value: a byte that is stored might be one of a captured variable's.
template <class To>
CMPK_INLINE inline void loop_all(const std::uint8_t* codes, std::size_t n, std::int32_t first, float scale,
                                 std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    const float product = static_cast<float>(codes[i] + first) * scale;
    store(out + i * sizeof(typename To::Word), To::round(product));
  }
}

template <class To>
CMPK_INLINE inline void loop_each(const std::uint8_t* codes, std::size_t n, const std::int32_t* first,
                                  const float* scale, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    const float product = static_cast<float>(codes[i] + first[i]) * scale[i];
    store(out + i * sizeof(typename To::Word), To::round(product));
  }
}

// A small float of a sign, 7 - kMantissa bits of exponent and kMantissa bits.
template <unsigned kMantissa, int kBias, std::uint8_t kFinite>
struct Small {
  // Magnitudes from that one on are no finite numbers.
  static constexpr std::uint8_t finite = kFinite;
  // 2^(127 - kBias): what lies between the number of a code and the float that has the same sign, mantissa
  // and, as a number, exponent. That one is subnormal where the small one is, so that these need nothing else.
  static float rebias() { return bit_cast<float>(static_cast<std::uint32_t>(254 - kBias) << 23); }

  CMPK_INLINE static float same_bits(std::uint8_t code) {
    constexpr unsigned shift = 23 - kMantissa;
    // The sign is extended upwards; between it and the exponent its copies go.
    const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(static_cast<std::int8_t>(code)));
    return bit_cast<float>(bits << shift & (0x80000000 | 0x7fu << shift));
  }
};

using E4M3 = Small<3, 7, 0x7f>;
using E5M2 = Small<2, 15, 0x7c>;

template <class To, class From>
CMPK_INLINE inline void loop_widened(const std::uint8_t* codes, std::size_t n, float scale, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    store(out + i * sizeof(typename To::Word), To::round(From::same_bits(codes[i]) * scale));
  }
}

CMPK_INLINE inline std::uint8_t largest_magnitude(const std::uint8_t* codes, std::size_t n) {
  std::uint8_t largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint8_t magnitude = codes[i] & 0x7f;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

template <class To>
CMPK_INLINE inline void loop_products(const float* numbers, std::size_t n, float scale, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    store(out + i * sizeof(typename To::Word), round_any<To>(numbers[i] * scale));
  }
}

template <class To>
CMPK_INLINE inline void loop_products_each(const float* numbers, std::size_t n, const float* scale,
                                           std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    store(out + i * sizeof(typename To::Word), round_any<To>(numbers[i] * scale[i]));
  }
}

// Looked up aside, for what looks up does not become vectors and the rest does. Calls
// `multiply(at, n, found)` for every run.
template <class Multiply>
void look_up_aside(const std::uint8_t* codes, std::size_t n, const float* numbers, const Multiply& multiply) {
  constexpr std::size_t kAside = 512;
  float found[kAside];
  for (std::size_t at = 0; at < n; at += kAside) {
    const std::size_t length = std::min(kAside, n - at);
    for (std::size_t i = 0; i < length; ++i) found[i] = numbers[codes[at + i]];
    multiply(at, length, found);
  }
}

template <class To>
void look_up(const std::uint8_t* codes, std::size_t n, const float* numbers, float scale, std::uint8_t* out) {
  look_up_aside(codes, n, numbers, [&](std::size_t at, std::size_t length, const float* found) {
    std::uint8_t* const to = out + at * sizeof(typename To::Word);
    with_widest_vectors([&]() CMPK_INLINE { loop_products<To>(found, length, scale, to); });
  });
}

// The same for a table of the numbers of a small float, which arithmetic finds faster.
template <class To, class From>
void widen_all(const std::uint8_t* codes, std::size_t n, const float* numbers, float scale, std::uint8_t* out) {
  // Exact, unless it is infinite: powers of two make no number too small.
  const float both = scale * From::rebias();
  std::uint8_t largest = 0;
  with_widest_vectors([&]() CMPK_INLINE { largest = largest_magnitude(codes, n); });
  if (largest >= From::finite || !std::isfinite(both)) return look_up<To>(codes, n, numbers, scale, out);
  with_widest_vectors([&]() CMPK_INLINE { loop_widened<To, From>(codes, n, both, out); });
}

template <class From>
bool is_table_of(const float* numbers) {
  const FloatEnvironment environment;
  for (unsigned code = 0; code < 256; ++code) {
    if ((code & 0x7f) >= From::finite) continue;
    const float number = From::same_bits(static_cast<std::uint8_t>(code)) * From::rebias();
    if (bit_cast<std::uint32_t>(numbers[code]) != bit_cast<std::uint32_t>(number)) return false;
  }
  return true;
}

template <class To>
void look_up_each(const std::uint8_t* codes, std::size_t n, const float* numbers, const float* scale,
                  std::uint8_t* out) {
  look_up_aside(codes, n, numbers, [&](std::size_t at, std::size_t length, const float* found) {
    std::uint8_t* const to = out + at * sizeof(typename To::Word);
    with_widest_vectors([&]() CMPK_INLINE { loop_products_each<To>(found, length, scale + at, to); });
  });
}

template <class To>
void dequantize_all(const std::uint8_t* codes, std::size_t n, std::int32_t first, float scale, std::uint8_t* out) {
  with_widest_vectors([&]() CMPK_INLINE { loop_all<To>(codes, n, first, scale, out); });
}

template <class To>
void dequantize_each(const std::uint8_t* codes, std::size_t n, const std::int32_t* first, const float* scale,
                     std::uint8_t* out) {
  with_widest_vectors([&]() CMPK_INLINE { loop_each<To>(codes, n, first, scale, out); });
}

template <class To>
void dequantize_one(std::int32_t distance, float scale, std::uint8_t* out) {
  store(out, To::round(static_cast<float>(distance) * scale));
}

}  // namespace

Dequantizer dequantizer_of(const FloatFormat& format) {
  return with_rounding(format.name, [](auto to) {
    using To = decltype(to);
    return Dequantizer{dequantize_all<To>, dequantize_each<To>, dequantize_one<To>, look_up_each<To>};
  });
}

LookUp look_up_of(const FloatFormat& format, const float* numbers) {
  return with_rounding(format.name, [&](auto to) -> LookUp {
    using To = decltype(to);
    if (is_table_of<E4M3>(numbers)) return widen_all<To, E4M3>;
    if (is_table_of<E5M2>(numbers)) return widen_all<To, E5M2>;
    return look_up<To>;
  });
}

}  // namespace cmpk

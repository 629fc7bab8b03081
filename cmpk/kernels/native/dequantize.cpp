// Encodings affine and cast: codes to elements.
#include "dequantize.hpp"

#include <algorithm>

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
    return Dequantizer{dequantize_all<To>, dequantize_each<To>, dequantize_one<To>, look_up<To>,
                       look_up_each<To>};
  });
}

}  // namespace cmpk

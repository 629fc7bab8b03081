// Encoding affine: codes to elements.
#include "dequantize.hpp"

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
    return Dequantizer{dequantize_all<To>, dequantize_each<To>, dequantize_one<To>};
  });
}

}  // namespace cmpk

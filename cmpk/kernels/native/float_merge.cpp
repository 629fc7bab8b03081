// Encoding float_split: putting elements together.
#include "floats.hpp"
#include "static_shift.hpp"
#include "vectors.hpp"

namespace cmpk {

namespace {

CMPK_INLINE inline std::uint8_t all_bits(const std::uint8_t* octets, std::size_t n) {
  std::uint8_t bits = 0;
  for (std::size_t i = 0; i < n; ++i) bits |= octets[i];
  return bits;
}

// Sign and lower bits, as they stand in the rest, around the upper bits.
template <unsigned kLower>
CMPK_INLINE inline std::uint16_t merge_16(unsigned high, unsigned rest, unsigned base) {
  const unsigned sign = rest >> kLower << 15;
  return static_cast<std::uint16_t>(sign | (high + base) << kLower | (rest & ((1u << kLower) - 1)));
}

// BF16, and F16 from mantissa_bits 3 on.
template <unsigned kLower>
CMPK_INLINE inline void merge_2_bytes_1_rest(unsigned base, const std::uint8_t* high, const std::uint8_t* rest0,
                                             std::size_t n, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) store(out + 2 * i, merge_16<kLower>(high[i], rest0[i], base));
}

template <unsigned kLower>
CMPK_INLINE inline void merge_2_bytes_2_rest(unsigned base, const std::uint8_t* high, const std::uint8_t* rest0,
                                             const std::uint8_t* rest1, std::size_t n, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    // At an exception `high` may be anything; no bit of it must reach the sign.
    const unsigned upper = high[i] & (0x7fffu >> kLower);
    store(out + 2 * i, merge_16<kLower>(upper, rest0[i] | unsigned{rest1[i]} << 8, base));
  }
}

// The two lower bytes of an F32 are whole planes; the upper half is merged like a BF16.
template <unsigned kLower>
CMPK_INLINE inline void merge_4_bytes_3_rest(unsigned base, const std::uint8_t* high, const std::uint8_t* const* rest,
                                             std::size_t n, std::uint8_t* out) {
  const std::uint8_t* const rest0 = rest[0];
  const std::uint8_t* const rest1 = rest[1];
  const std::uint8_t* const rest2 = rest[2];
  for (std::size_t i = 0; i < n; ++i) {
    store(out + 4 * i, static_cast<std::uint16_t>(rest0[i] | unsigned{rest1[i]} << 8));
    store(out + 4 * i + 2, merge_16<kLower>(high[i], rest2[i], base));
  }
}

// Any layout, with the specification's formula.
template <class Word>
CMPK_INLINE inline void merge_any(const FloatLayout& layout, const std::uint8_t* high,
                                  const std::uint8_t* const* rest, std::size_t n, std::uint8_t* out) {
  // Copies, for a byte that is stored might be one of the layout's.
  const unsigned lower = layout.lower_nbits;
  const unsigned n_rest = layout.n_rest;
  const unsigned base = layout.base;
  const unsigned sign_shift = 8 * sizeof(Word) - 1;
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t q = 0;
    for (unsigned j = 0; j < n_rest; ++j) q |= std::uint64_t{rest[j][i]} << (8 * j);
    const std::uint64_t sign = q >> lower << sign_shift;
    // At an exception `high` may be anything; no bit of it must reach the sign.
    const std::uint64_t upper = std::uint64_t{high[i] + base} << lower & ((std::uint64_t{1} << sign_shift) - 1);
    store(out + i * sizeof(Word), static_cast<Word>(sign | upper | (q & ((std::uint64_t{1} << lower) - 1))));
  }
}

CMPK_INLINE inline SeenBits merge(const FloatLayout& layout, const std::uint8_t* high, const std::uint8_t* const* rest,
                                  std::size_t n, std::uint8_t* out) {
  const unsigned lower = layout.lower_nbits;
  const unsigned base = layout.base;
  if (layout.nbytes == 2 && layout.n_rest == 1) {
    with_constant<0, 7>(lower, [&](auto k) CMPK_INLINE { merge_2_bytes_1_rest<k>(base, high, rest[0], n, out); });
  } else if (layout.nbytes == 2) {
    with_constant<8, 10>(
        lower, [&](auto k) CMPK_INLINE { merge_2_bytes_2_rest<k>(base, high, rest[0], rest[1], n, out); });
  } else if (layout.nbytes == 4 && layout.n_rest == 3) {
    with_constant<0, 7>(lower - 16, [&](auto k) CMPK_INLINE { merge_4_bytes_3_rest<k>(base, high, rest, n, out); });
  } else if (layout.nbytes == 1) {
    merge_any<std::uint8_t>(layout, high, rest, n, out);
  } else if (layout.nbytes == 4) {
    merge_any<std::uint32_t>(layout, high, rest, n, out);
  } else {
    merge_any<std::uint64_t>(layout, high, rest, n, out);
  }
  // Only bits that must be zero matter to the caller; where there are none, nothing is read.
  SeenBits seen{0, 0};
  if (layout.upper_nbits < 8) seen.high = all_bits(high, n);
  if (layout.rest_nbits % 8) seen.last_rest = all_bits(rest[layout.n_rest - 1], n);
  return seen;
}

}  // namespace

SeenBits float_merge(const FloatLayout& layout, const std::uint8_t* high, const std::uint8_t* const* rest,
                     std::size_t n, std::uint8_t* out) {
  SeenBits seen;
  with_widest_vectors([&]() CMPK_INLINE { seen = merge(layout, high, rest, n, out); });
  return seen;
}

}  // namespace cmpk

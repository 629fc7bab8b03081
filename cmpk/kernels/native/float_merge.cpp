// Encoding float_split: putting elements together.
#include "floats.hpp"
#include "static_shift.hpp"
#include "vectors.hpp"

namespace cmpk {

namespace {

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

// A loop over elements with a constant shift, compiled for the widest vectors.
template <unsigned kLower>
void merge_2_1(const FloatLayout& layout, const std::uint8_t* high, const std::uint8_t* const* rest, std::size_t n,
               std::uint8_t* out) {
  with_widest_vectors([&]() CMPK_INLINE { merge_2_bytes_1_rest<kLower>(layout.base, high, rest[0], n, out); });
}

template <unsigned kLower>
void merge_2_2(const FloatLayout& layout, const std::uint8_t* high, const std::uint8_t* const* rest, std::size_t n,
               std::uint8_t* out) {
  with_widest_vectors([&]() CMPK_INLINE { merge_2_bytes_2_rest<kLower>(layout.base, high, rest[0], rest[1], n, out); });
}

template <unsigned kLower>
void merge_4_3(const FloatLayout& layout, const std::uint8_t* high, const std::uint8_t* const* rest, std::size_t n,
               std::uint8_t* out) {
  with_widest_vectors([&]() CMPK_INLINE { merge_4_bytes_3_rest<kLower>(layout.base, high, rest, n, out); });
}

template <class Word>
void merge_general(const FloatLayout& layout, const std::uint8_t* high, const std::uint8_t* const* rest, std::size_t n,
                   std::uint8_t* out) {
  with_widest_vectors([&]() CMPK_INLINE { merge_any<Word>(layout, high, rest, n, out); });
}

}  // namespace

FloatMerge float_merge_of(const FloatLayout& layout) {
  FloatMerge found = nullptr;
  if (layout.nbytes == 2 && layout.n_rest == 1) {
    with_constant<0, 7>(layout.lower_nbits, [&](auto k) { found = merge_2_1<k>; });
  } else if (layout.nbytes == 2) {
    with_constant<8, 10>(layout.lower_nbits, [&](auto k) { found = merge_2_2<k>; });
  } else if (layout.nbytes == 4 && layout.n_rest == 3) {
    with_constant<0, 7>(layout.lower_nbits - 16, [&](auto k) { found = merge_4_3<k>; });
  } else if (layout.nbytes == 1) {
    found = merge_general<std::uint8_t>;
  } else if (layout.nbytes == 4) {
    found = merge_general<std::uint32_t>;
  } else {
    found = merge_general<std::uint64_t>;
  }
  return found;
}

}  // namespace cmpk

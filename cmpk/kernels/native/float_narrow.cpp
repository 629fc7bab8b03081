// Encoding narrow: floats that are exactly floats of a narrower type.
#include <algorithm>

#include "float_bits.hpp"
#include "floats.hpp"

namespace cmpk {

namespace {

// Elements looked at before the first that does not narrow ends the search.
constexpr std::size_t kBlock = 64;

template <class W, class V, unsigned kExponent, unsigned kMantissa>
struct Type {
  using Word = W;
  using Value = V;  // the processor's type with this layout, void where there is none
  static constexpr unsigned nbits = 8 * sizeof(Word);
  static constexpr unsigned mantissa_nbits = kMantissa;
  static constexpr int bias = (1 << (kExponent - 1)) - 1;
  static constexpr Word magnitude_mask = static_cast<Word>((Word{1} << (nbits - 1)) - 1);
  static constexpr Word infinity = static_cast<Word>(((Word{1} << kExponent) - 1) << kMantissa);
};
using F16 = Type<std::uint16_t, void, 5, 10>;
using BF16 = Type<std::uint16_t, void, 8, 7>;
using F32 = Type<std::uint32_t, float, 8, 23>;
using F64 = Type<std::uint64_t, double, 11, 52>;

// What the two types make of each other's numbers. Both directions have no branches, so that loops
// over them become vectors: real weights in half precision have subnormal numbers everywhere.
template <class Narrow, class Wide>
struct Pair {
  using NarrowWord = typename Narrow::Word;
  using Word = typename Wide::Word;
  using Value = typename Wide::Value;

  static constexpr unsigned dropped = Wide::mantissa_nbits - Narrow::mantissa_nbits;
  static constexpr int rebias = Wide::bias - Narrow::bias;
  static constexpr Word rebias_bits = Word{rebias} << Wide::mantissa_nbits;
  static constexpr Word smallest_normal = Word{rebias + 1} << Wide::mantissa_nbits;
  static constexpr Word infinity = Word{rebias} + (Narrow::infinity >> Narrow::mantissa_nbits) << Wide::mantissa_nbits;
  // The power of two whose last mantissa bit is worth as much as the narrower type's smallest
  // number: a sum with it has that number's multiples in its mantissa.
  static constexpr Word subnormal_unit =
      Word{1 - Narrow::bias + static_cast<int>(dropped) + Wide::bias} << Wide::mantissa_nbits;

  CMPK_INLINE static Word widen(NarrowWord narrow) {
    const Word sign = static_cast<Word>(narrow >> (Narrow::nbits - 1)) << (Wide::nbits - 1);
    const Word magnitude = static_cast<Word>(narrow & Narrow::magnitude_mask) << dropped;
    if (rebias == 0) return sign | magnitude;
    const Word normal = magnitude + rebias_bits;
    // The largest exponent becomes the largest one: 2^e - 1 + 2 * rebias = 2^E - 1.
    const Word special = normal + rebias_bits;
    // The leading bit that a normal number has, given and taken away again: exact, and neither
    // operand nor result is subnormal, so that flushing those to zero does no harm.
    const Word with_leading = magnitude + smallest_normal;
    const Word subnormal = bit_cast<Word>(bit_cast<Value>(with_leading) - bit_cast<Value>(smallest_normal));
    const Word smallest = Word{1} << Wide::mantissa_nbits;
    const Word largest = static_cast<Word>(Narrow::infinity) << dropped;
    return sign | select(magnitude < smallest, subnormal, select(magnitude < largest, normal, special));
  }

  // Of an element that does not narrow exactly, anything; it does not widen to the element again.
  CMPK_INLINE static NarrowWord narrow(Word wide) {
    const Word sign = wide >> (Wide::nbits - 1) << (Narrow::nbits - 1);
    const Word magnitude = wide & Wide::magnitude_mask;
    if (rebias == 0) return static_cast<NarrowWord>(sign | magnitude >> dropped);
    const Word normal = (magnitude - rebias_bits) >> dropped;
    const Word special = (magnitude - rebias_bits - rebias_bits) >> dropped;
    const Word sum = bit_cast<Word>(bit_cast<Value>(magnitude) + bit_cast<Value>(subnormal_unit));
    const Word subnormal = sum - subnormal_unit;
    const Word upper = select(magnitude < smallest_normal, subnormal, select(magnitude < infinity, normal, special));
    return static_cast<NarrowWord>(sign | upper);
  }
};

template <class P>
CMPK_INLINE inline void widen_all(const std::uint8_t* in, std::size_t n, std::uint8_t* out) {
  using NarrowWord = typename P::NarrowWord;
  using Word = typename P::Word;
  for (std::size_t i = 0; i < n; ++i) {
    store(out + i * sizeof(Word), P::widen(load<NarrowWord>(in + i * sizeof(NarrowWord))));
  }
}

// Whether all elements narrow exactly; so does the next.
template <class P>
CMPK_INLINE inline bool all_narrow(const std::uint8_t* in, std::size_t n) {
  using Word = typename P::Word;
  Word different = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const Word wide = load<Word>(in + i * sizeof(Word));
    different |= P::widen(P::narrow(wide)) ^ wide;
  }
  return !different;
}

template <class P>
CMPK_INLINE inline bool narrow_all(const std::uint8_t* in, std::size_t n, std::uint8_t* out) {
  using NarrowWord = typename P::NarrowWord;
  using Word = typename P::Word;
  Word different = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const Word wide = load<Word>(in + i * sizeof(Word));
    const NarrowWord narrow = P::narrow(wide);
    different |= P::widen(narrow) ^ wide;
    store(out + i * sizeof(NarrowWord), narrow);
  }
  return !different;
}

void check_pair(const FloatFormat& wide, const FloatFormat& narrower) {
  if (may_narrow(wide, narrower)) return;
  throw std::invalid_argument(std::string(wide.name) + " does not narrow to " + std::string(narrower.name));
}

// Calls `f` with the pair of types.
template <class F>
CMPK_INLINE inline void with_pair(const FloatFormat& wide, const FloatFormat& narrower, const F& f) {
  if (wide.name == "F32") return narrower.name == "F16" ? f(Pair<F16, F32>{}) : f(Pair<BF16, F32>{});
  if (narrower.name == "F32") return f(Pair<F32, F64>{});
  return narrower.name == "F16" ? f(Pair<F16, F64>{}) : f(Pair<BF16, F64>{});
}

}  // namespace

void narrows_to(Bytes data, const FloatFormat& wide, const FloatFormat& narrower, std::size_t row_elements,
                bool* exact) {
  check_pair(wide, narrower);
  const std::size_t nbytes = wide.nbytes();
  for (std::size_t row = 0; row < data.size / nbytes / row_elements; ++row) {
    const std::uint8_t* const in = data.data + row * row_elements * nbytes;
    bool all = true;
    for (std::size_t i = 0; all && i < row_elements; i += kBlock) {
      const std::size_t n = std::min(kBlock, row_elements - i);
      with_widest_vectors([&]() CMPK_INLINE {
        with_pair(wide, narrower, [&](auto pair) CMPK_INLINE { all = all_narrow<decltype(pair)>(in + i * nbytes, n); });
      });
    }
    exact[row] = all;
  }
}

void narrow(Bytes data, const FloatFormat& wide, const FloatFormat& narrower, std::uint8_t* out) {
  check_pair(wide, narrower);
  const std::size_t n = data.size / wide.nbytes();
  bool all = true;
  with_widest_vectors([&]() CMPK_INLINE {
    with_pair(wide, narrower, [&](auto pair) CMPK_INLINE { all = narrow_all<decltype(pair)>(data.data, n, out); });
  });
  if (!all) throw std::invalid_argument("an element of the data is not exactly a " + std::string(narrower.name));
}

void widen(const std::uint8_t* in, std::size_t n, const FloatFormat& narrower, const FloatFormat& wide,
           std::uint8_t* out) {
  check_pair(wide, narrower);
  with_widest_vectors([&]() CMPK_INLINE {
    with_pair(wide, narrower, [&](auto pair) CMPK_INLINE { widen_all<decltype(pair)>(in, n, out); });
  });
}

}  // namespace cmpk

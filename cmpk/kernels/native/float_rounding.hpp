// Float32 numbers rounded to another type (spec/encodings/affine.md, decoding).
#pragma once

#include <cfenv>
#include <cstdint>
#include <string_view>

#include "float_bits.hpp"

namespace cmpk {

// Rounding to nearest, and subnormal numbers as they are, whatever the program has set for itself:
// torch.set_flush_denormal, say. Restored at the end.
class FloatEnvironment {
 public:
  FloatEnvironment() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatEnvironment() { std::fesetenv(&before_); }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  std::fenv_t before_;
};

// Each type rounds a number that is no NaN to the nearest of its own, ties to the even mantissa. No
// branches, so that loops become vectors.
struct ToF32 {
  using Word = std::uint32_t;
  static constexpr Word nan = 0x7fc00000;
  CMPK_INLINE static Word round(float value) { return bit_cast<Word>(value); }
};

struct ToF64 {
  using Word = std::uint64_t;
  static constexpr Word nan = std::uint64_t{0x7ff8} << 48;
  CMPK_INLINE static Word round(float value) { return bit_cast<Word>(static_cast<double>(value)); }
};

struct ToBF16 {
  using Word = std::uint16_t;
  static constexpr Word nan = 0x7fc0;
  CMPK_INLINE static Word round(float value) {
    // Carries go into the exponent, up to that of infinity.
    const std::uint32_t bits = bit_cast<std::uint32_t>(value);
    return static_cast<Word>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
};

// A type whose exponents are fewer than float's. kTop stands for all that is too large.
template <class W, unsigned kMantissa, int kBias, std::uint32_t kTop, bool kHasNegativeZero>
struct ToSmall {
  using Word = W;
  // The quiet one of a type that has it.
  static constexpr Word nan = static_cast<Word>(kTop | 1u << (kMantissa - 1));
  CMPK_INLINE static Word round(float value) {
    constexpr unsigned dropped = 23 - kMantissa;
    constexpr std::uint32_t rebias = static_cast<std::uint32_t>(127 - kBias) << 23;
    constexpr std::uint32_t smallest_normal = static_cast<std::uint32_t>(128 - kBias) << 23;
    // The power of two whose last bit is worth the type's smallest number: a sum with it is rounded
    // to that number's multiples.
    constexpr std::uint32_t unit = static_cast<std::uint32_t>(128 - kBias + static_cast<int>(dropped)) << 23;
    const std::uint32_t bits = bit_cast<std::uint32_t>(value);
    const std::uint32_t magnitude = bits & 0x7fffffff;
    const std::uint32_t half = (std::uint32_t{1} << (dropped - 1)) - 1;
    const std::uint32_t normal = (magnitude - rebias + half + (magnitude >> dropped & 1)) >> dropped;
    const std::uint32_t subnormal = bit_cast<std::uint32_t>(bit_cast<float>(magnitude) + bit_cast<float>(unit)) - unit;
    std::uint32_t rounded = select(magnitude < smallest_normal, subnormal, normal);
    rounded = rounded < kTop ? rounded : kTop;
    std::uint32_t sign = bits >> 31 << (8 * sizeof(Word) - 1);
    if (!kHasNegativeZero) sign &= 0 - static_cast<std::uint32_t>(rounded != 0);
    return static_cast<Word>(sign | rounded);
  }
};

// The same for any number.
template <class To>
CMPK_INLINE inline typename To::Word round_any(float value) {
  using Word = typename To::Word;
  const bool is_nan = (bit_cast<std::uint32_t>(value) & 0x7fffffff) > 0x7f800000;
  return static_cast<Word>(select<Word>(is_nan, To::nan, To::round(value)));
}

using ToF16 = ToSmall<std::uint16_t, 10, 15, 0x7c00, true>;
using ToE4M3 = ToSmall<std::uint8_t, 3, 7, 0x7e, true>;
using ToE5M2 = ToSmall<std::uint8_t, 2, 15, 0x7c, true>;
using ToE4M3Fnuz = ToSmall<std::uint8_t, 3, 8, 0x7f, false>;
using ToE5M2Fnuz = ToSmall<std::uint8_t, 2, 16, 0x7f, false>;

// Calls `f` with the rounding to a type.
template <class F>
inline auto with_rounding(std::string_view name, const F& f) {
  if (name == "F16") return f(ToF16{});
  if (name == "BF16") return f(ToBF16{});
  if (name == "F64") return f(ToF64{});
  if (name == "F8_E4M3") return f(ToE4M3{});
  if (name == "F8_E5M2") return f(ToE5M2{});
  if (name == "F8_E4M3FNUZ") return f(ToE4M3Fnuz{});
  if (name == "F8_E5M2FNUZ") return f(ToE5M2Fnuz{});
  return f(ToF32{});
}

}  // namespace cmpk

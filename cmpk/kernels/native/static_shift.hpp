// Shift counts as constants of the type, so that loops work in lanes of 16 bits.
#pragma once

#include <type_traits>
#include <utility>

#include "vectors.hpp"

namespace cmpk {

template <unsigned kFirst, class F, unsigned... kOffsets>
CMPK_INLINE inline void with_constant_of(unsigned value, const F& f, std::integer_sequence<unsigned, kOffsets...>) {
  (void)((value == kFirst + kOffsets && (f(std::integral_constant<unsigned, kFirst + kOffsets>{}), true)) || ...);
}

// Calls `f` with the std::integral_constant of `value`, which is kFirst .. kLast; does nothing
// otherwise. C++ shifts 16-bit numbers as 32-bit ones; compilers see that half of the lane is
// enough only where the count is a constant, and that is worth a factor of two and more.
template <unsigned kFirst, unsigned kLast, class F>
CMPK_INLINE inline void with_constant(unsigned value, const F& f) {
  with_constant_of<kFirst>(value, f, std::make_integer_sequence<unsigned, kLast - kFirst + 1>{});
}

}  // namespace cmpk

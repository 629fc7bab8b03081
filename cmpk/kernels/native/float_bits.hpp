// Floats as the integers of their bits.
#pragma once

#include <cstring>

#include "vectors.hpp"

namespace cmpk {

template <class To, class From>
CMPK_INLINE inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// With masks, for compilers keep an addition of floats that only one side needs behind a branch.
template <class Word>
CMPK_INLINE inline Word select(bool condition, Word yes, Word no) {
  const Word mask = static_cast<Word>(Word{0} - Word{condition});
  return static_cast<Word>((yes & mask) | (no & ~mask));
}

}  // namespace cmpk

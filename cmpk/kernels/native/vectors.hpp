// One source for loops that become vectors, compiled for two generations of processors.
#pragma once

#if defined(__GNUC__)
#define CMPK_INLINE __attribute__((always_inline))
#else
#define CMPK_INLINE
#endif

namespace cmpk {

#if defined(__GNUC__) && defined(__x86_64__)

template <class F>
__attribute__((target("avx2"))) void call_with_avx2(const F& f) {
  f();
}

inline bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2");
  return has;
}

#endif

// Calls `f`, on x86-64 compiled for AVX2 where the processor has it. `f` and what it calls must be
// CMPK_INLINE: only what is inlined into the function compiled for AVX2 uses it.
template <class F>
inline void with_widest_vectors(const F& f) {
#if defined(__GNUC__) && defined(__x86_64__)
  if (has_avx2()) return call_with_avx2(f);
#endif
  f();
}

}  // namespace cmpk

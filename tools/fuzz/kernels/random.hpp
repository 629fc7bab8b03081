// Random numbers that are the same everywhere for the same seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fuzz {

// SplitMix64 (Steele, Lea and Flood 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }

  // 0 .. n - 1; 0 for n = 0.
  std::uint64_t below(std::uint64_t n) { return n ? next() % n : 0; }

  // True once in n times.
  bool once_in(std::uint64_t n) { return below(n) == 0; }

  // 0 .. limit, about as often below any power of two as above it: small sizes are where edges are.
  std::uint64_t size(std::uint64_t limit) {
    unsigned nbits = 0;
    while (nbits < 63 && limit >> nbits) ++nbits;
    const std::uint64_t value = next() & ((std::uint64_t{1} << below(nbits + 1)) - 1);
    return value > limit ? limit : value;
  }

  template <class T>
  const T& of(const std::vector<T>& values) {
    return values[static_cast<std::size_t>(below(values.size()))];
  }

 private:
  std::uint64_t state_;
};

}  // namespace fuzz

// A target as libFuzzer knows one; driver.cpp knows it in the same way.
#include <algorithm>

#include "case.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::target.run(fuzz::parse(data, size));
  return 0;
}

// Of nothing, and now and then of anything, it makes a new case that breaks no rule.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  fuzz::Random random(seed);
  const bool is_new = size < 8 || random.once_in(16);
  fuzz::Case input = is_new ? fuzz::target.fresh(random) : fuzz::parse(data, size);
  if (!is_new || !random.once_in(4)) fuzz::mutate(input, random);
  const std::vector<std::uint8_t> bytes = fuzz::to_bytes(input);
  const std::size_t n = std::min(bytes.size(), max_size);
  std::memcpy(data, bytes.data(), n);
  return n;
}

// How often bytes occur, and the code lengths that follow from it.
#include <algorithm>

#include "encode.hpp"

namespace cmpk {

namespace {

// Counts of 32 bits do not overflow.
constexpr std::size_t kMaxBytes = std::size_t{1} << 30;
// From here on a table of 65,536 counts pays.
constexpr std::size_t kPairsFromBytes = std::size_t{1} << 18;

// Eight tables in turn: an increment must not wait for the store of the one before it, and in skewed
// data that is mostly to the same count.
void count_bytes(Bytes data, ByteCounts& counts) {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  std::size_t i = 0;
  for (; i + 8 <= data.size; i += 8) {
    const std::uint64_t octets = load<std::uint64_t>(data.data + i);
    for (unsigned t = 0; t < 8; ++t) ++tables[t][octets >> (8 * t) & 0xff];
  }
  for (; i < data.size; ++i) ++tables[0][data.data[i]];
  for (unsigned symbol = 0; symbol < 256; ++symbol) {
    for (const auto& table : tables) counts[symbol] += table[symbol];
  }
}

// Counts pairs of bytes: half the increments, and rarely two of the same count in a row.
void count_pairs(Bytes data, ByteCounts& counts) {
  std::vector<std::uint32_t> table(1u << 16);
  const std::size_t n = data.size / 8 * 8;
  for (std::size_t i = 0; i < n; i += 8) {
    const std::uint64_t octets = load<std::uint64_t>(data.data + i);
    for (unsigned shift = 0; shift < 64; shift += 16) ++table[octets >> shift & 0xffff];
  }
  for (unsigned second = 0; second < 256; ++second) {
    for (unsigned first = 0; first < 256; ++first) {
      const std::uint32_t count = table[second << 8 | first];
      counts[first] += count;
      counts[second] += count;
    }
  }
  count_bytes({data.data + n, data.size - n}, counts);
}

}  // namespace

ByteCounts byte_histogram(Bytes data) {
  ByteCounts counts{};
  while (data.size) {
    const std::size_t n = std::min(data.size, kMaxBytes);
    (n < kPairsFromBytes ? count_bytes : count_pairs)({data.data, n}, counts);
    data = {data.data + n, data.size - n};
  }
  return counts;
}

namespace {

struct Leaf {
  std::uint64_t weight;
  unsigned symbol;
};

// Symbols that occur, lightest first; what stands earlier gets the longer code, hence the higher
// one of two symbols first.
std::size_t sort_leaves(const ByteCounts& counts, std::array<Leaf, 256>& leaves) {
  std::size_t n = 0;
  std::uint64_t total = 0;
  for (unsigned symbol = 0; symbol < 256; ++symbol) {
    if (!counts[symbol]) continue;
    leaves[n++] = {counts[symbol], symbol};
    // A package weighs at most 16 times the sum: it must not overflow either.
    if (counts[symbol] > kMaxTotalCount - total) throw std::invalid_argument("the counts add up to more than 2**56");
    total += counts[symbol];
  }
  std::sort(leaves.begin(), leaves.begin() + static_cast<std::ptrdiff_t>(n), [](const Leaf& a, const Leaf& b) {
    return a.weight != b.weight ? a.weight < b.weight : a.symbol > b.symbol;
  });
  return n;
}

}  // namespace

// Package-merge (Larmore and Hirschberg, "A fast algorithm for optimal length-limited Huffman
// codes", 1990). Each of max_length levels has a list of items by ascending weight: every leaf, and
// the packages made of two neighbours in the list before. The 2n - 2 lightest items of the last
// list are the solution, and each time it holds a leaf that leaf's code grows by one bit.
CodeLengths code_lengths(const ByteCounts& counts, unsigned max_length) {
  if (max_length < 1 || max_length > 16) throw std::invalid_argument("max_length must be 1 .. 16");
  std::array<Leaf, 256> leaves;
  const std::size_t n = sort_leaves(counts, leaves);
  CodeLengths lengths{};
  if (n > std::size_t{1} << max_length) throw std::invalid_argument("too many symbols for codes of max_length bits");
  if (n == 1) lengths[leaves[0].symbol] = 1;
  if (n < 2) return lengths;
  // A list has n leaves and fewer than n packages. All that must be kept of it is how many of its
  // first i items are leaves.
  std::array<std::array<std::uint16_t, 512>, 16> leaves_among;
  std::array<std::uint64_t, 256> packages;
  std::array<std::uint64_t, 512> items;
  std::size_t n_packages = 0;
  for (unsigned level = 0; level < max_length; ++level) {
    const std::size_t n_items = n + n_packages;
    std::size_t leaf = 0;
    for (std::size_t i = 0; i < n_items; ++i) {
      const std::size_t package = i - leaf;
      const bool take_leaf = package == n_packages || (leaf < n && leaves[leaf].weight <= packages[package]);
      items[i] = take_leaf ? leaves[leaf].weight : packages[package];
      leaves_among[level][i] = static_cast<std::uint16_t>(leaf);
      leaf += take_leaf;
    }
    leaves_among[level][n_items] = static_cast<std::uint16_t>(leaf);
    n_packages = n_items / 2;
    for (std::size_t i = 0; i < n_packages; ++i) packages[i] = items[2 * i] + items[2 * i + 1];
  }
  std::size_t n_items = 2 * n - 2;
  for (unsigned level = max_length; level-- > 0;) {
    const std::size_t taken = leaves_among[level][n_items];
    for (std::size_t i = 0; i < taken; ++i) ++lengths[leaves[i].symbol];
    n_items = 2 * (n_items - taken);
  }
  return lengths;
}

}  // namespace cmpk

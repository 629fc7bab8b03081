// Elements among many of one value: fill a little, then put the values of it in their places.
#include "sparse.hpp"

#include <algorithm>
#include <vector>

#include "parallel.hpp"

#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace cmpk {

namespace {

constexpr std::size_t kWordBits = 64;
constexpr std::size_t kPieceElements = std::size_t{1} << 16;

// Of a word that is not zero.
inline unsigned lowest_bit(std::uint64_t word) {
#if defined(_MSC_VER)
  unsigned long index;
  _BitScanForward64(&index, word);
  return static_cast<unsigned>(index);
#else
  return static_cast<unsigned>(__builtin_ctzll(word));
#endif
}

// No processor of the baseline has an instruction for it.
inline std::size_t count_bits(std::uint64_t word) {
  word -= word >> 1 & 0x5555555555555555u;
  word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
  return static_cast<std::size_t>(word * 0x0101010101010101u >> 56);
}

// Calls `visit(word, at, size)` for each run of up to 64 bits from `start` on.
template <class Visit>
inline void for_each_word(Bytes mask, std::uint64_t start, std::size_t n, const Visit& visit) {
  std::size_t at = 0;
  // Up to a whole byte, from where eight of them are 64 bits.
  if (const unsigned skipped = start % 8; skipped && n) {
    const std::size_t size = std::min<std::size_t>(8 - skipped, n);
    visit(std::uint64_t{mask.data[start / 8]} >> skipped & ((std::uint64_t{1} << size) - 1), at, size);
    at = size;
  }
  for (; at < n; at += kWordBits) {
    std::uint64_t word = load_padded(mask, static_cast<std::size_t>((start + at) / 8));
    const std::size_t size = std::min(kWordBits, n - at);
    if (size < kWordBits) word &= (std::uint64_t{1} << size) - 1;
    visit(word, at, size);
  }
}

std::size_t count_bits(Bytes mask, std::uint64_t start, std::size_t n) {
  std::size_t count = 0;
  for_each_word(mask, start, n, [&](std::uint64_t word, std::size_t, std::size_t) { count += count_bits(word); });
  return count;
}

template <class T>
inline void fill_elements(T fill, std::uint8_t* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) store<T>(out + i * sizeof(T), fill);
}

template <class T>
void expand_piece(Bytes mask, std::uint64_t start, std::size_t n, T fill, const std::uint8_t* values,
                  std::uint8_t* out) {
  for_each_word(mask, start, n, [&](std::uint64_t word, std::size_t at, std::size_t size) {
    std::uint8_t* const to = out + at * sizeof(T);
    if (size == kWordBits) {
      if (word == ~std::uint64_t{0}) {
        std::memcpy(to, values, kWordBits * sizeof(T));
        values += kWordBits * sizeof(T);
        return;
      }
      fill_elements<T>(fill, to, kWordBits);  // a size that the compiler knows
    } else {
      fill_elements<T>(fill, to, size);
    }
    for (; word; word &= word - 1, values += sizeof(T)) store(to + lowest_bit(word) * sizeof(T), load<T>(values));
  });
}

template <class T>
void expand_mask(Bytes mask, std::uint64_t start, const SparseElements& elements, std::uint8_t* out, std::size_t n,
                 unsigned n_threads) {
  const std::size_t n_pieces = (n + kPieceElements - 1) / kPieceElements;
  std::vector<std::size_t> first(n_pieces + 1);
  const auto size_of = [&](std::size_t piece) { return std::min(kPieceElements, n - piece * kPieceElements); };
  parallel_for(n_pieces, n_threads, [&](unsigned, std::size_t piece) {
    first[piece + 1] = count_bits(mask, start + piece * kPieceElements, size_of(piece));
  });
  for (std::size_t piece = 0; piece < n_pieces; ++piece) first[piece + 1] += first[piece];
  if (first[n_pieces] != elements.values.size / sizeof(T)) {
    throw CorruptStream("encoding 'bitmask': " + std::to_string(first[n_pieces]) + " bits are set for " +
                        std::to_string(elements.values.size / sizeof(T)) + " values");
  }
  const T fill = load<T>(elements.fill);
  parallel_for(n_pieces, n_threads, [&](unsigned, std::size_t piece) {
    const std::size_t at = piece * kPieceElements;
    expand_piece<T>(mask, start + at, size_of(piece), fill, elements.values.data + first[piece] * sizeof(T),
                    out + at * sizeof(T));
  });
}

[[noreturn]] void refuse_gaps(const char* what) { throw CorruptStream(std::string("encoding 'gap_index': ") + what); }

template <class T>
void expand_gaps(const Gaps& gaps, const SparseElements& elements, std::uint64_t start, std::uint8_t* out,
                 std::size_t count) {
  fill_elements<T>(load<T>(elements.fill), out, count);
  const std::uint8_t* value = elements.values.data;
  const std::uint8_t* const end = value + elements.values.size;
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < gaps.gaps.size; ++i) {
    const unsigned gap = gaps.gaps.data[i];
    if (gap > gaps.max_gap) refuse_gaps("a gap exceeds max_gap");
    if (gap > gaps.n - at) refuse_gaps("the gaps reach beyond the tensor");
    at += gap;
    if (gap == gaps.max_gap) continue;
    if (at == gaps.n) refuse_gaps("a value stands beyond the tensor");
    if (value == end) refuse_gaps("there are more gaps than values");
    // What stands before the range wraps around to a large number.
    if (at - start < count) store(out + (at - start) * sizeof(T), load<T>(value));
    ++at;
    value += sizeof(T);
  }
  if (value != end) refuse_gaps("there are fewer gaps than values");
}

}  // namespace

void bitmask_expand(Bytes mask, std::uint64_t start, const SparseElements& elements, std::uint8_t* out, std::size_t n,
                    unsigned n_threads) {
  switch (elements.nbytes) {
    case 1: return expand_mask<std::uint8_t>(mask, start, elements, out, n, n_threads);
    case 2: return expand_mask<std::uint16_t>(mask, start, elements, out, n, n_threads);
    case 4: return expand_mask<std::uint32_t>(mask, start, elements, out, n, n_threads);
    default: return expand_mask<std::uint64_t>(mask, start, elements, out, n, n_threads);
  }
}

void gaps_expand(const Gaps& gaps, const SparseElements& elements, std::uint64_t start, std::uint8_t* out,
                 std::size_t count) {
  switch (elements.nbytes) {
    case 1: return expand_gaps<std::uint8_t>(gaps, elements, start, out, count);
    case 2: return expand_gaps<std::uint16_t>(gaps, elements, start, out, count);
    case 4: return expand_gaps<std::uint32_t>(gaps, elements, start, out, count);
    default: return expand_gaps<std::uint64_t>(gaps, elements, start, out, count);
  }
}

}  // namespace cmpk

// Encoding float_split: taking elements apart, and what is counted to choose how.
#include <algorithm>

#include "floats.hpp"
#include "memory.hpp"
#include "static_shift.hpp"

namespace cmpk {

namespace {

// Elements that are taken apart at a time: they and their parts stay in the first-level cache, so
// that each part can have a loop of its own, which compilers make vectors of.
constexpr std::size_t kBlock = 1024;

// Processors fetch by themselves what lies ahead of them, but not the next of rows that are picked here
// and there (measured on 30,522 rows of 768 bytes, each time a fourth of them: 5.9 ms against 8.2).
constexpr std::size_t kRowsAhead = 2;
constexpr std::size_t kPrefetchedBytes = std::size_t{1} << 12;

// Calls `f` with a value of the unsigned type of `nbytes` bytes.
template <class F>
void with_word(unsigned nbytes, const F& f) {
  switch (nbytes) {
    case 1: return f(std::uint8_t{});
    case 2: return f(std::uint16_t{});
    case 4: return f(std::uint32_t{});
    default: return f(std::uint64_t{});
  }
}

// `lower` is an unsigned, or a constant of its type.
template <class Word, class Lower>
CMPK_INLINE inline Word upper_bits(Word word, Lower lower, unsigned upper_nbits) {
  return static_cast<Word>(word >> lower & ((1u << upper_nbits) - 1));
}

// Splits a block; whether there are exceptions, at which `high` is not right yet.
template <class Word, class Lower>
CMPK_INLINE inline bool split_block(const std::uint8_t* in, std::size_t n, Lower lower, FloatLayout layout,
                                    std::uint8_t* high, std::uint8_t* const* rest) {
  const Word base = static_cast<Word>(layout.base);
  const Word lower_mask = static_cast<Word>((Word{1} << lower) - 1);
  constexpr unsigned sign_shift = 8 * sizeof(Word) - 1;
  Word beyond = 0;  // a difference above 255, one below 0 included, has upper bits
  for (std::size_t i = 0; i < n; ++i) {
    const Word word = load<Word>(in + i * sizeof(Word));
    const Word difference = static_cast<Word>(upper_bits(word, lower, layout.upper_nbits) - base);
    beyond = static_cast<Word>(beyond | difference);
    high[i] = static_cast<std::uint8_t>(difference);
  }
  for (unsigned j = 0; j < layout.n_rest; ++j) {
    std::uint8_t* const plane = rest[j];
    const unsigned shift = 8 * j;
    for (std::size_t i = 0; i < n; ++i) {
      const Word word = load<Word>(in + i * sizeof(Word));
      const Word low = static_cast<Word>(word >> sign_shift << lower | (word & lower_mask));
      plane[i] = static_cast<std::uint8_t>(low >> shift);
    }
  }
  return beyond > 0xff;
}

template <class Word>
void find_exceptions(const std::uint8_t* in, std::size_t n, const FloatLayout& layout, std::size_t start,
                     std::uint8_t* high, FloatExceptions& exceptions) {
  for (std::size_t i = 0; i < n; ++i) {
    const Word upper = upper_bits(load<Word>(in + i * sizeof(Word)), layout.lower_nbits, layout.upper_nbits);
    if (static_cast<Word>(upper - layout.base) <= 0xff) continue;
    high[i] = 0;
    exceptions.index.push_back(start + i);
    exceptions.high.push_back(static_cast<std::uint16_t>(upper));
  }
}

// Splits elements that follow each other, the first of them number `start` of the n that are split.
template <class Word>
void split_elements(Bytes data, const FloatLayout& layout, std::size_t start, std::size_t n, std::uint8_t* high,
                    std::uint8_t* rest, FloatExceptions& exceptions) {
  const std::size_t stop = start + data.size / sizeof(Word);
  for (const std::uint8_t* in = data.data; start < stop; start += kBlock, in += kBlock * sizeof(Word)) {
    const std::size_t length = std::min(kBlock, stop - start);
    std::uint8_t* planes[kMaxRest];
    for (unsigned j = 0; j < layout.n_rest; ++j) planes[j] = rest + j * n + start;
    bool has_exceptions = false;
    const auto split = [&](auto lower) CMPK_INLINE {
      has_exceptions = split_block<Word>(in, length, lower, layout, high + start, planes);
    };
    with_widest_vectors([&]() CMPK_INLINE {
      if constexpr (sizeof(Word) == 2) {
        with_constant<0, 10>(layout.lower_nbits, split);
      } else {
        split(layout.lower_nbits);
      }
    });
    if (has_exceptions) find_exceptions<Word>(in, length, layout, start, high + start, exceptions);
  }
}

// With four tables in turn, increments do not wait for each other. More than 2^10 counts would not
// stay in the first-level cache four times.
template <class Word, std::size_t kTables>
void count_upper_bits(Bytes data, const FloatLayout& layout, std::uint64_t* counts) {
  const unsigned lower = layout.lower_nbits;
  const unsigned upper_nbits = layout.upper_nbits;
  const std::size_t n_counts = std::size_t{1} << layout.upper_nbits;
  constexpr std::size_t kMaxElements = std::size_t{1} << 30;  // counts of 32 bits do not overflow
  std::vector<std::uint32_t> tables(n_counts * kTables);
  std::uint32_t* const table = tables.data();
  std::size_t left = data.size / sizeof(Word);
  const std::uint8_t* in = data.data;
  while (left) {
    const std::size_t n = std::min(left, kMaxElements);
    std::fill(tables.begin(), tables.end(), 0u);
    std::size_t i = 0;
    for (; i + kTables <= n; i += kTables) {
      for (std::size_t k = 0; k < kTables; ++k) {
        ++table[k * n_counts + upper_bits(load<Word>(in + (i + k) * sizeof(Word)), lower, upper_nbits)];
      }
    }
    for (; i < n; ++i) ++table[upper_bits(load<Word>(in + i * sizeof(Word)), lower, upper_nbits)];
    for (std::size_t t = 0; t < tables.size(); ++t) counts[t & (n_counts - 1)] += tables[t];
    in += n * sizeof(Word);
    left -= n;
  }
}

// Counts of one row; as `count_upper_bits`, but without memory that is cleared for each row.
template <class Word>
void count_exponents(const std::uint8_t* in, std::size_t n, const FloatFormat& format, std::uint32_t* counts) {
  constexpr std::size_t kTables = 4;
  constexpr std::size_t kMaxCounts = 256;
  const std::size_t n_counts = std::size_t{1} << format.exponent_nbits;
  const auto exponent = [&](std::size_t i) {
    return static_cast<std::size_t>(upper_bits(load<Word>(in + i * sizeof(Word)), format.mantissa_nbits,
                                               format.exponent_nbits));
  };
  std::fill(counts, counts + n_counts, 0u);
  std::size_t i = 0;
  if (n_counts <= kMaxCounts) {
    std::uint32_t tables[kTables][kMaxCounts];
    for (auto& table : tables) std::fill(table, table + n_counts, 0u);
    for (; i + kTables <= n; i += kTables) {
      for (std::size_t k = 0; k < kTables; ++k) ++tables[k][exponent(i + k)];
    }
    for (const auto& table : tables) {
      for (std::size_t e = 0; e < n_counts; ++e) counts[e] += table[e];
    }
  }
  for (; i < n; ++i) ++counts[exponent(i)];
}

}  // namespace

void exponent_histograms(Bytes data, const FloatFormat& format, const PickedRows& picked, std::size_t limit,
                         std::uint32_t* counts) {
  with_word(format.nbytes(), [&](auto word) {
    const std::size_t row_nbytes = picked.row_elements * sizeof word;
    for (std::size_t i = 0; i < picked.n_rows(); ++i, counts += std::size_t{1} << format.exponent_nbits) {
      count_exponents<decltype(word)>(data.data + picked[i] * row_nbytes, std::min(limit, picked.row_elements), format,
                                      counts);
    }
  });
}

FloatExceptions float_split(Bytes data, const FloatLayout& layout, std::uint8_t* high, std::uint8_t* rest,
                            const PickedRows* picked) {
  FloatExceptions exceptions;
  const std::size_t n = picked ? picked->n_rows() * picked->row_elements : data.size / layout.nbytes;
  with_word(layout.nbytes, [&](auto word) {
    using Word = decltype(word);
    const auto split_run = [&](const std::uint8_t* in, std::size_t length, std::size_t start) {
      split_elements<Word>({in, length * sizeof word}, layout, start, n, high, rest, exceptions);
    };
    if (!picked) return split_run(data.data, n, 0);
    const std::size_t row_nbytes = picked->row_elements * sizeof word;
    for (std::size_t i = 0; i < picked->n_rows(); ++i) {
      if (i + kRowsAhead < picked->n_rows()) {
        prefetch(data.data + (*picked)[i + kRowsAhead] * row_nbytes, std::min(row_nbytes, kPrefetchedBytes));
      }
      split_run(data.data + (*picked)[i] * row_nbytes, picked->row_elements, i * picked->row_elements);
    }
  });
  return exceptions;
}

void upper_bits_histogram(Bytes data, const FloatLayout& layout, std::uint64_t* counts) {
  std::fill(counts, counts + (std::size_t{1} << layout.upper_nbits), 0u);
  with_word(layout.nbytes, [&](auto word) {
    using Word = decltype(word);
    (layout.upper_nbits <= 10 ? count_upper_bits<Word, 4> : count_upper_bits<Word, 1>)(data, layout, counts);
  });
}

}  // namespace cmpk

// What rows cost: one look-up an element serves four tables.
#include "row_costs.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "vectors.hpp"

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cmpk {

namespace {

constexpr std::size_t kLanes = 4;
constexpr unsigned kLaneBits = 16;
// Costs are below 256, so a lane of 16 bits holds the sum of this many.
constexpr std::size_t kElementsPerFlush = 256;

template <class Word>
void sum_rows(Bytes data, const RowCosts& job, const std::vector<std::uint64_t>& lanes, std::size_t first_table,
              std::uint64_t* sums) {
  const std::size_t n_rows = data.size / sizeof(Word) / job.row_elements;
  const std::size_t n_lanes = std::min(kLanes, job.n_tables - first_table);
  const Word mask = static_cast<Word>((std::uint64_t{1} << job.exponent_nbits) - 1);
  const std::uint8_t* in = data.data;
  for (std::size_t row = 0; row < n_rows; ++row) {
    std::uint64_t* const sum = sums + row * job.n_tables + first_table;
    std::fill(sum, sum + n_lanes, 0);
    for (std::size_t left = job.row_elements; left;) {
      const std::size_t count = std::min(left, kElementsPerFlush);
      std::uint64_t even = 0, odd = 0;  // two sums, so that no addition waits for the one before
      std::size_t i = 0;
      for (; i + 2 <= count; i += 2) {
        even += lanes[static_cast<std::size_t>(load<Word>(in + i * sizeof(Word)) >> job.mantissa_nbits & mask)];
        odd += lanes[static_cast<std::size_t>(load<Word>(in + (i + 1) * sizeof(Word)) >> job.mantissa_nbits & mask)];
      }
      if (i < count) even += lanes[static_cast<std::size_t>(load<Word>(in + i * sizeof(Word)) >> job.mantissa_nbits & mask)];
      even += odd;
      for (std::size_t lane = 0; lane < n_lanes; ++lane) sum[lane] += even >> (lane * kLaneBits) & 0xffff;
      in += count * sizeof(Word);
      left -= count;
    }
  }
}

#if defined(__GNUC__) && defined(__x86_64__)

// Tables of bytes in vector registers hold the costs of so many exponents, one after another.
constexpr unsigned kWindow = 32;

// Where a window begins that has every exponent with a cost below 255, if one can have them all.
unsigned window_of(const RowCosts& job) {
  const unsigned n_exponents = 1u << job.exponent_nbits;
  unsigned last = 0;
  for (std::size_t i = 0; i < job.n_tables * n_exponents; ++i) {
    if (job.costs[i] < 255) last = std::max(last, static_cast<unsigned>(i % n_exponents));
  }
  return last < kWindow ? 0 : last - (kWindow - 1);
}

// The exponents of 32 elements, as bytes in whichever order.
__attribute__((target("avx2"))) inline __m256i exponents_of(const std::uint16_t*, const std::uint8_t* in,
                                                            __m128i shift, std::uint32_t mask) {
  const __m256i every = _mm256_set1_epi16(static_cast<short>(mask));
  const auto half = [&](std::size_t at) __attribute__((target("avx2"))) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + at));
    return _mm256_and_si256(_mm256_srl_epi16(words, shift), every);
  };
  return _mm256_packus_epi16(half(0), half(32));
}

__attribute__((target("avx2"))) inline __m256i exponents_of(const std::uint32_t*, const std::uint8_t* in,
                                                            __m128i shift, std::uint32_t mask) {
  const __m256i every = _mm256_set1_epi32(static_cast<int>(mask));
  const auto quarter = [&](std::size_t at) __attribute__((target("avx2"))) {
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + at));
    return _mm256_and_si256(_mm256_srl_epi32(words, shift), every);
  };
  return _mm256_packus_epi16(_mm256_packus_epi32(quarter(0), quarter(32)),
                             _mm256_packus_epi32(quarter(64), quarter(96)));
}

// What `sum_rows` gives, 32 elements at a time; rows with an exponent beyond the window are left to it.
template <class Word>
__attribute__((target("avx2"))) void sum_rows_by_window(Bytes data, const RowCosts& job,
                                                        const std::vector<std::uint64_t>& lanes,
                                                        std::size_t first_table, std::uint64_t* sums) {
  const std::size_t n_lanes = std::min(kLanes, job.n_tables - first_table);
  const std::size_t row_nbytes = job.row_elements * sizeof(Word);
  const std::size_t n_rows = data.size / row_nbytes;
  const std::size_t n_whole = job.row_elements / kWindow;
  const std::uint32_t mask = (1u << job.exponent_nbits) - 1;
  const unsigned window = window_of(job);
  __m256i low[kLanes], high[kLanes];
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    alignas(32) std::array<std::uint8_t, kWindow> entries{};
    for (unsigned e = 0; e < kWindow && window + e <= mask && lane < n_lanes; ++e) {
      entries[e] = job.costs[((first_table + lane) << job.exponent_nbits) + window + e];
    }
    low[lane] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(entries.data())));
    high[lane] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(entries.data() + 16)));
  }
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(job.mantissa_nbits));
  const __m256i base = _mm256_set1_epi8(static_cast<char>(window));
  const __m256i zero = _mm256_setzero_si256();
  for (std::size_t row = 0; row < n_rows; ++row) {
    const std::uint8_t* in = data.data + row * row_nbytes;
    std::uint64_t* const sum = sums + row * job.n_tables + first_table;
    __m256i beyond = zero;
    __m256i added[kLanes] = {zero, zero, zero, zero};
    for (std::size_t i = 0; i < n_whole; ++i, in += kWindow * sizeof(Word)) {
      const __m256i places =
          _mm256_sub_epi8(exponents_of(static_cast<const Word*>(nullptr), in, shift, mask), base);
      beyond = _mm256_or_si256(beyond, places);
      const __m256i is_high = _mm256_slli_epi16(places, 3);  // bit 4 of a place goes where a blend looks
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const __m256i costs = _mm256_blendv_epi8(_mm256_shuffle_epi8(low[lane], places),
                                                 _mm256_shuffle_epi8(high[lane], places), is_high);
        added[lane] = _mm256_add_epi64(added[lane], _mm256_sad_epu8(costs, zero));
      }
    }
    if (_mm256_testz_si256(beyond, _mm256_set1_epi8(static_cast<char>(0xe0)))) {
      for (std::size_t lane = 0; lane < n_lanes; ++lane) {
        alignas(32) std::array<std::uint64_t, 4> parts;
        _mm256_store_si256(reinterpret_cast<__m256i*>(parts.data()), added[lane]);
        sum[lane] = parts[0] + parts[1] + parts[2] + parts[3];
      }
      for (std::size_t i = n_whole * kWindow; i < job.row_elements; ++i, in += sizeof(Word)) {
        const std::uint64_t costs = lanes[static_cast<std::size_t>(load<Word>(in) >> job.mantissa_nbits & mask)];
        for (std::size_t lane = 0; lane < n_lanes; ++lane) sum[lane] += costs >> (lane * kLaneBits) & 0xffff;
      }
    } else {
      sum_rows<Word>({data.data + row * row_nbytes, row_nbytes}, job, lanes, first_table,
                     sums + row * job.n_tables);
    }
  }
}

#endif

template <class Word>
void sum_rows_fast(Bytes data, const RowCosts& job, const std::vector<std::uint64_t>& lanes, std::size_t first_table,
                   std::uint64_t* sums) {
#if defined(__GNUC__) && defined(__x86_64__)
  if (has_avx2()) return sum_rows_by_window<Word>(data, job, lanes, first_table, sums);
#endif
  sum_rows<Word>(data, job, lanes, first_table, sums);
}

}  // namespace

void row_costs(Bytes data, const RowCosts& job, std::uint64_t* sums) {
  const std::size_t n_exponents = std::size_t{1} << job.exponent_nbits;
  std::vector<std::uint64_t> lanes(n_exponents);
  for (std::size_t table = 0; table < job.n_tables; table += kLanes) {
    std::fill(lanes.begin(), lanes.end(), 0);
    for (std::size_t lane = 0; lane < std::min(kLanes, job.n_tables - table); ++lane) {
      const std::uint8_t* const costs = job.costs + (table + lane) * n_exponents;
      for (std::size_t e = 0; e < n_exponents; ++e) lanes[e] |= std::uint64_t{costs[e]} << (lane * kLaneBits);
    }
    switch (job.element_nbytes) {
      case 1: sum_rows<std::uint8_t>(data, job, lanes, table, sums); break;
      case 2: sum_rows_fast<std::uint16_t>(data, job, lanes, table, sums); break;
      case 4: sum_rows_fast<std::uint32_t>(data, job, lanes, table, sums); break;
      default: sum_rows<std::uint64_t>(data, job, lanes, table, sums); break;
    }
  }
}

}  // namespace cmpk

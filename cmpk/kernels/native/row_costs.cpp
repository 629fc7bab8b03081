// What rows cost: one look-up an element serves four tables.
#include "row_costs.hpp"

#include <algorithm>
#include <vector>

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
      case 2: sum_rows<std::uint16_t>(data, job, lanes, table, sums); break;
      case 4: sum_rows<std::uint32_t>(data, job, lanes, table, sums); break;
      default: sum_rows<std::uint64_t>(data, job, lanes, table, sums); break;
    }
  }
}

}  // namespace cmpk

// What rows cost under several code tables; encoding row_groups is chosen by it.
#pragma once

#include "bytes.hpp"

namespace cmpk {

struct RowCosts {
  unsigned element_nbytes;  // 1, 2, 4 or 8
  unsigned exponent_nbits;
  unsigned mantissa_nbits;
  std::size_t row_elements;   // 1 or more
  const std::uint8_t* costs;  // n_tables tables of 1 << exponent_nbits entries
  std::size_t n_tables;
};

// Writes n_tables sums for each row of `data`, which holds whole rows.
void row_costs(Bytes data, const RowCosts& job, std::uint64_t* sums);

}  // namespace cmpk

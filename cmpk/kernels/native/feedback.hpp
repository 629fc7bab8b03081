// Rounding in order, errors made up for in what is still to come; pass quantize uses it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cmpk {

struct Feedback {
  const float* values;  // [rows, columns]
  const float* steps;   // [rows, columns]
  const float* factor;  // [rows, rows], of which what is above the diagonal counts
  std::size_t rows;
  std::size_t columns;
};

// Writes codes [rows, columns]: a value and the factor of each earlier row times the error of that row,
// added in order, every product and sum rounded, are divided by the step and rounded to nearest even,
// within 2^30 of zero. The error is the value less the step times the code.
void feed_errors(const Feedback& job, std::int32_t* codes, unsigned n_threads);

}  // namespace cmpk

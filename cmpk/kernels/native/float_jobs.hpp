// Ranges of float_split tensors, decoded straight to where they belong.
#pragma once

#include <string_view>
#include <vector>

#include "floats.hpp"

namespace cmpk {

struct Source {
  std::string_view codec;
  Bytes stream;
};

// As cmpk.kernels.interface.FloatJob describes it; nothing is checked yet but the signs.
struct FloatJob {
  std::uint8_t* out;
  std::size_t out_nbytes;
  const FloatFormat* format;
  const FloatFormat* out_format;
  std::uint64_t n;
  std::uint64_t start;
  std::uint64_t count;
  std::int64_t mantissa_bits;
  std::int64_t base;
  std::vector<Source> sources;
  Bytes exception_index;  // uint64, not necessarily aligned; as are the next two
  Bytes exception_high;   // uint16
  Bytes rows;             // uint32
  bool has_rows;
  std::uint64_t row_elements;
};

// Runs the jobs, piece by piece: a piece's parts are decoded, merged, widened and scattered while
// they are in the second-level cache. Throws CorruptStream, or std::invalid_argument for sizes that
// contradict each other; the outputs are then in an undefined state.
void decode_floats(const std::vector<FloatJob>& jobs, unsigned n_threads);

}  // namespace cmpk

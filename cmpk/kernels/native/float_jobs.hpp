// Ranges of float_split tensors, decoded straight to where they belong.
#pragma once

#include <memory>
#include <vector>

#include "jobs.hpp"

namespace cmpk {

// As cmpk.kernels.interface.FloatJob describes it; nothing is checked yet but the signs.
struct FloatJob : JobRange {
  const FloatFormat* format;
  const FloatFormat* out_format;
  std::int64_t mantissa_bits;
  std::int64_t base;
  std::vector<Source> sources;
  Bytes exception_index;  // uint64, not necessarily aligned; nor is the next
  Bytes exception_high;   // uint16
};

// A piece's parts are decoded, merged, widened and scattered while they are in the second-level
// cache. Throws CorruptStream, or std::invalid_argument for sizes that contradict each other.
std::unique_ptr<PreparedJob> prepare(const FloatJob& job);

// Prepares and runs jobs; throws what these throw.
void decode_floats(const std::vector<FloatJob>& jobs, unsigned n_threads);

}  // namespace cmpk

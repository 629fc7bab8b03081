// Ranges of tensors of byte codes, dequantized straight to where they belong.
#pragma once

#include <memory>

#include "jobs.hpp"

namespace cmpk {

// As cmpk.kernels.interface.CodeJob describes it; nothing is checked yet but the signs.
struct CodeJob : JobRange {
  const FloatFormat* format;
  Source codes;
  Bytes scale;       // float; none of the lists need be aligned
  Bytes zero_point;  // int32
  bool has_zero_points;
  std::int64_t offset;
  std::uint64_t line;
  std::uint64_t run;
  Bytes numbers;  // float
  bool has_numbers;
  Bytes exception_index;  // uint64
  Bytes exception_code;   // int32
};

// A piece's codes are decoded and dequantized while they are in the second-level cache. Throws
// CorruptStream, or std::invalid_argument for sizes that contradict each other.
std::unique_ptr<PreparedJob> prepare(const CodeJob& job);

}  // namespace cmpk

// Ranges of tensors of byte codes, each looked up in a list of elements.
#pragma once

#include <memory>

#include "jobs.hpp"

namespace cmpk {

// As cmpk.kernels.interface.LookupJob describes it; nothing is checked yet but the signs.
struct LookupJob : JobRange {
  std::uint64_t element_nbytes;
  Source codes;
  Bytes table;  // not necessarily aligned
  std::uint64_t size;
  std::uint64_t run;
};

// A piece's codes are decoded and looked up while they are in the second-level cache. Throws
// CorruptStream, or std::invalid_argument for sizes that contradict each other.
std::unique_ptr<PreparedJob> prepare(const LookupJob& job);

}  // namespace cmpk

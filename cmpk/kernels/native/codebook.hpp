// Encoding codebook: codes looked up in lists.
#pragma once

#include "bytes.hpp"

namespace cmpk {

// Codes into codebooks of `size` centroids of unit_nbytes each.
struct Codes {
  Bytes codes;
  unsigned code_nbytes;  // 1, 2 or 4
  std::uint64_t first;   // number of the first of these codes among those of the tensor
  std::uint64_t run;     // codes in a row that share a codebook, counted from that of number 0; 0: all do
  Bytes centroids;       // of all codebooks that the codes need
  std::uint64_t size;    // 1 or more
  std::size_t unit_nbytes;  // 1 or more
};

// Writes the centroid of each code, one after another. Throws CorruptStream if a code is `size` or
// more; `out` is then undefined.
void codebook_expand(const Codes& codes, std::uint8_t* out, unsigned n_threads);

}  // namespace cmpk

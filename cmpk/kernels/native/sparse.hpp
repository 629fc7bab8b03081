// Elements among many of one value: encodings bitmask and gap_index.
#pragma once

#include "bytes.hpp"

namespace cmpk {

// Elements of one size, most of which are `fill`.
struct SparseElements {
  unsigned nbytes;           // of an element: 1, 2, 4 or 8
  const std::uint8_t* fill;  // nbytes of it
  Bytes values;              // the other elements, in order
};

// Writes n elements to `out`: the next of the values where bit start + i of the mask is set, else the
// fill. Bit i is bit i mod 8 of byte i / 8; the mask must have start + n bits. Throws CorruptStream
// unless as many bits are set as there are values; `out` is then undefined.
void bitmask_expand(Bytes mask, std::uint64_t start, const SparseElements& elements, std::uint8_t* out, std::size_t n,
                    unsigned n_threads);

// The gaps before the values of a tensor of n elements; one of max_gap has no value behind it.
struct Gaps {
  Bytes gaps;
  unsigned max_gap;  // 1 .. 255
  std::uint64_t n;
};

// Writes elements start .. start + count - 1 of the tensor to `out`; `elements` has the values of all
// of it. Looks at all gaps; throws CorruptStream if one exceeds max_gap, if they reach beyond the
// tensor or if there are more or fewer than values; `out` is then undefined.
void gaps_expand(const Gaps& gaps, const SparseElements& elements, std::uint64_t start, std::uint8_t* out,
                 std::size_t count);

}  // namespace cmpk

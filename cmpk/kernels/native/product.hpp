// Encoding product: a matrix as the product of two (spec/encodings/product.md).
#pragma once

#include "floats.hpp"

namespace cmpk {

// Writes the rows of left [rows, rank] times right [rank, columns], both float and of any alignment,
// as elements of a type. Each is summed over the rank in ascending order, every product and every sum
// rounded. rows, rank and columns are 1 or more.
void matrix_product(Bytes left, Bytes right, std::size_t rank, const FloatFormat& format, std::uint8_t* out,
                    unsigned n_threads);

}  // namespace cmpk

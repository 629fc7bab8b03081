// A tile of columns at a time: its part of the right matrix stays in cache while all rows pass.
//
// Compiled without contraction (CMakeLists.txt): a fused multiply and add would round once, not twice.
#include "product.hpp"

#include <algorithm>
#include <array>

#include "float_rounding.hpp"
#include "parallel.hpp"
#include "vectors.hpp"

namespace cmpk {

namespace {

constexpr std::size_t kTileColumns = 512;
constexpr std::size_t kBlockRows = 64;

template <class To>
CMPK_INLINE inline void multiply_tile(const std::uint8_t* left, const std::uint8_t* right, std::size_t rank,
                                      std::size_t right_columns, std::size_t columns, std::uint8_t* out) {
  using Word = typename To::Word;
  std::array<float, kTileColumns> sums;
  std::fill_n(sums.data(), columns, 0.0f);
  for (std::size_t k = 0; k < rank; ++k) {
    const float factor = load<float>(left + k * sizeof(float));
    const std::uint8_t* const row = right + k * right_columns * sizeof(float);
    for (std::size_t j = 0; j < columns; ++j) sums[j] += factor * load<float>(row + j * sizeof(float));
  }
  for (std::size_t j = 0; j < columns; ++j) store<Word>(out + j * sizeof(Word), round_any<To>(sums[j]));
}

}  // namespace

void matrix_product(Bytes left, Bytes right, std::size_t rank, const FloatFormat& format, std::uint8_t* out,
                    unsigned n_threads) {
  const std::size_t n_rows = left.size / sizeof(float) / rank;
  const std::size_t n_columns = right.size / sizeof(float) / rank;
  const std::size_t n_tiles = (n_columns + kTileColumns - 1) / kTileColumns;
  const std::size_t n_blocks = (n_rows + kBlockRows - 1) / kBlockRows;
  with_rounding(format.name, [&](auto to) {
    using To = decltype(to);
    parallel_for(n_tiles * n_blocks, n_threads, [&](unsigned, std::size_t item) {
      const FloatEnvironment environment;
      const std::size_t column = item / n_blocks * kTileColumns;
      const std::size_t first = item % n_blocks * kBlockRows;
      const std::size_t columns = std::min(kTileColumns, n_columns - column);
      with_widest_vectors([&]() CMPK_INLINE {
        for (std::size_t row = first; row < std::min(n_rows, first + kBlockRows); ++row) {
          multiply_tile<To>(left.data + row * rank * sizeof(float), right.data + column * sizeof(float), rank, n_columns,
                            columns, out + (row * n_columns + column) * sizeof(typename To::Word));
        }
      });
    });
  });
}

}  // namespace cmpk

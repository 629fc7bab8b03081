// Codes looked up in lists: one move of a known size for each, where the size is a usual one.
#include "codebook.hpp"

#include <algorithm>
#include <atomic>

#include "parallel.hpp"

namespace cmpk {

namespace {

constexpr std::size_t kPieceNbytes = std::size_t{1} << 18;

// Codes that share a codebook; whether all of them are in it. Others are taken for 0.
template <class Code, std::size_t kUnit>
bool expand(const std::uint8_t* codes, std::size_t n, const std::uint8_t* book, std::uint64_t size,
            std::size_t unit_nbytes, std::uint8_t* out) {
  const std::size_t nbytes = kUnit ? kUnit : unit_nbytes;
  bool are_known = true;
  for (std::size_t i = 0; i < n; ++i, out += nbytes) {
    std::uint64_t code = load<Code>(codes + i * sizeof(Code));
    if (code >= size) {
      are_known = false;
      code = 0;
    }
    std::memcpy(out, book + static_cast<std::size_t>(code) * nbytes, nbytes);
  }
  return are_known;
}

template <class Code>
auto expander(std::size_t unit_nbytes) {
  switch (unit_nbytes) {
    case 1: return expand<Code, 1>;
    case 2: return expand<Code, 2>;
    case 4: return expand<Code, 4>;
    case 8: return expand<Code, 8>;
    case 16: return expand<Code, 16>;
    case 32: return expand<Code, 32>;
    case 64: return expand<Code, 64>;
    default: return expand<Code, 0>;
  }
}

}  // namespace

void codebook_expand(const Codes& codes, std::uint8_t* out, unsigned n_threads) {
  const std::size_t n = codes.codes.size / codes.code_nbytes;
  const std::size_t unit = codes.unit_nbytes;
  const auto expand_run = codes.code_nbytes == 1   ? expander<std::uint8_t>(unit)
                          : codes.code_nbytes == 2 ? expander<std::uint16_t>(unit)
                                                   : expander<std::uint32_t>(unit);
  const std::size_t piece_codes = std::max<std::size_t>(1, kPieceNbytes / unit);
  const std::size_t n_pieces = n / piece_codes + (n % piece_codes != 0);
  std::atomic<bool> are_known{true};
  parallel_for(n_pieces, n_threads, [&](unsigned, std::size_t piece) {
    const std::size_t stop = std::min(n, (piece + 1) * piece_codes);
    for (std::size_t at = piece * piece_codes; at < stop;) {
      const std::uint64_t number = codes.first + at;
      const std::uint64_t book = codes.run ? number / codes.run : 0;
      std::size_t count = stop - at;
      if (codes.run) count = static_cast<std::size_t>(std::min<std::uint64_t>(count, codes.run - number % codes.run));
      if (!expand_run(codes.codes.data + at * codes.code_nbytes, count,
                      codes.centroids.data + static_cast<std::size_t>(book * codes.size) * unit, codes.size, unit,
                      out + at * unit)) {
        are_known.store(false, std::memory_order_relaxed);
      }
      at += count;
    }
  });
  if (!are_known) {
    throw CorruptStream("encoding 'codebook': a code is not in a codebook of " + std::to_string(codes.size));
  }
}

}  // namespace cmpk

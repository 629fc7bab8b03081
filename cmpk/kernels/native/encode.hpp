// What packing needs: counts, code lengths, streams.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "bytes.hpp"
#include "huffman.hpp"

namespace cmpk {

using ByteCounts = std::array<std::uint64_t, 256>;

ByteCounts byte_histogram(Bytes data);

// Optimal code lengths of at most `max_length` bits, by package-merge. Of two symbols with the same
// count the lower one's code is not the longer. Throws std::invalid_argument if max_length is not
// 1 .. 16 or too short for the symbols, or if the counts add up to more than kMaxTotalCount.
constexpr std::uint64_t kMaxTotalCount = std::uint64_t{1} << 56;
CodeLengths code_lengths(const ByteCounts& counts, unsigned max_length);

// A stream of codec huffman, encoded in two steps: the first one writes the codes to memory of its own
// and finds where every block begins, and with it the size of the stream; the second one puts them into
// their places. (Measured: counting the bits first, so as to write the codes where they stay, takes
// longer.)
class HuffmanEncoder {
 public:
  // Throws std::invalid_argument if there are no data, the lengths are not those of a code, a byte
  // of the data has no code, or chunk_log2 is out of range. The data must outlive the object.
  HuffmanEncoder(Bytes data, const CodeLengths& lengths, unsigned chunk_log2, unsigned n_threads);

  std::size_t stream_nbytes() const { return static_cast<std::size_t>(offsets_.back()); }

  // Writes stream_nbytes() bytes.
  void write(std::uint8_t* stream, unsigned n_threads) const;

 private:
  std::size_t n_chunks() const { return ((data_.size - 1) >> chunk_log2_) + 1; }
  Bytes chunk_data(std::size_t chunk) const;
  std::size_t first_block(std::size_t chunk) const { return chunk << (chunk_log2_ - kSyncLog2); }
  const std::uint32_t* block_ends(std::size_t chunk) const { return block_ends_.data() + first_block(chunk); }
  std::uint32_t total_nbits(std::size_t chunk) const;
  template <class Visit>
  void for_each_deviation(const Visit& visit) const;
  void choose_sync_width();
  void place_chunks();
  void write_head(std::uint8_t* stream) const;
  std::uint8_t* run(std::size_t chunk, std::size_t i) const;

  Bytes data_;
  CodeLengths lengths_;
  unsigned chunk_log2_;
  unsigned sync_width_ = 0;
  std::size_t run_capacity_ = 0;
  std::unique_ptr<std::uint8_t[]> runs_;  // the codes, chunk by chunk and run by run
  unsigned first_ = 255;  // of the symbols that have a code
  unsigned last_ = 0;
  std::vector<std::uint32_t> block_ends_;  // bits of their chunk at which the blocks end
  std::vector<std::uint64_t> offsets_;  // byte of the stream at which each chunk begins; then its size
};

}  // namespace cmpk

// Codec rans (spec/codecs/rans.md): its stream, encoder and decoder.
#pragma once

#include <array>
#include <vector>

#include "bytes.hpp"

namespace cmpk {

constexpr unsigned kFrequencyBits = 12;
constexpr std::uint32_t kRansSlots = 1u << kFrequencyBits;
constexpr std::size_t kRansStates = 32;
constexpr std::size_t kRansHeadBytes = 4 * kRansStates;
constexpr std::uint32_t kRansLowerBound = 1u << 16;
constexpr unsigned kRansMinChunkLog2 = 12;
constexpr unsigned kRansMaxChunkLog2 = 20;

using Frequencies = std::array<std::uint16_t, 256>;

// A stream whose head is known to be sound.
class RansStream {
 public:
  // Reads and checks all that stands before the chunks, and that they fill the rest; throws
  // CorruptStream. The bytes must outlive the object.
  RansStream(Bytes stream, std::uint64_t n);

  unsigned chunk_log2() const { return chunk_log2_; }
  std::size_t n_chunks() const { return offsets_.size() - 1; }
  std::uint64_t n_symbols() const { return n_; }

  // Decodes symbols start .. stop - 1 to `out`, by whole chunks.
  void decode(std::uint64_t start, std::uint64_t stop, std::uint8_t* out) const;

 private:
  friend class RansCursor;
  std::size_t parse_frequencies(Frequencies& frequencies) const;
  void fill_slots(const Frequencies& frequencies);

  Bytes stream_;
  std::uint64_t n_;
  unsigned chunk_log2_;
  std::vector<std::uint64_t> offsets_;  // the byte at which each chunk begins; then the end
  // For each slot: symbol in bits 24 .. 31, frequency in 12 .. 23, slot - C_s in 0 .. 11.
  std::array<std::uint32_t, kRansSlots> slots_;
};

// One chunk, decoded front to back in as many pieces as one likes.
class RansCursor {
 public:
  // Throws CorruptStream if a state of the chunk's head is out of bounds.
  RansCursor(const RansStream& stream, std::size_t chunk);

  std::uint64_t n_left() const { return n_left_; }

  // Decodes the next `count` symbols; a multiple of kRansStates, or all that are left. After the
  // last one the chunk's end is checked. Throws CorruptStream.
  void next(std::uint8_t* out, std::uint64_t count);

 private:
  const std::uint32_t* slots_;
  const std::uint8_t* word_;
  const std::uint8_t* end_;
  std::uint64_t n_left_;
  std::array<std::uint32_t, kRansStates> states_;
};

// A stream of codec rans, encoded chunk by chunk and then put together where it stays.
class RansEncoder {
 public:
  // Throws std::invalid_argument if there are no data, the frequencies do not add up to kRansSlots
  // over two symbols or more, a byte of the data has none, or chunk_log2 is out of range.
  RansEncoder(Bytes data, const Frequencies& frequencies, unsigned chunk_log2, unsigned n_threads);

  std::size_t stream_nbytes() const;

  // Writes stream_nbytes() bytes.
  void write(std::uint8_t* stream) const;

 private:
  std::vector<std::uint8_t> head_;
  std::vector<std::vector<std::uint8_t>> chunks_;
};

}  // namespace cmpk

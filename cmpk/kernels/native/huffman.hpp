// Codec huffman (spec/codecs/huffman.md): its codes, its stream and its decoder.
#pragma once

#include <array>
#include <vector>

#include "bytes.hpp"

namespace cmpk {

constexpr unsigned kMaxCodeLength = 12;
constexpr unsigned kSyncLog2 = 10;
constexpr std::uint64_t kSyncSymbols = std::uint64_t{1} << kSyncLog2;
constexpr unsigned kMinChunkLog2 = 12;
constexpr unsigned kMaxChunkLog2 = 20;
constexpr unsigned kMaxSyncWidth = 25;

using CodeLengths = std::array<std::uint8_t, 256>;

// The canonical code of each symbol, its first bit in bit 0 as it stands in the stream.
// Throws CorruptStream if the lengths exceed kMaxCodeLength or break Kraft's equality; the one
// exception is a single symbol of length 1.
std::array<std::uint16_t, 256> canonical_codes(const CodeLengths& lengths);

// For each value of the next 12 bits, the symbols whose codes lie wholly within them; or only the first
// of them, where codes are so long that few entries would hold another.
//
// An entry of several has the bits of their codes in byte 0, where a shift by a register finds its
// count, their number in byte 1, and up to six symbols above, the first one lowest. One 8-byte store,
// of the entry without its two sizes, writes all symbols and two bytes more. (Tried: four symbols and
// their sizes in two arrays of 24 KiB; as fast at best.)
//
// An entry of one has its bits in byte 0 and the symbol in byte 1: 8 KiB, which leave the first-level
// cache to the data, and how many symbols come is known beforehand.
class DecodeTable {
 public:
  static constexpr unsigned kMaxSymbols = 6;
  static constexpr unsigned kCountShift = 8;
  static constexpr unsigned kSymbolsShift = 16;

  // `lengths` satisfy Kraft's equality with two symbols or more, so that every entry holds at
  // least one symbol.
  void build(const CodeLengths& lengths);

  // Which of the two it is; that one is built, the other one is not.
  bool is_of_one() const { return is_of_one_; }
  const std::uint64_t* entries() const { return entries_.data(); }
  const std::uint16_t* entries_of_one() const { return entries_of_one_.data(); }

 private:
  template <bool kMayOverflow>
  void fill(const CodeLengths& lengths);
  void fill_of_one(const CodeLengths& lengths);

  bool is_of_one_ = false;
  alignas(64) std::array<std::uint64_t, 1u << kMaxCodeLength> entries_;
  alignas(64) std::array<std::uint16_t, 1u << kMaxCodeLength> entries_of_one_;
};

// A stream whose head is known to be sound. Symbols are decoded in whole blocks of kSyncSymbols,
// the distance of the sync points.
class HuffmanStream {
 public:
  // Reads and checks all that stands before the chunks, and that they fill the rest; throws
  // CorruptStream. The bytes must outlive the object.
  HuffmanStream(Bytes stream, std::uint64_t n);

  const CodeLengths& lengths() const { return lengths_; }
  bool is_one_symbol() const { return stream_.data[2] == stream_.data[3]; }

  // Decodes symbols start .. stop - 1 to `out`, in whole blocks: a block at either end that is
  // not wholly wanted is decoded aside. `table` belongs to lengths(); it is not used for a stream
  // of one symbol. Throws CorruptStream where a run of blocks does not end at its sync point.
  void decode(const DecodeTable& table, std::uint64_t start, std::uint64_t stop, std::uint8_t* out) const;

  // Decodes everything block by block; throws CorruptStream if any rule is broken, by a sync point
  // that lies for one.
  void check(const DecodeTable& table) const;

 private:
  std::size_t n_chunks() const { return totals_.size(); }
  void read_lengths(unsigned first, unsigned last);
  void place_chunks(std::uint64_t offset);
  std::uint64_t chunk_symbols(std::size_t chunk) const;
  void check_chunk(std::size_t chunk) const;
  std::uint64_t block_bit(std::size_t chunk, std::uint64_t block) const;
  void decode_blocks(const DecodeTable& table, std::size_t chunk, std::uint64_t first, std::uint64_t stop,
                     std::uint8_t* out) const;
  template <class Entries>
  void decode_blocks_by(Entries entries, std::size_t chunk, std::uint64_t first, std::uint64_t stop,
                        std::uint8_t* out) const;

  Bytes stream_;
  std::uint64_t n_;
  unsigned chunk_log2_;
  unsigned sync_width_;
  CodeLengths lengths_{};
  Bytes sync_points_;
  std::vector<std::uint32_t> totals_;   // T of each chunk
  std::vector<std::uint64_t> offsets_;  // the byte at which each chunk begins
};

}  // namespace cmpk

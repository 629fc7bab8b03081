// Codec huffman: the head of a stream, and where its blocks begin.
#include <algorithm>

#include "huffman.hpp"

namespace cmpk {

HuffmanStream::HuffmanStream(Bytes stream, std::uint64_t n) : stream_(stream), n_(n) {
  if (n < 1 || stream.size < 4) {
    throw CorruptStream("codec 'huffman': " + std::to_string(stream.size) + " bytes can't be a stream of " +
                        std::to_string(n) + " symbols");
  }
  chunk_log2_ = stream.data[0];
  sync_width_ = stream.data[1];
  const unsigned first = stream.data[2];
  const unsigned last = stream.data[3];
  if (chunk_log2_ < kMinChunkLog2 || chunk_log2_ > kMaxChunkLog2 || sync_width_ > kMaxSyncWidth || first > last) {
    throw CorruptStream("codec 'huffman': chunk_log2 " + std::to_string(chunk_log2_) + ", sync_width " +
                        std::to_string(sync_width_) + ", first " + std::to_string(first) + " or last " +
                        std::to_string(last) + " is out of range");
  }
  // n < 2^63, so that with at most 25 bits for each 2^10 symbols and 32 for each 2^12 no sum here
  // overflows.
  const std::uint64_t n_chunks = ((n - 1) >> chunk_log2_) + 1;
  const std::uint64_t sync_nbits = (((n - 1) >> kSyncLog2) + 1 - n_chunks) * sync_width_;
  const std::uint64_t totals_at = 4 + (last - first + 2) / 2;
  const std::uint64_t points_at = totals_at + 4 * n_chunks;
  const std::uint64_t chunks_at = points_at + (sync_nbits + 7) / 8;
  if (chunks_at > stream.size) {
    throw CorruptStream("codec 'huffman': the head of " + std::to_string(n) + " symbols takes " +
                        std::to_string(chunks_at) + " bytes, the stream has " + std::to_string(stream.size));
  }
  read_lengths(first, last);
  sync_points_ = {stream.data + points_at, static_cast<std::size_t>(chunks_at - points_at)};
  if (sync_nbits % 8 && sync_points_.data[sync_points_.size - 1] >> sync_nbits % 8) {
    throw CorruptStream("codec 'huffman': the unused bits after the sync points are not zero");
  }
  totals_.resize(static_cast<std::size_t>(n_chunks));
  std::memcpy(totals_.data(), stream.data + totals_at, 4 * totals_.size());
  place_chunks(chunks_at);
}

void HuffmanStream::read_lengths(unsigned first, unsigned last) {
  for (unsigned i = 0; i <= (last - first) / 2 * 2 + 1; ++i) {
    const unsigned nibble = stream_.data[4 + i / 2] >> (i % 2 * 4) & 15;
    if (first + i <= last) {
      lengths_[first + i] = static_cast<std::uint8_t>(nibble);
    } else if (nibble) {
      throw CorruptStream("codec 'huffman': the unused half of the last byte of lengths is not zero");
    }
  }
  if (!lengths_[first] || !lengths_[last]) {
    throw CorruptStream("codec 'huffman': the first or last symbol has no code");
  }
  canonical_codes(lengths_);
}

void HuffmanStream::place_chunks(std::uint64_t offset) {
  offsets_.resize(totals_.size() + 1);
  for (std::size_t chunk = 0; chunk < totals_.size(); ++chunk) {
    const std::uint64_t symbols = chunk_symbols(chunk);
    const std::uint64_t total = totals_[chunk];
    // Each symbol takes one bit at least, and no more than its code can have.
    if (total < symbols || total > symbols * (is_one_symbol() ? 1 : kMaxCodeLength)) {
      throw CorruptStream("codec 'huffman': chunk " + std::to_string(chunk) + " has " + std::to_string(total) +
                          " bits for " + std::to_string(symbols) + " symbols");
    }
    offsets_[chunk] = offset;
    offset += (total + 7) / 8;
  }
  offsets_.back() = offset;
  if (offset != stream_.size) {
    throw CorruptStream("codec 'huffman': the chunks end at byte " + std::to_string(offset) + ", the stream has " +
                        std::to_string(stream_.size));
  }
}

std::uint64_t HuffmanStream::chunk_symbols(std::size_t chunk) const {
  return std::min(std::uint64_t{1} << chunk_log2_, n_ - (std::uint64_t{chunk} << chunk_log2_));
}

// The bit of the stream at which a block of a chunk begins; for the block after the last one, the
// bit at which the chunk ends.
std::uint64_t HuffmanStream::block_bit(std::size_t chunk, std::uint64_t block) const {
  const std::uint64_t begin = offsets_[chunk] * 8;
  const std::uint64_t total = totals_[chunk];
  const std::uint64_t symbols = chunk_symbols(chunk);
  if (block == 0) return begin;
  if (block * kSyncSymbols >= symbols) return begin + total;
  // Below 2^20 * 2^24.
  std::int64_t position = static_cast<std::int64_t>(block * kSyncSymbols * total / symbols);
  if (sync_width_) {
    const std::uint64_t points_before = std::uint64_t{chunk} * ((std::uint64_t{1} << (chunk_log2_ - kSyncLog2)) - 1);
    const std::uint64_t bit = (points_before + block - 1) * sync_width_;
    const std::uint64_t word = load_padded(sync_points_, static_cast<std::size_t>(bit >> 3)) >> (bit & 7);
    const std::uint64_t deviation = word & ((std::uint64_t{1} << sync_width_) - 1);
    position += static_cast<std::int64_t>(deviation) - (std::int64_t{1} << (sync_width_ - 1));
  }
  if (position < 0 || position > static_cast<std::int64_t>(total)) {
    throw CorruptStream("codec 'huffman': a sync point lies outside its chunk");
  }
  return begin + static_cast<std::uint64_t>(position);
}

// What needs no decoding: the bits after T, and all bits of a stream of one symbol.
void HuffmanStream::check_chunk(std::size_t chunk) const {
  if (stream_.data[offsets_[chunk + 1] - 1] >> ((totals_[chunk] - 1) % 8 + 1)) {
    throw CorruptStream("codec 'huffman': the unused bits of a chunk's last byte are not zero");
  }
  if (!is_one_symbol()) return;
  std::uint8_t bits = 0;
  for (std::uint64_t at = offsets_[chunk]; at < offsets_[chunk + 1]; ++at) bits |= stream_.data[at];
  if (bits) throw CorruptStream("codec 'huffman': a stream of one symbol has bits that are not zero");
}

}  // namespace cmpk

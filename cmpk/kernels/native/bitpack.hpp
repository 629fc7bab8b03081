// Codec bitpack (spec/codecs/bitpack.md).
#pragma once

#include "bytes.hpp"

namespace cmpk {

// Bytes of a stream of n symbols of `width` bits, 1 .. 7.
std::uint64_t bitpack_stream_nbytes(std::uint64_t n, unsigned width);

// Writes bitpack_stream_nbytes(data.size, width) bytes. Throws std::invalid_argument if a byte of
// the data is 2^width or more.
void bitpack_encode(Bytes data, unsigned width, std::uint8_t* stream);

class BitpackStream {
 public:
  // Checks the whole stream; throws CorruptStream. The bytes must outlive the object.
  BitpackStream(Bytes stream, std::uint64_t n);

  unsigned width() const { return width_; }

  // Decodes symbols start .. stop - 1 to `out`.
  void decode(std::uint64_t start, std::uint64_t stop, std::uint8_t* out) const;

 private:
  void decode_block(std::uint64_t block, std::uint8_t* out) const;

  Bytes stream_;
  std::uint64_t n_;
  unsigned width_;
};

}  // namespace cmpk

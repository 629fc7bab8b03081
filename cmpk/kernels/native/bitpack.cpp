// Codec bitpack: bytes without their zero upper bits.
#include "bitpack.hpp"

#include <algorithm>

#include "vectors.hpp"

namespace cmpk {

namespace {

constexpr std::size_t kBlockSymbols = 1024;
// A block is taken as eight groups of this many symbols: the symbols at one place in all groups
// have their fields at one place in the planes.
constexpr std::size_t kGroup = kBlockSymbols / 8;

// Eight bytes at a time are shifted as one word: what crosses from one byte into the next is masked
// off, and compilers make full vectors of it without instructions that shift single bytes.
constexpr std::uint64_t repeat(std::uint64_t octet) { return octet * 0x0101010101010101u; }

// Where fields of kBits are in a symbol of kWidth bits.
template <unsigned kWidth, unsigned kBits>
constexpr unsigned field_shift() {
  return kWidth & (kBits - 1);
}

// The fields of eight symbols of one group, where they are in the symbols.
template <unsigned kWidth, unsigned kBits>
CMPK_INLINE inline std::uint64_t read_field(const std::uint8_t* plane, std::size_t group, std::size_t i) {
  const std::uint64_t word = load<std::uint64_t>(plane + group % kBits * kGroup + i);
  return (word >> (group / kBits * kBits) & repeat((1u << kBits) - 1)) << field_shift<kWidth, kBits>();
}

template <unsigned kWidth>
CMPK_INLINE inline void unpack_planes(const std::uint8_t* planes, std::uint8_t* out) {
  const std::uint8_t* const plane2 = planes + (kWidth & 4) * kGroup;
  const std::uint8_t* const plane1 = planes + (kWidth & 6) * kGroup;
  for (std::size_t group = 0; group < 8; ++group) {
    for (std::size_t i = 0; i < kGroup; i += 8) {
      std::uint64_t symbols = 0;
      if (kWidth & 4) symbols |= read_field<kWidth, 4>(planes, group, i);
      if (kWidth & 2) symbols |= read_field<kWidth, 2>(plane2, group, i);
      if (kWidth & 1) symbols |= read_field<kWidth, 1>(plane1, group, i);
      store(out + group * kGroup + i, symbols);
    }
  }
}

template <unsigned kWidth>
void unpack_block(const std::uint8_t* planes, std::uint8_t* out) {
  with_widest_vectors([&]() CMPK_INLINE { unpack_planes<kWidth>(planes, out); });
}

template <unsigned kWidth, unsigned kBits>
CMPK_INLINE inline void pack_plane(const std::uint8_t* in, std::uint8_t* plane) {
  for (std::size_t i = 0; i < kBits * kGroup; i += 8) {
    std::uint64_t word = 0;
    for (unsigned k = 0; k < 8 / kBits; ++k) {
      const std::uint64_t symbols = load<std::uint64_t>(in + k * kBits * kGroup + i);
      word |= (symbols >> field_shift<kWidth, kBits>() & repeat((1u << kBits) - 1)) << (k * kBits);
    }
    store(plane + i, word);
  }
}

template <unsigned kWidth>
void pack_block(const std::uint8_t* in, std::uint8_t* planes) {
  with_widest_vectors([&]() CMPK_INLINE {
    if (kWidth & 4) pack_plane<kWidth, 4>(in, planes);
    if (kWidth & 2) pack_plane<kWidth, 2>(in, planes + (kWidth & 4) * kGroup);
    if (kWidth & 1) pack_plane<kWidth, 1>(in, planes + (kWidth & 6) * kGroup);
  });
}

// The last block, of `n` symbols below kBlockSymbols; calls visit(byte, bit, field bits, field
// shift, symbol) for each field of each symbol, those that extend the block to a multiple of eight
// included.
template <class Visit>
void for_each_field(std::size_t n, unsigned width, const Visit& visit) {
  const std::size_t extended = (n + 7) / 8 * 8;
  std::size_t plane = 0;
  for (unsigned nbits = 4; nbits; nbits /= 2) {
    if (!(width & nbits)) continue;
    const std::size_t plane_nbytes = extended * nbits / 8;
    for (std::size_t i = 0; i < extended; ++i) {
      const unsigned bit = nbits * static_cast<unsigned>(i / plane_nbytes);
      visit(plane + i % plane_nbytes, bit, nbits, width & (nbits - 1), i);
    }
    plane += plane_nbytes;
  }
}

using BlockFunction = void (*)(const std::uint8_t*, std::uint8_t*);
constexpr BlockFunction kUnpackBlock[8] = {nullptr,         unpack_block<1>, unpack_block<2>, unpack_block<3>,
                                           unpack_block<4>, unpack_block<5>, unpack_block<6>, unpack_block<7>};
constexpr BlockFunction kPackBlock[8] = {nullptr,       pack_block<1>, pack_block<2>, pack_block<3>,
                                         pack_block<4>, pack_block<5>, pack_block<6>, pack_block<7>};

}  // namespace

std::uint64_t bitpack_stream_nbytes(std::uint64_t n, unsigned width) {
  return 1 + n / kBlockSymbols * (kGroup * width) + (n % kBlockSymbols + 7) / 8 * width;
}

void bitpack_encode(Bytes data, unsigned width, std::uint8_t* stream) {
  std::uint8_t all = 0;
  for (std::size_t i = 0; i < data.size; ++i) all |= data.data[i];
  if (all >> width) throw std::invalid_argument("a byte does not fit " + std::to_string(width) + " bits");
  *stream++ = static_cast<std::uint8_t>(width);
  const std::size_t n_whole = data.size / kBlockSymbols;
  for (std::size_t block = 0; block < n_whole; ++block, stream += kGroup * width) {
    kPackBlock[width](data.data + block * kBlockSymbols, stream);
  }
  const std::uint8_t* const rest = data.data + n_whole * kBlockSymbols;
  const std::size_t n_rest = data.size % kBlockSymbols;
  if (n_rest) std::memset(stream, 0, (n_rest + 7) / 8 * width);
  for_each_field(n_rest, width, [&](std::size_t at, unsigned bit, unsigned nbits, unsigned shift, std::size_t i) {
    const unsigned field = i < n_rest ? rest[i] >> shift & ((1u << nbits) - 1) : 0;
    stream[at] = static_cast<std::uint8_t>(stream[at] | field << bit);
  });
}

BitpackStream::BitpackStream(Bytes stream, std::uint64_t n) : stream_(stream), n_(n) {
  width_ = stream.size ? stream.data[0] : 0;
  if (width_ < 1 || width_ > 7) {
    throw CorruptStream("codec 'bitpack': width is " + std::to_string(width_) + "; it must be 1 .. 7");
  }
  if (stream.size != bitpack_stream_nbytes(n, width_)) {
    throw CorruptStream("codec 'bitpack': stream has " + std::to_string(stream.size) + " bytes; " + std::to_string(n) +
                        " symbols of " + std::to_string(width_) + " bits take " +
                        std::to_string(bitpack_stream_nbytes(n, width_)));
  }
  const std::size_t n_rest = static_cast<std::size_t>(n % kBlockSymbols);
  const std::uint8_t* const last = stream.data + bitpack_stream_nbytes(n - n_rest, width_);
  for_each_field(n_rest, width_, [&](std::size_t at, unsigned bit, unsigned nbits, unsigned, std::size_t i) {
    if (i >= n_rest && last[at] >> bit & ((1u << nbits) - 1)) {
      throw CorruptStream("codec 'bitpack': the padding of the last block is not zero");
    }
  });
}

// A whole block to kBlockSymbols bytes, the last one to as many as it has symbols.
void BitpackStream::decode_block(std::uint64_t block, std::uint8_t* out) const {
  const std::uint8_t* const planes = stream_.data + bitpack_stream_nbytes(block * kBlockSymbols, width_);
  const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(kBlockSymbols, n_ - block * kBlockSymbols));
  if (n == kBlockSymbols) return kUnpackBlock[width_](planes, out);
  std::memset(out, 0, n);
  for_each_field(n, width_, [&](std::size_t at, unsigned bit, unsigned nbits, unsigned shift, std::size_t i) {
    if (i < n) out[i] = static_cast<std::uint8_t>(out[i] | (planes[at] >> bit & ((1u << nbits) - 1)) << shift);
  });
}

void BitpackStream::decode(std::uint64_t start, std::uint64_t stop, std::uint8_t* out) const {
  std::uint8_t aside[kBlockSymbols];
  while (start < stop) {
    const std::uint64_t block = start / kBlockSymbols;
    const std::uint64_t block_start = block * kBlockSymbols;
    const std::uint64_t end = std::min(stop, block_start + kBlockSymbols);
    if (start == block_start && end == std::min(n_, block_start + kBlockSymbols)) {
      decode_block(block, out);
    } else {
      decode_block(block, aside);
      std::memcpy(out, aside + (start - block_start), static_cast<std::size_t>(end - start));
    }
    out += end - start;
    start = end;
  }
}

}  // namespace cmpk

// Valid streams of every codec, where their parts are, and sizes that fit.
#include "streams.hpp"

#include <algorithm>
#include <numeric>

#include "bitpack.hpp"
#include "encode.hpp"

namespace fuzz {

namespace {

constexpr std::uint64_t kMaxRepaired = std::uint64_t{1} << 20;

std::uint32_t word_at(const Stream& stream, std::uint64_t offset) {
  return static_cast<std::uint32_t>(
      cmpk::load_padded({stream.data(), stream.size()}, static_cast<std::size_t>(offset)));
}

// Where the parts of a stream begin, as far as its head can be right; all sizes stay below 2^63.
struct Head {
  std::uint64_t table = 0;   // code lengths, or sizes of frequencies
  std::uint64_t lower = 0;   // the frequencies' lower bits
  std::uint64_t totals = 0;  // a number for each chunk
  std::uint64_t points = 0;  // sync points
  std::uint64_t chunks = 0;
  std::uint64_t end = 0;
};

Head head_of(Codec codec, const Stream& stream, std::uint64_t n) {
  const auto byte = [&](std::size_t i) -> std::uint64_t { return i < stream.size() ? stream[i] : 0; };
  const bool is_huffman = codec == kHuffman;
  const std::uint64_t chunk_log2 = byte(0) & 31;
  const std::uint64_t n_chunks = n ? ((n - 1) >> chunk_log2) + 1 : 0;
  const std::uint64_t first = byte(is_huffman ? 2 : 1);
  const std::uint64_t n_symbols = (byte(is_huffman ? 3 : 2) - first + 1) & 511;
  Head head;
  head.table = is_huffman ? 4 : 3;
  head.lower = head.table + (n_symbols + 1) / 2;
  std::uint64_t n_lower = 0;
  for (std::uint64_t i = 0; !is_huffman && i < n_symbols; ++i) {
    const unsigned size = static_cast<unsigned>(byte(static_cast<std::size_t>(3 + i / 2)) >> (i % 2 * 4) & 15);
    n_lower += size ? size - 1 : 0;
  }
  head.totals = head.lower + (n_lower + 7) / 8;
  head.points = head.totals + 4 * n_chunks;
  const std::uint64_t n_points = n && is_huffman ? ((n - 1) >> 10) + 1 - n_chunks : 0;
  head.chunks = head.points + ((n_points & 0xffffffff) * (byte(1) & 31) + 7) / 8;
  head.end = head.chunks;
  for (std::uint64_t i = 0; i < n_chunks && head.totals + 4 * i < stream.size(); ++i) {
    const std::uint64_t total = word_at(stream, head.totals + 4 * i);
    head.end += is_huffman ? (total + 7) / 8 : total;
  }
  return head;
}

}  // namespace

Stream skewed_bytes(Random& random, std::size_t n) {
  // Each of 256 chances leads to a symbol: how many to the same one makes the skew.
  std::uint8_t symbols[256];
  const std::uint64_t first = random.below(256);
  const std::uint64_t step = random.once_in(3) ? 1 + random.below(255) : 1;
  const std::uint64_t n_symbols = 1 + random.size(255);
  const std::uint64_t skew = random.below(8);
  for (std::uint8_t& symbol : symbols) {
    std::uint64_t index = random.below(n_symbols);
    for (std::uint64_t i = 0; i < skew; ++i) index = std::min(index, random.below(n_symbols));
    symbol = static_cast<std::uint8_t>(first + index * step);
  }
  Stream data(n);
  for (std::uint8_t& byte : data) byte = symbols[random.next() >> 56];
  // A run makes sync points stray from their line.
  if (n && random.once_in(4)) {
    const std::size_t at = static_cast<std::size_t>(random.below(n));
    std::fill_n(data.begin() + static_cast<std::ptrdiff_t>(at), random.below(n - at + 1), data[at]);
  }
  return data;
}

cmpk::CodeLengths fresh_code_lengths(Random& random, const Stream& data) {
  cmpk::ByteCounts counts = cmpk::byte_histogram({data.data(), data.size()});
  for (std::uint64_t i = random.once_in(2) ? random.size(256) : 0; i; --i)
    counts[random.below(256)] += random.once_in(2);
  std::size_t n = 0;
  for (const std::uint64_t count : counts) n += count != 0;
  unsigned shortest = 1;
  while (n > std::size_t{1} << shortest) ++shortest;
  const unsigned max_length = random.once_in(2) ? 12 : shortest + static_cast<unsigned>(random.below(13 - shortest));
  return cmpk::code_lengths(counts, max_length);
}

cmpk::Frequencies fresh_frequencies(Random& random, const Stream& data) {
  cmpk::Frequencies frequencies{};
  for (const std::uint8_t byte : data) frequencies[byte] = 1;
  frequencies[random.below(256)] = 1;
  if (std::accumulate(frequencies.begin(), frequencies.end(), 0u) < 2)
    frequencies[(data.empty() ? 0 : data[0]) ^ 1u] = 1;
  const bool follow_data = !data.empty() && !random.once_in(4);
  std::uint32_t left = cmpk::kRansSlots - std::accumulate(frequencies.begin(), frequencies.end(), 0u);
  while (left) {
    const std::size_t symbol = follow_data ? random.of(data) : random.below(256);
    const std::uint32_t more =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(left, 1 + random.size(follow_data ? 16 : left)));
    frequencies[symbol] = static_cast<std::uint16_t>(frequencies[symbol] + more);
    left -= more;
  }
  return frequencies;
}

Stream rans_stream(cmpk::Bytes data, const cmpk::Frequencies& frequencies, unsigned chunk_log2, unsigned n_threads) {
  const cmpk::RansEncoder encoder(data, frequencies, chunk_log2, n_threads);
  // Twice, over different bytes: what is not written differs.
  Stream stream(encoder.stream_nbytes(), 0x00);
  encoder.write(stream.data());
  Stream again(encoder.stream_nbytes(), 0xff);
  encoder.write(again.data());
  require(stream == again, "every bit of a stream is written");
  return stream;
}

Stream fresh_stream(Random& random, Codec codec, Stream& data) {
  const cmpk::Bytes bytes{data.data(), data.size()};
  // Small chunks more often: several of them are what matters.
  const unsigned chunk_log2 = 12 + static_cast<unsigned>(random.once_in(2) ? 0 : random.below(9));
  switch (codec) {
    case kBitpack: {
      std::uint8_t all = 0;
      for (std::uint8_t& byte : data) all |= byte &= 0x7f;
      unsigned width = 1;
      while (all >> width) ++width;
      Stream stream(cmpk::bitpack_stream_nbytes(data.size(), width));
      cmpk::bitpack_encode(bytes, width, stream.data());
      return stream;
    }
    case kHuffman: {
      if (data.empty()) return {};
      const cmpk::HuffmanEncoder encoder(bytes, fresh_code_lengths(random, data), chunk_log2, 1);
      Stream stream(encoder.stream_nbytes());
      encoder.write(stream.data(), 1);
      return stream;
    }
    case kRans:
      if (data.empty()) return {};
      return rans_stream(bytes, fresh_frequencies(random, data), chunk_log2);
    default:
      return data;
  }
}

Spans spans_of(Codec codec, const Stream& stream, std::uint64_t n) {
  if (codec == kRaw) return {};
  if (codec == kBitpack)
    return {{0, 1, Kind::kBytes},
            {stream.size() - std::min<std::size_t>(stream.size(), 8), stream.size(), Kind::kBytes}};
  const Head head = head_of(codec, stream, n);
  Spans spans;
  const auto add = [&](std::uint64_t begin, std::uint64_t end, Kind kind) {
    const std::uint64_t size = stream.size();
    spans.push_back(
        {static_cast<std::size_t>(std::min(begin, size)), static_cast<std::size_t>(std::min(end, size)), kind});
  };
  add(0, head.table, Kind::kBytes);
  add(head.table, head.lower, Kind::kNibbles);
  add(head.lower, head.totals, Kind::kBytes);
  add(head.totals, head.points, Kind::kWords32);
  add(head.points, head.chunks, Kind::kBytes);
  if (codec == kRans) add(head.chunks, head.chunks + cmpk::kRansHeadBytes, Kind::kWords32);
  add(head.chunks, head.end, codec == kRans ? Kind::kWords16 : Kind::kBytes);
  add(stream.size() - std::min<std::size_t>(stream.size(), 4), stream.size(), Kind::kBytes);
  return spans;
}

void repair_size(Codec codec, Stream& stream, std::uint64_t n) {
  if (stream.empty()) return;
  std::uint64_t size = n;
  if (codec == kBitpack) size = cmpk::bitpack_stream_nbytes(n, stream[0] & 7);
  if (codec == kHuffman || codec == kRans) size = head_of(codec, stream, n).end;
  if (size <= kMaxRepaired) stream.resize(static_cast<std::size_t>(size));
}

cmpk::Frequencies frequencies_of(const Stream& stream) {
  cmpk::Frequencies frequencies{};
  if (stream.size() < 4) return frequencies;
  const unsigned first = stream[1], last = stream[2];
  const std::size_t lower = static_cast<std::size_t>(head_of(kRans, stream, 0).lower);
  std::size_t bit = 0;
  for (unsigned s = first; s <= last; ++s) {
    const unsigned size = (word_at(stream, 3 + (s - first) / 2) & 255) >> ((s - first) % 2 * 4) & 15;
    if (!size) continue;
    const std::uint32_t high = 1u << (size - 1);
    frequencies[s] = static_cast<std::uint16_t>(high | (word_at(stream, lower + bit / 8) >> bit % 8 & (high - 1)));
    bit += size - 1;
  }
  return frequencies;
}

}  // namespace fuzz

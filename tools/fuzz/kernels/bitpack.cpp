// Codec bitpack: reading, and writing what was read.
#include "bitpack.hpp"

#include <algorithm>

#include "streams.hpp"

namespace {

using namespace fuzz;

enum : std::size_t { kN, kStart, kCount, kWidth, kNumbers };
enum : std::size_t { kStream, kData, kStreams };
constexpr std::uint64_t kMaxOut = std::uint64_t{1} << 20;

Case fresh(Random& random) {
  Stream data = skewed_bytes(random, random.size(6000));
  Stream stream = fresh_stream(random, kBitpack, data);
  const std::uint64_t start = random.once_in(2) ? 0 : random.below(data.size());
  const std::uint64_t count = random.once_in(2) ? data.size() - start : random.below(data.size() - start);
  const std::uint64_t n = data.size();
  return {{n, start, count, random.below(9)}, {std::move(stream), std::move(data)}};
}

Spans spans(const Case& input, std::size_t stream) {
  return stream == kStream ? spans_of(kBitpack, input.streams[kStream], input.numbers[kN]) : Spans{};
}

void repair(Case& input) { repair_size(kBitpack, input.streams[kStream], input.numbers[kN]); }

void decode(const Case& input) {
  const Exact stream(input.streams[kStream]);
  const std::uint64_t n = std::min(input.numbers[kN], (std::uint64_t{1} << 51) - 1);
  const std::uint64_t start = std::min(input.numbers[kStart], n);
  const std::uint64_t count = std::min({input.numbers[kCount], n - start, kMaxOut});
  try {
    const cmpk::BitpackStream parsed(stream.bytes(), n);
    require(n <= 8 * stream.size(), "no stream holds more than eight symbols a byte");
    const Exact range(static_cast<std::size_t>(count));
    parsed.decode(start, start + count, range.data());
    const Exact whole(static_cast<std::size_t>(n));
    parsed.decode(0, n, whole.data());
    require(!count || !std::memcmp(range.data(), whole.data() + start, range.size()), "a range is part of the whole");
    const Exact again(stream.size());
    cmpk::bitpack_encode(whole.bytes(), stream.data()[0], again.data());
    require(again == stream, "a stream that is valid is the encoder's own");
  } catch (const cmpk::CorruptStream&) {
  }
}

void encode(const Case& input) {
  const Exact data(input.streams[kData]);
  const unsigned width = 1 + static_cast<unsigned>(input.numbers[kWidth] % 7);
  const Exact stream(static_cast<std::size_t>(cmpk::bitpack_stream_nbytes(data.size(), width)));
  try {
    cmpk::bitpack_encode(data.bytes(), width, stream.data());
  } catch (const std::invalid_argument&) {
    return;
  }
  const Exact decoded(data.size());
  cmpk::BitpackStream(stream.bytes(), data.size()).decode(0, data.size(), decoded.data());
  require(decoded == data, "a stream decodes to what it was made of");
}

void run(const Case& input) {
  decode(input);
  encode(input);
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, kStreams, fresh, spans, repair, run};

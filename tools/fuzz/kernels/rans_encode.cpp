// Codec rans, writing: what is written decodes to what was given.
#include <algorithm>

#include "streams.hpp"

namespace {

using namespace fuzz;

enum : std::size_t { kChunkLog2, kRepeat, kThreads, kNumbers };
enum : std::size_t { kData, kFrequencies, kStreams };

Stream bytes_of(const cmpk::Frequencies& frequencies) {
  Stream bytes(2 * frequencies.size());
  std::memcpy(bytes.data(), frequencies.data(), bytes.size());
  return bytes;
}

Case fresh(Random& random) {
  Stream data = skewed_bytes(random, 1 + random.size(20000));
  Stream frequencies = bytes_of(fresh_frequencies(random, data));
  return {{12 + random.below(9), random.once_in(8) ? random.below(8) : 0, random.once_in(32) ? 2u : 1u},
          {std::move(data), std::move(frequencies)}};
}

Spans spans(const Case& input, std::size_t stream) {
  return {{0, input.streams[stream].size(), stream == kFrequencies ? Kind::kWords16 : Kind::kBytes}};
}

void repair(Case& input) {
  Random random(input.numbers[kRepeat]);
  input.streams[kFrequencies] = bytes_of(fresh_frequencies(random, input.streams[kData]));
  input.numbers[kChunkLog2] = 12 + input.numbers[kChunkLog2] % 9;
}

void run(const Case& input) {
  Stream repeated;
  for (std::uint64_t i = 0; i <= input.numbers[kRepeat] % 8 && repeated.size() < 400000; ++i) {
    repeated.insert(repeated.end(), input.streams[kData].begin(), input.streams[kData].end());
  }
  const Exact data(repeated);
  const Stream& given = input.streams[kFrequencies];
  cmpk::Frequencies frequencies{};
  if (!given.empty()) std::memcpy(frequencies.data(), given.data(), std::min(sizeof frequencies, given.size()));
  const unsigned chunk_log2 = static_cast<unsigned>(input.numbers[kChunkLog2]);
  Stream encoded;
  try {
    encoded = rans_stream(data.bytes(), frequencies, chunk_log2, 1 + (input.numbers[kThreads] == 2));
  } catch (const std::invalid_argument&) {
    return;
  }
  const Exact stream(encoded);
  const cmpk::RansStream parsed(stream.bytes(), data.size());
  require(frequencies_of(encoded) == frequencies, "the head holds the frequencies");
  const Exact decoded(data.size());
  parsed.decode(0, data.size(), decoded.data());
  require(decoded == data, "a stream decodes to what it was made of");
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, kStreams, fresh, spans, repair, run};

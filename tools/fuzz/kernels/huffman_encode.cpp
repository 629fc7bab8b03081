// Codec huffman, writing: what is written is valid and decodes to what was given.
#include <algorithm>

#include "encode.hpp"
#include "streams.hpp"

namespace {

using namespace fuzz;

enum : std::size_t { kChunkLog2, kRepeat, kThreads, kNumbers };
enum : std::size_t { kData, kLengths, kStreams };

Case fresh(Random& random) {
  Stream data = skewed_bytes(random, 1 + random.size(20000));
  const cmpk::CodeLengths lengths = fresh_code_lengths(random, data);
  return {{12 + random.below(9), random.once_in(8) ? 1 + random.below(8) : 1, random.once_in(32) ? 2u : 1u},
          {std::move(data), Stream(lengths.begin(), lengths.end())}};
}

Spans spans(const Case& input, std::size_t stream) {
  return {{0, input.streams[stream].size(), stream == kLengths ? Kind::kNibbles : Kind::kBytes}};
}

// Mostly lengths that are those of a code for the data.
void repair(Case& input) {
  Random random(input.numbers[kRepeat]);
  const cmpk::CodeLengths lengths = fresh_code_lengths(random, input.streams[kData]);
  input.streams[kLengths].assign(lengths.begin(), lengths.end());
  input.numbers[kChunkLog2] = 12 + input.numbers[kChunkLog2] % 9;
}

void run(const Case& input) {
  Stream repeated;
  for (std::uint64_t i = 0; i <= input.numbers[kRepeat] % 8 && repeated.size() < 400000; ++i) {
    repeated.insert(repeated.end(), input.streams[kData].begin(), input.streams[kData].end());
  }
  const Exact data(repeated);
  cmpk::CodeLengths lengths{};
  std::copy_n(input.streams[kLengths].begin(), std::min<std::size_t>(256, input.streams[kLengths].size()),
              lengths.begin());
  const unsigned n_threads = 1 + (input.numbers[kThreads] == 2);
  std::unique_ptr<const cmpk::HuffmanEncoder> encoder;
  try {
    encoder = std::make_unique<cmpk::HuffmanEncoder>(data.bytes(), lengths,
                                                     static_cast<unsigned>(input.numbers[kChunkLog2]), n_threads);
  } catch (const std::invalid_argument&) {
    return;
  }
  const Exact stream(encoder->stream_nbytes(), 0x00);
  encoder->write(stream.data(), n_threads);
  const Exact again(encoder->stream_nbytes(), 0xff);
  encoder->write(again.data(), 1);
  require(stream == again, "every bit of a stream is written, whatever the number of threads");
  const cmpk::HuffmanStream parsed(stream.bytes(), data.size());
  const auto table = std::make_unique<cmpk::DecodeTable>();
  if (!parsed.is_one_symbol()) table->build(parsed.lengths());
  parsed.check(*table);
  const Exact decoded(data.size());
  parsed.decode(*table, 0, data.size(), decoded.data());
  require(decoded == data, "a stream decodes to what it was made of");
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, kStreams, fresh, spans, repair, run};

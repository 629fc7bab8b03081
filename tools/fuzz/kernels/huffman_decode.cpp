// Codec huffman, reading: whole streams, ranges, sync points.
#include <algorithm>

#include "encode.hpp"
#include "streams.hpp"

namespace {

using namespace fuzz;

enum : std::size_t { kN, kStart, kCount, kNumbers };
constexpr std::uint64_t kMaxOut = std::uint64_t{1} << 21;

Case fresh(Random& random) {
  Stream data = skewed_bytes(random, 1 + random.size(random.once_in(16) ? 300000 : 20000));
  const std::uint64_t start = random.once_in(2) ? 0 : random.below(data.size());
  const std::uint64_t count = random.once_in(2) ? data.size() - start : random.below(data.size() - start);
  const std::uint64_t n = data.size();
  return {{n, start, count}, {fresh_stream(random, kHuffman, data)}};
}

Spans spans(const Case& input, std::size_t stream) {
  return spans_of(kHuffman, input.streams[stream], input.numbers[kN]);
}

void repair(Case& input) { repair_size(kHuffman, input.streams[0], input.numbers[kN]); }

template <class F>
bool succeeds(const F& decode) {
  try {
    decode();
    return true;
  } catch (const cmpk::CorruptStream&) {
    return false;
  }
}

void check_against_encoder(const Exact& stream, const cmpk::HuffmanStream& parsed, const Exact& symbols) {
  const cmpk::HuffmanEncoder encoder(symbols.bytes(), parsed.lengths(), stream.data()[0], 1);
  Exact again(encoder.stream_nbytes());
  encoder.write(again.data(), 1);
  // The encoder takes the narrowest sync points; a valid stream may have wider ones.
  if (again.data()[1] == stream.data()[1]) require(again == stream, "a stream that is valid is the encoder's own");
}

void run(const Case& input) {
  const Exact stream(input.streams[0]);
  const std::uint64_t n = input.numbers[kN] >> 13;  // below 2^51, as callers promise
  const std::uint64_t as_given = input.numbers[kN];
  const std::uint64_t n_symbols = as_given < std::uint64_t{1} << 51 ? as_given : n;
  const std::uint64_t start = std::min(input.numbers[kStart], n_symbols);
  const std::uint64_t count = std::min({input.numbers[kCount], n_symbols - start, kMaxOut});
  std::unique_ptr<cmpk::HuffmanStream> parsed;
  if (!succeeds([&] { parsed = std::make_unique<cmpk::HuffmanStream>(stream.bytes(), n_symbols); })) return;
  const auto table = std::make_unique<cmpk::DecodeTable>();
  if (!parsed->is_one_symbol()) table->build(parsed->lengths());
  const bool is_valid = succeeds([&] { parsed->check(*table); });
  const Exact range(static_cast<std::size_t>(count));
  const bool has_range = succeeds([&] { parsed->decode(*table, start, start + count, range.data()); });
  require(n_symbols <= 8 * stream.size(), "no stream holds more than eight symbols a byte");
  const Exact whole(static_cast<std::size_t>(n_symbols));
  const bool has_whole = succeeds([&] { parsed->decode(*table, 0, n_symbols, whole.data()); });
  if (!is_valid) return;
  require(has_whole && has_range, "what is valid can be decoded");
  require(!count || !std::memcmp(range.data(), whole.data() + start, range.size()), "a range is part of the whole");
  check_against_encoder(stream, *parsed, whole);
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, 1, fresh, spans, repair, run};

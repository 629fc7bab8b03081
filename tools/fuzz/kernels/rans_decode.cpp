// Codec rans, reading: whole streams, ranges, and chunks piece by piece.
#include <algorithm>

#include "streams.hpp"

namespace {

using namespace fuzz;

enum : std::size_t { kN, kStart, kCount, kPiece, kNumbers };
constexpr std::uint64_t kMaxOut = std::uint64_t{1} << 21;

Case fresh(Random& random) {
  Stream data = skewed_bytes(random, 1 + random.size(random.once_in(16) ? 300000 : 20000));
  const std::uint64_t start = random.once_in(2) ? 0 : random.below(data.size());
  const std::uint64_t count = random.once_in(2) ? data.size() - start : random.below(data.size() - start);
  const std::uint64_t n = data.size();
  return {{n, start, count, random.size(100)}, {fresh_stream(random, kRans, data)}};
}

Spans spans(const Case& input, std::size_t stream) { return spans_of(kRans, input.streams[stream], input.numbers[kN]); }

void repair(Case& input) { repair_size(kRans, input.streams[0], input.numbers[kN]); }

template <class F>
bool succeeds(const F& decode) {
  try {
    decode();
    return true;
  } catch (const cmpk::CorruptStream&) {
    return false;
  }
}

// Chunk by chunk, some rows at a time.
void decode_in_pieces(const cmpk::RansStream& stream, std::uint64_t rows, std::uint8_t* out) {
  for (std::size_t chunk = 0; chunk < stream.n_chunks(); ++chunk) {
    cmpk::RansCursor cursor(stream, chunk);
    while (cursor.n_left()) {
      const std::uint64_t n = std::min<std::uint64_t>(cursor.n_left(), (1 + rows) * cmpk::kRansStates);
      cursor.next(out, n);
      out += n;
    }
  }
}

void run(const Case& input) {
  const Exact stream(input.streams[0]);
  const std::uint64_t n = std::min(input.numbers[kN], (std::uint64_t{1} << 61) - 1);
  const std::uint64_t start = std::min(input.numbers[kStart], n);
  const std::uint64_t count = std::min({input.numbers[kCount], n - start, kMaxOut});
  std::unique_ptr<cmpk::RansStream> parsed;
  if (!succeeds([&] { parsed = std::make_unique<cmpk::RansStream>(stream.bytes(), n); })) return;
  const Exact range(static_cast<std::size_t>(count));
  const bool has_range = succeeds([&] { parsed->decode(start, start + count, range.data()); });
  require(n / 8192 <= stream.size(), "no stream holds more than 8192 symbols a byte");
  if (n > kMaxOut) return;
  const Exact whole(static_cast<std::size_t>(n));
  const bool is_valid = succeeds([&] { parsed->decode(0, n, whole.data()); });
  const Exact pieces(static_cast<std::size_t>(n));
  const bool has_pieces = succeeds([&] { decode_in_pieces(*parsed, input.numbers[kPiece] % 200, pieces.data()); });
  require(has_pieces == is_valid, "whole chunks and pieces of them are decoded alike");
  if (!is_valid) return;
  require(has_range, "what is valid can be decoded");
  require(!count || !std::memcmp(range.data(), whole.data() + start, range.size()), "a range is part of the whole");
  require(pieces == whole, "pieces make up the whole");
  const Exact again(rans_stream(whole.bytes(), frequencies_of(input.streams[0]), stream.data()[0]));
  require(again == stream, "a stream that is valid is the encoder's own");
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, 1, fresh, spans, repair, run};

// Codec huffman: writing streams.
#include <algorithm>

#include "encode.hpp"
#include "parallel.hpp"

namespace cmpk {

namespace {

// Runs of one chunk that are written in turn.
constexpr std::size_t kRuns = 2;
// Symbols at the end of a run that are written byte by byte. They take 64 bits or more, so that an
// eight-byte store that begins before them ends before the run does.
constexpr std::size_t kCarefulSymbols = 64;
// From here on the 65,536 entries of a table of pairs pay.
constexpr std::size_t kPairsFromSymbols = std::size_t{1} << 16;

// One code or two, the first one lowest, and above them their length.
using Code = std::uint32_t;
constexpr unsigned kLengthShift = 2 * kMaxCodeLength;
constexpr Code kCodeMask = (Code{1} << kLengthShift) - 1;
constexpr Code kMissing = Code{1} << 30;  // of a symbol without a code; of two of them the sum
constexpr Code kMissingMask = Code{3} << 30;

inline Code join(Code first, Code second) {
  const unsigned length = first >> kLengthShift & 31;
  return (first + (second & ~kCodeMask)) | (second & kCodeMask) << length;
}

}  // namespace

// Codes by symbol, and by two symbols as the number that they are in memory.
class CodeTables {
 public:
  CodeTables(const CodeLengths& lengths, bool with_pairs) {
    const std::array<std::uint16_t, 256> codes = canonical_codes(lengths);
    std::array<std::uint8_t, 256> symbols;
    std::size_t n_symbols = 0;
    for (unsigned s = 0; s < 256; ++s) {
      single_[s] = lengths[s] ? codes[s] | Code{lengths[s]} << kLengthShift : kMissing;
      if (lengths[s]) symbols[n_symbols++] = static_cast<std::uint8_t>(s);
    }
    if (!with_pairs) return;
    pairs_.reset(new Code[1u << 16]);
    std::fill_n(pairs_.get(), 1u << 16, kMissing);
    for (std::size_t i = 0; i < n_symbols; ++i) {
      Code* const row = pairs_.get() + (std::size_t{symbols[i]} << 8);
      for (std::size_t j = 0; j < n_symbols; ++j) row[symbols[j]] = join(single_[symbols[j]], single_[symbols[i]]);
    }
  }

  bool has_pairs() const { return pairs_ != nullptr; }
  Code single(std::uint8_t symbol) const { return single_[symbol]; }

  template <bool kPairs>
  Code pair(std::uint32_t symbols) const {
    if (kPairs) return pairs_[symbols & 0xffff];
    return join(single_[symbols & 0xff], single_[symbols >> 8 & 0xff]);
  }

 private:
  std::array<Code, 256> single_;
  std::unique_ptr<Code[]> pairs_;
};

namespace {

// Symbols that follow each other, and where their codes go.
struct Run {
  const std::uint8_t* in;
  const std::uint8_t* in_end;
  std::uint8_t* out;
  unsigned nbits;         // of `pending`; 0 .. 7 between the steps
  std::uint64_t pending;  // bits that stand from `out` on and are not written yet
};

// Writes four symbols: 48 bits at most, after seven that are pending at most.
template <bool kPairs>
inline void write_four(Run& run, const CodeTables& tables) {
  const std::uint32_t symbols = load<std::uint32_t>(run.in);
  const Code low = tables.pair<kPairs>(symbols);
  const Code high = tables.pair<kPairs>(symbols >> 16);
  const std::uint64_t codes = (low & kCodeMask) | std::uint64_t{high & kCodeMask} << (low >> kLengthShift);
  run.pending |= codes << run.nbits;
  run.nbits += (low >> kLengthShift) + (high >> kLengthShift);
  store(run.out, run.pending);
  run.out += run.nbits >> 3;
  run.pending >>= run.nbits & 56;
  run.nbits &= 7;
  run.in += 4;
}

// Writes all but the last kCarefulSymbols of the runs, as far as the shortest of them goes.
template <bool kPairs, std::size_t n>
void write_steps(Run* runs, const CodeTables& tables) {
  std::ptrdiff_t least = runs[0].in_end - runs[0].in;
  for (std::size_t i = 1; i < n; ++i) least = std::min(least, runs[i].in_end - runs[i].in);
  Run local[n];
  std::copy(runs, runs + n, local);
  for (; least >= static_cast<std::ptrdiff_t>(kCarefulSymbols + 4); least -= 4) {
    for (std::size_t i = 0; i < n; ++i) write_four<kPairs>(local[i], tables);
  }
  std::copy(local, local + n, runs);
}

// Writes what is left of a run, and no byte too many. The last byte of a run that another one
// follows is that one's first byte, and written already.
void finish(Run run, bool is_last, const CodeTables& tables) {
  while (run.in < run.in_end) {
    const Code code = tables.single(*run.in++);
    run.pending |= std::uint64_t{code & kCodeMask} << run.nbits;
    run.nbits += code >> kLengthShift;
    for (; run.nbits >= 8; run.nbits -= 8, run.pending >>= 8) *run.out++ = static_cast<std::uint8_t>(run.pending);
  }
  if (run.nbits) *run.out = static_cast<std::uint8_t>(is_last ? run.pending : run.pending | *run.out);
}

template <bool kPairs>
void write_chunk(Bytes data, const std::uint32_t* block_ends, const CodeTables& tables, std::uint8_t* to) {
  const std::size_t n_full_blocks = data.size >> kSyncLog2;
  const std::size_t n_runs = n_full_blocks < kRuns ? 1 : kRuns;
  Run runs[kRuns];
  for (std::size_t i = 0; i < n_runs; ++i) {
    const std::size_t block = n_full_blocks * i / n_runs;
    const std::size_t end = i + 1 == n_runs ? data.size : (n_full_blocks * (i + 1) / n_runs) << kSyncLog2;
    const std::uint32_t bit = block ? block_ends[block - 1] : 0;
    runs[i] = {data.data + (block << kSyncLog2), data.data + end, to + (bit >> 3), bit & 7, 0};
  }
  if (n_runs == kRuns) write_steps<kPairs, kRuns>(runs, tables);
  for (std::size_t i = n_runs; i-- > 0;) {
    write_steps<kPairs, 1>(&runs[i], tables);
    finish(runs[i], i + 1 == n_runs, tables);
  }
}

// The bits that the codes of each block take, added up from the start of the chunk.
template <bool kPairs>
void measure_chunk(Bytes data, const CodeTables& tables, std::uint32_t* block_ends) {
  std::uint32_t end = 0;
  Code seen = 0;
  for (std::size_t block = 0; block << kSyncLog2 < data.size; ++block) {
    const std::uint8_t* const in = data.data + (block << kSyncLog2);
    const std::size_t n = std::min<std::size_t>(kSyncSymbols, data.size - (block << kSyncLog2));
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
      const std::uint64_t symbols = load<std::uint64_t>(in + i);
      for (unsigned k = 0; k < 64; k += 16) {
        const Code codes = tables.pair<kPairs>(static_cast<std::uint32_t>(symbols >> k));
        seen |= codes;
        end += codes >> kLengthShift;
      }
    }
    for (; i < n; ++i) {
      const Code code = tables.single(in[i]);
      seen |= code;
      end += code >> kLengthShift;
    }
    block_ends[block] = end;
  }
  if (seen & kMissingMask) throw std::invalid_argument("a byte of the data has no code");
}

}  // namespace

HuffmanEncoder::HuffmanEncoder(Bytes data, const CodeLengths& lengths, unsigned chunk_log2, unsigned n_threads)
    : data_(data), lengths_(lengths), chunk_log2_(chunk_log2) {
  if (!data.size) throw std::invalid_argument("codec 'huffman' takes at least one symbol");
  if (chunk_log2 < kMinChunkLog2 || chunk_log2 > kMaxChunkLog2) {
    throw std::invalid_argument("chunk_log2 must be " + std::to_string(kMinChunkLog2) + " .. " +
                                std::to_string(kMaxChunkLog2));
  }
  try {
    canonical_codes(lengths);
  } catch (const CorruptStream& error) {
    throw std::invalid_argument(std::string("lengths are not those of a code: ") + error.what());
  }
  for (unsigned s = 0; s < 256; ++s) {
    if (!lengths[s]) continue;
    first_ = std::min(first_, s);
    last_ = s;
  }
  tables_ = std::make_unique<CodeTables>(lengths, data.size >= kPairsFromSymbols);
  block_ends_.resize(((data.size - 1) >> kSyncLog2) + 1);
  parallel_for(n_chunks(), n_threads, [&](unsigned, std::size_t chunk) {
    const auto measure = tables_->has_pairs() ? measure_chunk<true> : measure_chunk<false>;
    measure(chunk_data(chunk), *tables_, block_ends_.data() + first_block(chunk));
  });
  choose_sync_width();
  place_chunks();
}

HuffmanEncoder::~HuffmanEncoder() = default;

void HuffmanEncoder::write(std::uint8_t* stream, unsigned n_threads) const {
  write_head(stream);
  parallel_for(n_chunks(), n_threads, [&](unsigned, std::size_t chunk) {
    const auto write = tables_->has_pairs() ? write_chunk<true> : write_chunk<false>;
    write(chunk_data(chunk), block_ends(chunk), *tables_, stream + offsets_[chunk]);
  });
}

// The smallest w with -2^(w-1) <= deviation < 2^(w-1) for all; 0 where all are 0.
void HuffmanEncoder::choose_sync_width() {
  std::int64_t lowest = 0;
  std::int64_t highest = 0;
  for_each_deviation([&](std::int64_t deviation) {
    lowest = std::min(lowest, deviation);
    highest = std::max(highest, deviation);
  });
  if (lowest || highest) sync_width_ = 1;
  while (sync_width_ && (lowest < -(std::int64_t{1} << (sync_width_ - 1)) || highest >> (sync_width_ - 1))) {
    ++sync_width_;
  }
}

void HuffmanEncoder::place_chunks() {
  const std::uint64_t n_points = block_ends_.size() - n_chunks();
  std::uint64_t offset = 4 + (last_ - first_ + 2) / 2 + 4 * n_chunks() + (n_points * sync_width_ + 7) / 8;
  offsets_.reserve(n_chunks() + 1);
  for (std::size_t chunk = 0; chunk < n_chunks(); ++chunk) {
    offsets_.push_back(offset);
    offset += (std::uint64_t{total_nbits(chunk)} + 7) / 8;
  }
  offsets_.push_back(offset);
}

// T of the specification.
std::uint32_t HuffmanEncoder::total_nbits(std::size_t chunk) const {
  return block_ends(chunk)[(chunk_data(chunk).size - 1) >> kSyncLog2];
}

Bytes HuffmanEncoder::chunk_data(std::size_t chunk) const {
  const std::size_t start = chunk << chunk_log2_;
  return {data_.data + start, std::min(std::size_t{1} << chunk_log2_, data_.size - start)};
}

// Calls `visit` with the deviation of each sync point from its line, in order.
template <class Visit>
void HuffmanEncoder::for_each_deviation(const Visit& visit) const {
  for (std::size_t chunk = 0; chunk < n_chunks(); ++chunk) {
    const std::uint64_t symbols = chunk_data(chunk).size;
    const std::uint32_t* const ends = block_ends(chunk);
    const std::size_t n_points = static_cast<std::size_t>((symbols - 1) >> kSyncLog2);
    for (std::size_t j = 1; j <= n_points; ++j) {
      const std::uint64_t line = j * kSyncSymbols * ends[n_points] / symbols;
      visit(static_cast<std::int64_t>(ends[j - 1]) - static_cast<std::int64_t>(line));
    }
  }
}

void HuffmanEncoder::write_head(std::uint8_t* stream) const {
  *stream++ = static_cast<std::uint8_t>(chunk_log2_);
  *stream++ = static_cast<std::uint8_t>(sync_width_);
  *stream++ = static_cast<std::uint8_t>(first_);
  *stream++ = static_cast<std::uint8_t>(last_);
  for (unsigned s = first_; s <= last_; s += 2) {
    *stream++ = static_cast<std::uint8_t>(lengths_[s] | (s < last_ ? lengths_[s + 1] << 4 : 0));
  }
  for (std::size_t chunk = 0; chunk < n_chunks(); ++chunk, stream += 4) store(stream, total_nbits(chunk));
  if (!sync_width_) return;
  std::uint64_t pending = 0;
  unsigned nbits = 0;
  for_each_deviation([&](std::int64_t deviation) {
    pending |= static_cast<std::uint64_t>(deviation + (std::int64_t{1} << (sync_width_ - 1))) << nbits;
    for (nbits += sync_width_; nbits >= 8; nbits -= 8, pending >>= 8) *stream++ = static_cast<std::uint8_t>(pending);
  });
  if (nbits) *stream = static_cast<std::uint8_t>(pending);
}

}  // namespace cmpk

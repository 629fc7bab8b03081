// Codec huffman: writing streams.
#include <algorithm>

#include "encode.hpp"
#include "parallel.hpp"

namespace cmpk {

namespace {

// Runs of one chunk that are written in turn, each to memory of its own.
constexpr std::size_t kRuns = 2;
// From here on the 65,536 entries of a table of pairs pay.
constexpr std::size_t kPairsFromSymbols = std::size_t{1} << 16;
// Bits that may be added to seven pending ones: a shift by all 64 of them would be one by none.
constexpr unsigned kMostBits = 56;

// One code or two, the first one lowest; below them their length, so that a shift by the whole number
// is one by the length: processors look at no more bits of it.
using Code = std::uint32_t;
constexpr unsigned kLengthBits = 6;
constexpr unsigned kLengthMask = (1u << kLengthBits) - 1;
constexpr Code kMissing = Code{1} << 31;  // of a symbol without a code

inline Code join(Code first, Code second) {
  if ((first | second) & kMissing) return kMissing;
  const Code codes = first >> kLengthBits | second >> kLengthBits << (first & kLengthMask);
  return codes << kLengthBits | ((first + second) & kLengthMask);
}

// Codes by symbol, and by two symbols as the number that they are in memory.
class CodeTables {
 public:
  CodeTables(const CodeLengths& lengths, bool with_pairs) {
    const std::array<std::uint16_t, 256> codes = canonical_codes(lengths);
    std::array<std::uint8_t, 256> symbols;
    std::size_t n_symbols = 0;
    for (unsigned s = 0; s < 256; ++s) {
      single_[s] = lengths[s] ? Code{codes[s]} << kLengthBits | lengths[s] : kMissing;
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
  Code pair(std::uint64_t symbols) const {
    if (kPairs) return pairs_[symbols & 0xffff];
    return join(single_[symbols & 0xff], single_[symbols >> 8 & 0xff]);
  }

 private:
  std::array<Code, 256> single_;
  std::unique_ptr<Code[]> pairs_;
};

// Codes of four symbols: 48 bits at most.
struct Four {
  Four(Code low, Code high)
      : codes(low >> kLengthBits | std::uint64_t{high >> kLengthBits} << (low & kLengthMask)),
        nbits((low + high) & kLengthMask) {}

  std::uint64_t codes;
  unsigned nbits;
};

// Symbols that follow each other, and where their codes go.
struct Run {
  const std::uint8_t* in;
  std::uint8_t* out;
  unsigned nbits = 0;         // of `pending`; 0 .. 7 between the steps
  std::uint64_t pending = 0;  // bits that stand from `out` on
  Code seen = 0;

  // At most kMostBits.
  void add(std::uint64_t codes, unsigned n) {
    pending |= codes << nbits;
    nbits += n;
    store(out, pending);
    out += nbits >> 3;
    pending >>= nbits & 56;
    nbits &= 7;
  }

  template <bool kPairs>
  void write_eight(const CodeTables& tables) {
    const std::uint64_t symbols = load<std::uint64_t>(in);
    in += 8;
    const Code a = tables.pair<kPairs>(symbols), b = tables.pair<kPairs>(symbols >> 16);
    const Code c = tables.pair<kPairs>(symbols >> 32), d = tables.pair<kPairs>(symbols >> 48);
    seen |= a | b | c | d;
    const Four low(a, b), high(c, d);
    if (low.nbits + high.nbits <= kMostBits) {
      add(low.codes | high.codes << low.nbits, low.nbits + high.nbits);
    } else {
      add(low.codes, low.nbits);
      add(high.codes, high.nbits);
    }
  }

  void write_one(const CodeTables& tables) {
    const Code code = tables.single(*in++);
    seen |= code;
    add(code >> kLengthBits, code & kLengthMask);
  }
};

// The blocks of a run: from `first` up to `stop`.
struct Blocks {
  std::size_t first;
  std::size_t stop;
};

// How the blocks of a chunk of so many symbols are shared out; a last one that is not full comes last.
std::array<Blocks, kRuns> runs_of(std::size_t n_symbols) {
  const std::size_t n_blocks = ((n_symbols - 1) >> kSyncLog2) + 1;
  return {{{0, n_blocks / 2}, {n_blocks / 2, n_blocks}}};
}

// Bytes for any run of a chunk of so many symbols, and eight more, so that stores need not be short.
std::size_t run_capacity(std::size_t n_symbols) {
  const std::size_t n_blocks = ((n_symbols - 1) >> kSyncLog2) + 1;
  return (n_blocks + 1) / 2 * (kSyncSymbols * kMaxCodeLength / 8) + sizeof(std::uint64_t);
}

template <bool kPairs, std::size_t n>
void write_full_block(Run* runs, const CodeTables& tables) {
  Run local[n];
  std::copy(runs, runs + n, local);
  for (std::size_t i = 0; i < kSyncSymbols; i += 8) {
    for (std::size_t k = 0; k < n; ++k) local[k].template write_eight<kPairs>(tables);
  }
  std::copy(local, local + n, runs);
}

// Writes the runs of a chunk, each from the first bit of its memory on. `block_ends` gets the bits that
// the codes of the blocks take, added up from the start of the chunk.
template <bool kPairs>
void write_runs(Bytes data, const CodeTables& tables, std::uint8_t* const* to, std::uint32_t* block_ends) {
  const auto blocks = runs_of(data.size);
  Run runs[kRuns];
  for (std::size_t i = 0; i < kRuns; ++i) {
    runs[i].in = data.data + (blocks[i].first << kSyncLog2);
    runs[i].out = to[i];
  }
  const auto end_of = [&](std::size_t i) {
    return static_cast<std::uint32_t>(8 * (runs[i].out - to[i])) + runs[i].nbits;
  };
  const std::size_t n_full = data.size >> kSyncLog2;  // blocks[1].first at least
  const std::size_t n_together = std::min(blocks[0].stop, n_full - blocks[1].first);
  for (std::size_t block = 0; block < n_together; ++block) {
    write_full_block<kPairs, kRuns>(runs, tables);
    for (std::size_t i = 0; i < kRuns; ++i) block_ends[blocks[i].first + block] = end_of(i);
  }
  for (std::size_t i = 0; i < kRuns; ++i) {
    for (std::size_t block = blocks[i].first + n_together; block < blocks[i].stop; ++block) {
      if (block < n_full) {
        write_full_block<kPairs, 1>(&runs[i], tables);
      } else {
        while (runs[i].in < data.data + data.size) runs[i].write_one(tables);
      }
      block_ends[block] = end_of(i);
    }
  }
  for (std::size_t block = blocks[1].first; block < blocks[1].stop; ++block) block_ends[block] += end_of(0);
  for (const Run& run : runs) {
    if (run.seen & kMissing) throw std::invalid_argument("a byte of the data has no code");
  }
}

// Copies bits to where others end, from bit `start` of `to` on, and writes no byte that has none of them;
// the bits of the last byte above them become 0. Eight bytes behind the bits can be read.
void append_bits(std::uint8_t* to, std::uint64_t start, const std::uint8_t* bits, std::uint64_t nbits) {
  if (!nbits) return;
  std::uint8_t* out = to + (start >> 3);
  std::uint8_t* const end = to + ((start + nbits + 7) >> 3);
  const unsigned shift = start & 7;
  if (shift) {
    std::uint64_t carried = *out & ((1u << shift) - 1);
    for (; end - out >= 8; out += 8, bits += 8) {
      store(out, carried | load<std::uint64_t>(bits) << shift);
      carried = bits[7] >> (8 - shift);
    }
    for (carried |= load<std::uint64_t>(bits) << shift; out < end; carried >>= 8) {
      *out++ = static_cast<std::uint8_t>(carried);
    }
  } else {
    std::memcpy(out, bits, static_cast<std::size_t>(end - out));
  }
  const unsigned used = (start + nbits) & 7;
  if (used) end[-1] = static_cast<std::uint8_t>(end[-1] & ((1u << used) - 1));
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
  const CodeTables tables(lengths, data.size >= kPairsFromSymbols);
  block_ends_.resize(((data.size - 1) >> kSyncLog2) + 1);
  // Most of it is never touched: codes of 12 bits are rare.
  run_capacity_ = run_capacity(chunk_data(0).size);
  runs_.reset(new std::uint8_t[n_chunks() * kRuns * run_capacity_]);
  parallel_for(n_chunks(), n_threads, [&](unsigned, std::size_t chunk) {
    const auto write = tables.has_pairs() ? write_runs<true> : write_runs<false>;
    std::uint8_t* to[kRuns];
    for (std::size_t i = 0; i < kRuns; ++i) to[i] = run(chunk, i);
    write(chunk_data(chunk), tables, to, block_ends_.data() + first_block(chunk));
  });
  choose_sync_width();
  place_chunks();
}

void HuffmanEncoder::write(std::uint8_t* stream, unsigned n_threads) const {
  write_head(stream);
  parallel_for(n_chunks(), n_threads, [&](unsigned, std::size_t chunk) {
    std::uint64_t written = 0;
    for (std::size_t i = 0; i < kRuns; ++i) {
      const std::size_t stop = runs_of(chunk_data(chunk).size)[i].stop;
      const std::uint64_t end = stop ? block_ends(chunk)[stop - 1] : 0;
      append_bits(stream + offsets_[chunk], written, run(chunk, i), end - written);
      written = end;
    }
  });
}

// Memory for one run of a chunk.
std::uint8_t* HuffmanEncoder::run(std::size_t chunk, std::size_t i) const {
  return runs_.get() + (chunk * kRuns + i) * run_capacity_;
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

// Codec huffman: decoding runs of symbols.
#include <algorithm>

#include "huffman.hpp"

namespace cmpk {

namespace {

constexpr unsigned kWindowMask = (1u << kMaxCodeLength) - 1;
constexpr unsigned kLookups = 4;  // per refill: 4 * 12 bits of the 57 that a load gives at least
constexpr std::uint64_t kMaxIterationBits = kLookups * kMaxCodeLength;

// Byte 0 of an entry, or of the sum of those of an iteration.
inline std::uint64_t n_bits_of(std::uint64_t entry) { return entry & 0xff; }

// Entries of several symbols. A store writes eight bytes whatever their number is.
struct Several {
  static constexpr std::uint64_t kMaxIterationSymbols = kLookups * DecodeTable::kMaxSymbols;
  static constexpr std::uint64_t kStoreNbytes = 8;
  static constexpr std::uint64_t kStoreSlack = kStoreNbytes - DecodeTable::kMaxSymbols;

  const std::uint64_t* entries;

  std::uint64_t operator[](std::uint64_t window) const { return entries[window & kWindowMask]; }
  static std::uint64_t n_symbols(std::uint64_t entry) { return entry >> DecodeTable::kCountShift & 0xff; }
  static std::uint64_t symbols(std::uint64_t entry) { return entry >> DecodeTable::kSymbolsShift; }
  static void put(std::uint8_t* out, std::uint64_t entry) { store(out, symbols(entry)); }
};

// Entries of one symbol.
struct One {
  static constexpr std::uint64_t kMaxIterationSymbols = kLookups;
  static constexpr std::uint64_t kStoreNbytes = 1;
  static constexpr std::uint64_t kStoreSlack = 0;

  const std::uint16_t* entries;

  std::uint64_t operator[](std::uint64_t window) const { return entries[window & kWindowMask]; }
  static std::uint64_t n_symbols(std::uint64_t) { return 1; }
  static std::uint64_t symbols(std::uint64_t entry) { return entry >> 8; }
  static void put(std::uint8_t* out, std::uint64_t entry) { *out = static_cast<std::uint8_t>(symbols(entry)); }
};

// Runs decoded in turn. More would not find registers for their positions.
constexpr unsigned kRuns = 6;

// Symbols that follow each other, from one sync point to another.
struct Run {
  std::uint64_t bit;      // of the stream, where the next symbol begins
  std::uint64_t end_bit;  // where the symbols must end
  std::uint8_t* out;
  std::uint8_t* out_end;
};

// Iterations of `decode_unchecked` that stay within the stream and the run's output whatever the bits
// are. An iteration loads eight bytes at bit / 8 and moves on by kMaxIterationBits at most; its
// last store begins at most as many symbols after its first as three entries hold and takes
// kStoreNbytes, which is kMaxIterationSymbols + kStoreSlack from the first one on.
template <class Entries>
inline std::uint64_t safe_iterations(const Run& run, Bytes stream) {
  const std::uint64_t room = static_cast<std::uint64_t>(run.out_end - run.out);
  if (room < Entries::kMaxIterationSymbols + Entries::kStoreSlack || stream.size < 8) return 0;
  const std::uint64_t last_load = std::uint64_t{stream.size - 8} * 8;
  if (run.bit > last_load) return 0;
  return std::min((room - Entries::kStoreSlack) / Entries::kMaxIterationSymbols,
                  (last_load - run.bit) / kMaxIterationBits + 1);
}

// Decodes as much of `kRuns` runs as is safe without checks, one look-up of each in turn. They
// depend on nothing of each other, so that their latencies overlap, and only as finely interleaved
// as this: a processor's schedulers do not hold enough instructions to reach the next run's look-up
// behind four of this one (measured with four runs on Zen 4: 3.5 G symbols/s against 4.0).
template <unsigned n, class Entries>
void decode_unchecked(Run* runs, Bytes stream, Entries table) {
  std::uint64_t bit[n];
  std::uint8_t* out[n];
  for (;;) {
    std::uint64_t iterations = safe_iterations<Entries>(runs[0], stream);
    for (unsigned i = 1; i < n; ++i) iterations = std::min(iterations, safe_iterations<Entries>(runs[i], stream));
    if (iterations == 0) return;
    for (unsigned i = 0; i < n; ++i) {
      bit[i] = runs[i].bit;
      out[i] = runs[i].out;
    }
    for (; iterations; --iterations) {
      std::uint64_t window[n];
      for (unsigned i = 0; i < n; ++i) {
        window[i] = load<std::uint64_t>(stream.data + (bit[i] >> 3)) >> (bit[i] & 7);
      }
      std::uint64_t sum[n] = {};  // of entries; byte 0 adds up the bits, at most kMaxIterationBits
      for (unsigned lookup = 0; lookup < kLookups; ++lookup) {
        for (unsigned i = 0; i < n; ++i) {
          const std::uint64_t entry = table[window[i]];
          window[i] >>= entry & 63;
          sum[i] += entry;
          Entries::put(out[i], entry);
          out[i] += Entries::n_symbols(entry);
        }
      }
      for (unsigned i = 0; i < n; ++i) bit[i] += n_bits_of(sum[i]);
    }
    for (unsigned i = 0; i < n; ++i) {
      runs[i].bit = bit[i];
      runs[i].out = out[i];
    }
  }
}

// Decodes what is left of a run, with every check.
template <class Entries>
void finish(Run& run, Bytes stream, Entries table, const CodeLengths& lengths) {
  decode_unchecked<1>(&run, stream, table);
  while (run.out < run.out_end) {
    const std::uint64_t window = load_padded(stream, static_cast<std::size_t>(run.bit >> 3)) >> (run.bit & 7);
    const std::uint64_t entry = table[window];
    const std::uint64_t room = static_cast<std::uint64_t>(run.out_end - run.out);
    if (room >= Entries::kStoreNbytes) {
      Entries::put(run.out, entry);
      run.out += Entries::n_symbols(entry);
      run.bit += n_bits_of(entry);
      continue;
    }
    const std::uint64_t n_wanted = std::min(room, Entries::n_symbols(entry));
    for (std::uint64_t i = 0; i < n_wanted; ++i) {
      const std::uint8_t symbol = static_cast<std::uint8_t>(Entries::symbols(entry) >> 8 * i);
      *run.out++ = symbol;
      run.bit += lengths[symbol];
    }
  }
  if (run.bit != run.end_bit) {
    throw CorruptStream("codec 'huffman': a run of symbols ends at bit " + std::to_string(run.bit) +
                        ", its sync point says " + std::to_string(run.end_bit) + "; the stream is damaged");
  }
}

}  // namespace

void HuffmanStream::decode_blocks(const DecodeTable& table, std::size_t chunk, std::uint64_t first, std::uint64_t stop,
                                  std::uint8_t* out) const {
  if (table.is_of_one()) return decode_blocks_by(One{table.entries_of_one()}, chunk, first, stop, out);
  decode_blocks_by(Several{table.entries()}, chunk, first, stop, out);
}

// Blocks first .. stop - 1 of a chunk, in runs of about the same number of blocks.
template <class Entries>
void HuffmanStream::decode_blocks_by(Entries entries, std::size_t chunk, std::uint64_t first, std::uint64_t stop,
                                     std::uint8_t* out) const {
  const std::uint64_t symbols = std::min(stop * kSyncSymbols, chunk_symbols(chunk)) - first * kSyncSymbols;
  Run runs[kRuns];
  std::uint64_t bit = block_bit(chunk, first);
  for (unsigned i = 0; i < kRuns; ++i) {
    const std::uint64_t from = (stop - first) * i / kRuns;
    const std::uint64_t to = (stop - first) * (i + 1) / kRuns;
    const std::uint64_t end_bit = block_bit(chunk, first + to);
    runs[i] = {bit, end_bit, out + from * kSyncSymbols, out + std::min(to * kSyncSymbols, symbols)};
    bit = end_bit;
  }
  // When one run is through, the longest of the others go on together.
  const auto has_more = [](const Run& a, const Run& b) { return a.out_end - a.out > b.out_end - b.out; };
  decode_unchecked<kRuns>(runs, stream_, entries);
  std::sort(runs, runs + kRuns, has_more);
  decode_unchecked<4>(runs, stream_, entries);
  std::sort(runs, runs + 4, has_more);
  decode_unchecked<2>(runs, stream_, entries);
  for (Run& run : runs) finish(run, stream_, entries, lengths_);
}

void HuffmanStream::decode(const DecodeTable& table, std::uint64_t start, std::uint64_t stop,
                           std::uint8_t* out) const {
  if (start >= stop) return;
  for (std::uint64_t chunk = start >> chunk_log2_; chunk <= (stop - 1) >> chunk_log2_; ++chunk) {
    check_chunk(static_cast<std::size_t>(chunk));
  }
  if (is_one_symbol()) {
    std::memset(out, stream_.data[2], static_cast<std::size_t>(stop - start));
    return;
  }
  std::uint8_t aside[kSyncSymbols];
  while (start < stop) {
    const std::size_t chunk = static_cast<std::size_t>(start >> chunk_log2_);
    const std::uint64_t chunk_start = std::uint64_t{chunk} << chunk_log2_;
    const std::uint64_t chunk_stop = chunk_start + chunk_symbols(chunk);
    const std::uint64_t first = (start - chunk_start) / kSyncSymbols;
    const std::uint64_t first_start = chunk_start + first * kSyncSymbols;
    const std::uint64_t first_stop = std::min(first_start + kSyncSymbols, chunk_stop);
    std::uint64_t end;
    if (start > first_start || stop < first_stop) {
      decode_blocks(table, chunk, first, first + 1, aside);
      end = std::min(stop, first_stop);
      std::memcpy(out, aside + (start - first_start), static_cast<std::size_t>(end - start));
    } else {
      const bool to_chunk_end = stop >= chunk_stop;
      const std::uint64_t last = ((to_chunk_end ? chunk_stop + kSyncSymbols - 1 : stop) - chunk_start) / kSyncSymbols;
      decode_blocks(table, chunk, first, last, out);
      end = to_chunk_end ? chunk_stop : chunk_start + last * kSyncSymbols;
    }
    out += end - start;
    start = end;
  }
}

void HuffmanStream::check(const DecodeTable& table) const {
  for (std::size_t chunk = 0; chunk < n_chunks(); ++chunk) check_chunk(chunk);
  if (is_one_symbol()) {
    // Each symbol takes one bit, so that a point lies unless it is on the line (T = m).
    for (std::size_t chunk = 0; chunk < n_chunks(); ++chunk) {
      for (std::uint64_t block = 0; block * kSyncSymbols < chunk_symbols(chunk); ++block) {
        if (block_bit(chunk, block) != offsets_[chunk] * 8 + block * kSyncSymbols) {
          throw CorruptStream("codec 'huffman': a sync point lies");
        }
      }
    }
    return;
  }
  std::uint8_t symbols[kRuns * kSyncSymbols];
  for (std::size_t chunk = 0; chunk < n_chunks(); ++chunk) {
    const std::uint64_t n_blocks = (chunk_symbols(chunk) + kSyncSymbols - 1) / kSyncSymbols;
    // That many blocks at a time, or fewer at the end, make runs of one block.
    for (std::uint64_t block = 0; block < n_blocks; block += kRuns) {
      decode_blocks(table, chunk, block, std::min(block + kRuns, n_blocks), symbols);
    }
  }
}

}  // namespace cmpk

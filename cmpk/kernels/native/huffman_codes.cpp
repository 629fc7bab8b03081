// Canonical codes, and the table that decodes several of them at once.
#include "huffman.hpp"

namespace cmpk {

namespace {

constexpr std::uint64_t kOneSymbol = std::uint64_t{1} << DecodeTable::kCountShift;
// Below that, look-ups of single symbols are faster. Measured on all-MiniLM-L6-v2 in G symbols/s, one by
// one against several: int8 codes (1.0) 1.44 and 1.18, fp8 (1.4) 1.45 and 1.52, finer steps (1.5) 1.46 and 1.64.
constexpr double kMinSymbolsPerLookup = 1.3;
constexpr std::uint64_t kSizes = (std::uint64_t{1} << DecodeTable::kSymbolsShift) - 1;

unsigned reverse_bits(unsigned code, unsigned nbits) {
  unsigned reversed = 0;
  for (unsigned i = 0; i < nbits; ++i) reversed |= (code >> i & 1) << (nbits - 1 - i);
  return reversed;
}

// The entry that has `symbol`, of `length` bits, before what `entry` has.
template <bool kMayOverflow>
inline std::uint64_t prepend(unsigned symbol, unsigned length, std::uint64_t entry, const CodeLengths& lengths) {
  // The shift below drops the last of six symbols; its sizes go here.
  if (kMayOverflow && (entry & kSizes) >> DecodeTable::kCountShift == DecodeTable::kMaxSymbols) {
    entry -= kOneSymbol | lengths[entry >> 56];
  }
  const std::uint64_t later_symbols = (entry & ~kSizes) << 8;
  return later_symbols + (entry & kSizes) + (symbol << DecodeTable::kSymbolsShift | kOneSymbol | length);
}

// How many whole codes 12 bits hold on average, if symbols are as frequent as the lengths of their
// codes say: the sum over all places of the probability that a code ends there.
double symbols_per_lookup(const CodeLengths& lengths) {
  std::array<unsigned, kMaxCodeLength + 1> n_of_length{};
  for (const std::uint8_t length : lengths) ++n_of_length[length];
  std::array<double, kMaxCodeLength + 1> ends_at{1.0};
  double sum = 0;
  for (unsigned at = 1; at <= kMaxCodeLength; ++at) {
    for (unsigned length = 1; length <= at; ++length) {
      ends_at[at] += n_of_length[length] * ends_at[at - length] / (1u << length);
    }
    sum += ends_at[at];
  }
  return sum;
}

}  // namespace

std::array<std::uint16_t, 256> canonical_codes(const CodeLengths& lengths) {
  std::array<unsigned, kMaxCodeLength + 1> n_of_length{};
  for (const std::uint8_t length : lengths) {
    if (length > kMaxCodeLength) {
      throw CorruptStream("codec 'huffman': a code length exceeds " + std::to_string(kMaxCodeLength));
    }
    ++n_of_length[length];
  }
  unsigned space = 0;
  std::array<unsigned, kMaxCodeLength + 1> next{};
  for (unsigned length = 1; length <= kMaxCodeLength; ++length) {
    next[length] = space >> (kMaxCodeLength - length);
    space += n_of_length[length] << (kMaxCodeLength - length);
  }
  const bool one_symbol = n_of_length[0] == 255;
  const unsigned full = 1u << (one_symbol ? kMaxCodeLength - 1 : kMaxCodeLength);
  if (space != full) {
    throw CorruptStream("codec 'huffman': lengths fill " + std::to_string(space) + " of " + std::to_string(full) +
                        " codes; the length table is damaged");
  }
  std::array<std::uint16_t, 256> codes{};
  for (unsigned symbol = 0; symbol < 256; ++symbol) {
    const unsigned length = lengths[symbol];
    if (length) codes[symbol] = static_cast<std::uint16_t>(reverse_bits(next[length]++, length));
  }
  return codes;
}

void DecodeTable::build(const CodeLengths& lengths) {
  is_of_one_ = symbols_per_lookup(lengths) < kMinSymbolsPerLookup;
  if (is_of_one_) return fill_of_one(lengths);
  for (const std::uint8_t length : lengths) {
    if (length == 1) return fill<true>(lengths);
  }
  // Codes of two bits or more: at most six fit, and an entry never has to drop one.
  fill<false>(lengths);
}

void DecodeTable::fill_of_one(const CodeLengths& lengths) {
  const std::array<std::uint16_t, 256> codes = canonical_codes(lengths);
  for (unsigned symbol = 0; symbol < 256; ++symbol) {
    const unsigned length = lengths[symbol];
    if (!length) continue;
    const std::uint16_t entry = static_cast<std::uint16_t>(symbol << 8 | length);
    for (std::size_t w = codes[symbol]; w < entries_of_one_.size(); w += std::size_t{1} << length) {
      entries_of_one_[w] = entry;
    }
  }
}

// By recursion on the number of bits: the entry for r bits that begin with the code of a symbol of
// length l is that symbol before the entry for the r - l bits that remain. Each of the 2^13 entries
// of all levels then costs a few instructions, where decoding each window on its own would cost
// several look-ups.
template <bool kMayOverflow>
void DecodeTable::fill(const CodeLengths& lengths) {
  const std::array<std::uint16_t, 256> codes = canonical_codes(lengths);
  std::array<std::uint8_t, 256> symbols;
  unsigned n_symbols = 0;
  unsigned lengths_used = 0;  // bit l set: some code has l bits
  for (unsigned symbol = 0; symbol < 256; ++symbol) {
    if (!lengths[symbol]) continue;
    symbols[n_symbols++] = static_cast<std::uint8_t>(symbol);
    lengths_used |= 1u << lengths[symbol];
  }
  unsigned levels_used = 1u << kMaxCodeLength;  // bit r set: a level above refers to the one of r bits
  for (unsigned r = kMaxCodeLength; r > 0; --r) {
    if (!(levels_used >> r & 1)) continue;
    for (unsigned length = 1; length <= r; ++length) {
      if (lengths_used >> length & 1) levels_used |= 1u << (r - length);
    }
  }
  // Level r stands at 2^r .. 2^(r+1) - 1; the last one is the table itself.
  std::array<std::uint64_t, 1u << kMaxCodeLength> below;
  for (unsigned r = 0; r <= kMaxCodeLength; ++r) {
    if (!(levels_used >> r & 1)) continue;
    std::uint64_t* const level = r == kMaxCodeLength ? entries_.data() : below.data() + (1u << r);
    // Bits that begin with no whole code hold no symbol. In the last level there are none.
    if (r < kMaxCodeLength) std::memset(level, 0, sizeof(std::uint64_t) << r);
    for (unsigned i = 0; i < n_symbols; ++i) {
      const unsigned symbol = symbols[i];
      const unsigned length = lengths[symbol];
      if (length > r) continue;
      const std::uint64_t* const rest = below.data() + (1u << (r - length));
      std::uint64_t* to = level + codes[symbol];
      for (unsigned w = 0; w < 1u << (r - length); ++w, to += std::size_t{1} << length) {
        *to = prepend<kMayOverflow>(symbol, length, rest[w], lengths);
      }
    }
  }
}

}  // namespace cmpk

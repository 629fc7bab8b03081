// Codec rans: streams and their chunks.
#include "rans.hpp"

#include <algorithm>
#include <string>

#include "parallel.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#define CMPK_RANS_AVX2 1
#include <immintrin.h>
#endif

namespace cmpk {

namespace {

[[noreturn]] void corrupt(const char* what) { throw CorruptStream(std::string("codec 'rans': ") + what); }

constexpr unsigned kSymbolShift = 24;
constexpr std::uint32_t kFieldMask = kRansSlots - 1;

// One step of one state. `word` is read whether it is needed or not: two bytes must be readable.
inline std::uint8_t step(std::uint32_t& state, const std::uint32_t* slots, const std::uint8_t*& word) {
  const std::uint32_t entry = slots[state & kFieldMask];
  const std::uint32_t x = (entry >> kFrequencyBits & kFieldMask) * (state >> kFrequencyBits) + (entry & kFieldMask);
  // In arithmetic, for the branch would be a coin's toss: a state is low every few symbols, at random.
  const std::uint32_t is_low = x < kRansLowerBound;
  state = x << (is_low << 4) | (load<std::uint16_t>(word) & (0u - is_low));
  word += is_low << 1;
  return static_cast<std::uint8_t>(entry >> kSymbolShift);
}

// A row of all states takes a word each at most. With two bytes more than that at hand every row may
// read without a look at the end, the word after the last one included.
constexpr std::size_t kRowBytes = 2 * kRansStates + 2;

// Decodes rows of kRansStates symbols, as many as there are words for at the worst; returns how many.
std::uint64_t decode_rows(std::uint32_t* states, const std::uint32_t* slots, const std::uint8_t*& word,
                          const std::uint8_t* end, std::uint8_t* out, std::uint64_t n_rows) {
  const std::uint8_t* at = word;
  std::uint64_t row = 0;
  for (; row < n_rows && static_cast<std::size_t>(end - at) >= kRowBytes; ++row) {
    for (std::size_t j = 0; j < kRansStates; ++j) out[j] = step(states[j], slots, at);
    out += kRansStates;
  }
  word = at;
  return row;
}

#ifdef CMPK_RANS_AVX2

// For each set of low lanes, which word each of the eight lanes takes: they take them in order.
struct WordOfLane {
  alignas(64) std::uint8_t index[256][8];
};

constexpr WordOfLane make_word_of_lane() {
  WordOfLane table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    std::uint8_t next = 0;
    for (unsigned lane = 0; lane < 8; ++lane) {
      table.index[mask][lane] = next;
      if (mask >> lane & 1u) ++next;
    }
  }
  return table;
}

constexpr WordOfLane kWordOfLane = make_word_of_lane();

// Eight states at a time (Giesen 2014). Reads 16 bytes at a word, of which a row has 64 at hand.
__attribute__((target("avx2,popcnt"))) inline __m256i step_avx2(__m256i& x, const std::uint32_t* slots,
                                                               const std::uint8_t*& word) {
  const __m256i field = _mm256_set1_epi32(static_cast<int>(kFieldMask));
  const __m256i entry = _mm256_i32gather_epi32(reinterpret_cast<const int*>(slots), _mm256_and_si256(x, field), 4);
  const __m256i frequency = _mm256_and_si256(_mm256_srli_epi32(entry, kFrequencyBits), field);
  const __m256i product = _mm256_mullo_epi32(frequency, _mm256_srli_epi32(x, kFrequencyBits));
  const __m256i next = _mm256_add_epi32(product, _mm256_and_si256(entry, field));
  const __m256i is_low = _mm256_cmpeq_epi32(_mm256_srli_epi32(next, 16), _mm256_setzero_si256());
  const unsigned mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(is_low)));
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(word)));
  const __m256i order =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kWordOfLane.index[mask])));
  const __m256i refilled = _mm256_or_si256(_mm256_slli_epi32(next, 16), _mm256_permutevar8x32_epi32(words, order));
  x = _mm256_blendv_epi8(next, refilled, is_low);
  word += 2 * static_cast<std::size_t>(__builtin_popcount(mask));
  return _mm256_srli_epi32(entry, kSymbolShift);
}

__attribute__((target("avx2,popcnt"))) std::uint64_t decode_rows_avx2(std::uint32_t* states, const std::uint32_t* slots,
                                                                     const std::uint8_t*& word,
                                                                     const std::uint8_t* end, std::uint8_t* out,
                                                                     std::uint64_t n_rows) {
  __m256i* const stored = reinterpret_cast<__m256i*>(states);
  __m256i x0 = _mm256_loadu_si256(stored), x1 = _mm256_loadu_si256(stored + 1);
  __m256i x2 = _mm256_loadu_si256(stored + 2), x3 = _mm256_loadu_si256(stored + 3);
  // Packing works within halves of a register; this brings the quarters back into order.
  const __m256i quarters = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const std::uint8_t* at = word;
  std::uint64_t row = 0;
  for (; row < n_rows && static_cast<std::size_t>(end - at) >= kRowBytes; ++row) {
    const __m256i s0 = step_avx2(x0, slots, at), s1 = step_avx2(x1, slots, at);
    const __m256i s2 = step_avx2(x2, slots, at), s3 = step_avx2(x3, slots, at);
    const __m256i packed = _mm256_packus_epi16(_mm256_packus_epi32(s0, s1), _mm256_packus_epi32(s2, s3));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(packed, quarters));
    out += kRansStates;
  }
  _mm256_storeu_si256(stored, x0);
  _mm256_storeu_si256(stored + 1, x1);
  _mm256_storeu_si256(stored + 2, x2);
  _mm256_storeu_si256(stored + 3, x3);
  word = at;
  return row;
}

#endif

using DecodeRows = decltype(&decode_rows);

DecodeRows best_decode_rows() {
#ifdef CMPK_RANS_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt")) return decode_rows_avx2;
#endif
  return decode_rows;
}

unsigned bit_length(unsigned value) {
  unsigned length = 0;
  for (; value; value >>= 1) ++length;
  return length;
}

// The frequencies as they stand in a stream's head: sizes, then lower bits.
std::vector<std::uint8_t> head_of(const Frequencies& frequencies, unsigned chunk_log2) {
  unsigned first = 0, last = 255;
  while (!frequencies[first]) ++first;
  while (!frequencies[last]) --last;
  std::vector<std::uint8_t> head{static_cast<std::uint8_t>(chunk_log2), static_cast<std::uint8_t>(first),
                                 static_cast<std::uint8_t>(last)};
  head.resize(3 + (last - first + 2) / 2);
  std::vector<std::uint8_t> lower;
  std::size_t n_lower = 0;
  for (unsigned s = first; s <= last; ++s) {
    const unsigned size = bit_length(frequencies[s]);
    head[3 + (s - first) / 2] |= static_cast<std::uint8_t>(size << ((s - first) % 2 * 4));
    for (unsigned bit = 0; bit + 1 < size; ++bit, ++n_lower) {
      if (n_lower % 8 == 0) lower.push_back(0);
      lower.back() |= static_cast<std::uint8_t>((frequencies[s] >> bit & 1u) << (n_lower % 8));
    }
  }
  head.insert(head.end(), lower.begin(), lower.end());
  return head;
}

// A symbol's frequency f and start C_s, prepared so that a step needs no division.
struct EncoderSymbol {
  std::uint64_t reciprocal;  // 2^64 / f, rounded up; exact enough for every x < 2^32, as f < 2^12
  std::uint32_t frequency;
  std::uint32_t start;
};

EncoderSymbol encoder_symbol(std::uint32_t frequency, std::uint32_t start) {
  // 2^64 does not fit; one less makes every quotient by 1 one too small, and the remainder 1 in place
  // of 0, which adding 4095 to the start makes good.
  if (frequency == 1) return {~std::uint64_t{0}, 1, start + kRansSlots - 1};
  return {frequency ? ~std::uint64_t{0} / frequency + 1 : 0, frequency, start};
}

inline std::uint32_t quotient(std::uint32_t x, const EncoderSymbol& symbol) {
#ifdef __SIZEOF_INT128__
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint32_t>(Wide{symbol.reciprocal} * x >> 64);
#else
  return symbol.frequency == 1 ? x - 1 : x / symbol.frequency;
#endif
}

// One chunk; its bytes. `scratch` has kRansHeadBytes and two bytes a symbol; it spares fresh memory,
// which costs more than the coding.
std::vector<std::uint8_t> encode_chunk(Bytes symbols, const std::array<EncoderSymbol, 256>& table,
                                       std::vector<std::uint8_t>& scratch) {
  std::array<std::uint32_t, kRansStates> states;
  states.fill(kRansLowerBound);
  // A symbol puts out one word at most. They are put out from the back, which reverses them.
  std::uint8_t* const end = scratch.data() + kRansHeadBytes + 2 * symbols.size;
  std::uint8_t* word = end;
  for (std::size_t i = symbols.size; i-- > 0;) {
    const EncoderSymbol& symbol = table[symbols.data[i]];
    const std::uint32_t x = states[i % kRansStates];
    // Written whether it is kept or not, for the branch would be a coin's toss; the head is still free.
    store(word - 2, static_cast<std::uint16_t>(x));
    const std::uint32_t is_full = x >= symbol.frequency << 20;
    word -= is_full << 1;
    const std::uint32_t kept = x >> (is_full << 4);
    const std::uint32_t q = quotient(kept, symbol);
    states[i % kRansStates] = (q << kFrequencyBits) + (kept - q * symbol.frequency) + symbol.start;
  }
  word -= kRansHeadBytes;
  std::memcpy(word, states.data(), kRansHeadBytes);
  return std::vector<std::uint8_t>(word, end);
}

}  // namespace

RansStream::RansStream(Bytes stream, std::uint64_t n) : stream_(stream), n_(n) {
  if (n < 1 || stream.size < 4) corrupt("the stream is empty");
  chunk_log2_ = stream.data[0];
  if (chunk_log2_ < kRansMinChunkLog2 || chunk_log2_ > kRansMaxChunkLog2 || stream.data[1] > stream.data[2]) {
    corrupt("the head is out of range");
  }
  Frequencies frequencies{};
  const std::size_t at = parse_frequencies(frequencies);
  const std::uint64_t n_chunks = ((n - 1) >> chunk_log2_) + 1;
  if ((stream.size - at) / 4 < n_chunks) corrupt("the stream ends within its table of chunks");
  offsets_.resize(static_cast<std::size_t>(n_chunks) + 1);
  std::uint64_t offset = at + 4 * n_chunks;
  for (std::size_t chunk = 0; chunk < n_chunks; ++chunk) {
    const std::uint32_t size = load<std::uint32_t>(stream.data + at + 4 * chunk);
    if (size < kRansHeadBytes || size % 2) corrupt("a chunk has an impossible size");
    offsets_[chunk] = offset;
    offset += size;
    // Checked at each step: the sum can't overflow, and no offset ever lies beyond the stream.
    if (offset > stream.size) corrupt("the chunks do not fill the stream");
  }
  if (offset != stream.size) corrupt("the chunks do not fill the stream");
  offsets_.back() = offset;
  fill_slots(frequencies);
}

// Returns where the table of frequencies ends.
std::size_t RansStream::parse_frequencies(Frequencies& frequencies) const {
  const unsigned first = stream_.data[1], n = stream_.data[2] - first + 1u;
  std::size_t at = 3 + (n + 1) / 2;
  if (stream_.size < at) corrupt("the table of frequencies is cut off");
  if (n % 2 && stream_.data[at - 1] >> 4) corrupt("the table of frequencies has bits after its end");
  std::uint32_t sum = 0;
  std::size_t n_lower = 0;
  for (unsigned i = 0; i < n; ++i) {
    const unsigned size = stream_.data[3 + i / 2] >> (i % 2 * 4) & 15u;
    if (size > kFrequencyBits || (size == 0 && (i == 0 || i == n - 1))) corrupt("a frequency has an impossible size");
    if (size == 0) continue;
    // load_padded reads zeros beyond the end; whether the bits were there is checked below.
    const std::uint64_t bits = load_padded(stream_, at + n_lower / 8) >> (n_lower % 8);
    const std::uint32_t high = 1u << (size - 1);
    frequencies[first + i] = static_cast<std::uint16_t>(high | (static_cast<std::uint32_t>(bits) & (high - 1)));
    sum += frequencies[first + i];
    n_lower += size - 1;
  }
  const std::size_t end = at + (n_lower + 7) / 8;
  if (end > stream_.size) corrupt("the table of frequencies is cut off");
  if (n_lower % 8 && stream_.data[end - 1] >> (n_lower % 8)) corrupt("the table of frequencies has bits after its end");
  if (sum != kRansSlots) corrupt("the frequencies do not add up to 4096");
  return end;
}

void RansStream::fill_slots(const Frequencies& frequencies) {
  std::size_t slot = 0;
  for (std::uint32_t s = 0; s < 256; ++s) {
    // Below 4096 each, for they add up to 4096 and the smallest and largest symbol differ or the
    // only frequency would need 13 bits.
    const std::uint32_t frequency = frequencies[s];
    for (std::uint32_t i = 0; i < frequency; ++i) slots_[slot++] = s << kSymbolShift | frequency << kFrequencyBits | i;
  }
}

void RansStream::decode(std::uint64_t start, std::uint64_t stop, std::uint8_t* out) const {
  while (start < stop) {
    const std::uint64_t chunk = start >> chunk_log2_, first = chunk << chunk_log2_;
    RansCursor cursor(*this, static_cast<std::size_t>(chunk));
    const std::uint64_t chunk_stop = std::min(stop, first + cursor.n_left());
    if (start == first && chunk_stop == first + cursor.n_left()) {
      cursor.next(out, cursor.n_left());
    } else {
      std::vector<std::uint8_t> whole(static_cast<std::size_t>(cursor.n_left()));
      cursor.next(whole.data(), cursor.n_left());
      std::memcpy(out, whole.data() + (start - first), static_cast<std::size_t>(chunk_stop - start));
    }
    out += chunk_stop - start;
    start = chunk_stop;
  }
}

RansCursor::RansCursor(const RansStream& stream, std::size_t chunk) : slots_(stream.slots_.data()) {
  const std::uint8_t* const head = stream.stream_.data + stream.offsets_[chunk];
  word_ = head + kRansHeadBytes;
  end_ = stream.stream_.data + stream.offsets_[chunk + 1];
  n_left_ = std::min(stream.n_ - (std::uint64_t{chunk} << stream.chunk_log2_), std::uint64_t{1} << stream.chunk_log2_);
  for (std::size_t j = 0; j < kRansStates; ++j) {
    states_[j] = load<std::uint32_t>(head + 4 * j);
    if (states_[j] < kRansLowerBound) corrupt("a state starts below its bound");
  }
}

void RansCursor::next(std::uint8_t* out, std::uint64_t count) {
  n_left_ -= count;
  static const DecodeRows rows = best_decode_rows();
  const std::uint64_t n_rows = rows(states_.data(), slots_, word_, end_, out, count / kRansStates);
  out += n_rows * kRansStates;
  count -= n_rows * kRansStates;
  for (std::size_t i = 0; i < count; ++i) {
    // Words from a copy that is padded with one more: a state may only take one that is there.
    std::uint8_t padded[4] = {};
    const std::size_t n_left = static_cast<std::size_t>(end_ - word_);
    std::memcpy(padded, word_, std::min<std::size_t>(n_left, 2));
    const std::uint8_t* at = padded;
    out[i] = step(states_[i % kRansStates], slots_, at);
    if (at != padded && n_left < 2) corrupt("a chunk has too few words");
    word_ += at - padded;
  }
  if (n_left_ == 0) {
    const bool is_done = std::all_of(states_.begin(), states_.end(), [](auto x) { return x == kRansLowerBound; });
    if (word_ != end_ || !is_done) corrupt("a chunk does not end as it must; the stream is damaged");
  }
}

RansEncoder::RansEncoder(Bytes data, const Frequencies& frequencies, unsigned chunk_log2, unsigned n_threads) {
  if (data.size == 0) throw std::invalid_argument("codec 'rans' takes at least one symbol");
  if (chunk_log2 < kRansMinChunkLog2 || chunk_log2 > kRansMaxChunkLog2) {
    throw std::invalid_argument("chunk_log2 is " + std::to_string(chunk_log2) + "; it must be 12 .. 20");
  }
  std::array<EncoderSymbol, 256> table;
  std::uint32_t sum = 0;
  bool is_single = false;
  for (std::size_t s = 0; s < 256; ++s) {
    table[s] = encoder_symbol(frequencies[s], sum);
    sum += frequencies[s];
    is_single |= frequencies[s] >= kRansSlots;
  }
  if (sum != kRansSlots || is_single) {
    throw std::invalid_argument("the frequencies do not add up to 4096 over two symbols or more");
  }
  std::array<bool, 256> occurs{};
  for (std::size_t i = 0; i < data.size; ++i) occurs[data.data[i]] = true;
  for (std::size_t s = 0; s < 256; ++s) {
    if (occurs[s] && !frequencies[s]) throw std::invalid_argument("a byte of the data has no frequency");
  }
  head_ = head_of(frequencies, chunk_log2);
  const std::size_t chunk_size = std::size_t{1} << chunk_log2;
  chunks_.resize(((data.size - 1) >> chunk_log2) + 1);
  n_threads = static_cast<unsigned>(std::min<std::size_t>(std::max(n_threads, 1u), chunks_.size()));
  std::vector<std::vector<std::uint8_t>> scratch(n_threads);
  parallel_for(chunks_.size(), n_threads, [&](unsigned worker, std::size_t chunk) {
    scratch[worker].resize(kRansHeadBytes + 2 * std::min(chunk_size, data.size));
    const std::size_t first = chunk * chunk_size;
    const Bytes symbols{data.data + first, std::min(chunk_size, data.size - first)};
    chunks_[chunk] = encode_chunk(symbols, table, scratch[worker]);
  });
}

std::size_t RansEncoder::stream_nbytes() const {
  std::size_t nbytes = head_.size() + 4 * chunks_.size();
  for (const auto& chunk : chunks_) nbytes += chunk.size();
  return nbytes;
}

void RansEncoder::write(std::uint8_t* stream) const {
  std::memcpy(stream, head_.data(), head_.size());
  std::uint8_t* size = stream + head_.size();
  std::uint8_t* out = size + 4 * chunks_.size();
  for (const auto& chunk : chunks_) {
    store(size, static_cast<std::uint32_t>(chunk.size()));
    size += 4;
    std::memcpy(out, chunk.data(), chunk.size());
    out += chunk.size();
  }
}

}  // namespace cmpk

// decode_floats: jobs of any sizes over damaged parts, held against the pages of what they combine.
#include <algorithm>
#include <set>

#include "float_jobs.hpp"
#include "slow_floats.hpp"
#include "slow_jobs.hpp"

namespace {

using namespace fuzz;
using cmpk::FloatFormat;
using cmpk::FloatJob;

enum : std::size_t {
  kFormat,
  kOutFormat,
  kN,
  kStart,
  kCount,
  kMantissaBits,
  kBase,
  kHasRows,
  kRowElements,
  kOutBytes,
  kCodecs,  // four bits each
  kSplit,   // elements of the first of two jobs; 0 for one job of all
  kThreads,
  kNumbers
};
enum : std::size_t { kIndex, kHigh, kRows, kSources, kStreams = kSources + 1 + cmpk::kMaxRest };
constexpr std::uint64_t kMaxOutBytes = 8 * kMaxElements;
constexpr const char* kCodecNames[16] = {"raw", "bitpack", "huffman", "rans"};

const FloatFormat& format_of(const Case& input) {
  return cmpk::float_format(float_names()[input.numbers[kFormat] % float_names().size()]);
}

// Half of the values mean the type itself.
const FloatFormat& out_format_of(const Case& input) {
  const std::uint64_t index = input.numbers[kOutFormat] % (2 * float_names().size());
  return index < float_names().size() ? cmpk::float_format(float_names()[index]) : format_of(input);
}

Codec codec_of(const Case& input, std::size_t source) {
  return static_cast<Codec>(input.numbers[kCodecs] >> (4 * source) & 15);
}

unsigned n_sources(const FloatFormat& format, std::uint64_t mantissa_bits) {
  return 1 + (8 * format.nbytes() - format.exponent_nbits - static_cast<unsigned>(mantissa_bits) + 7) / 8;
}

std::uint64_t max_mantissa_bits(const FloatFormat& format) {
  return std::min(format.mantissa_nbits, 16 - format.exponent_nbits);
}

// Parts whose elements are floats, be it of values that no encoder would give them.
void add_sources(Case& input, Random& random) {
  const FloatFormat& format = format_of(input);
  const unsigned upper = format.exponent_nbits + static_cast<unsigned>(input.numbers[kMantissaBits]);
  const unsigned rest = 8 * format.nbytes() - upper;
  const unsigned n = n_sources(format, input.numbers[kMantissaBits]);
  for (unsigned i = 0; i < n; ++i) {
    Stream data = skewed_bytes(random, static_cast<std::size_t>(input.numbers[kN]));
    const unsigned nbits = i == 0 ? std::min(upper, 8u) : std::min(8u, rest - 8 * (i - 1));
    for (std::uint8_t& byte : data) byte &= static_cast<std::uint8_t>((1u << nbits) - 1);
    // At an exception the upper bits have no meaning: any will do.
    for (std::size_t at = 0; i == 0 && at < input.streams[kIndex].size(); at += 8) {
      data[cmpk::load<std::uint64_t>(input.streams[kIndex].data() + at)] = static_cast<std::uint8_t>(random.next());
    }
    std::uint64_t codec = random.below(kCodecs);
    if (data.empty() || (codec == kBitpack && (nbits == 8 || i == 0))) codec = kRaw;
    input.numbers[kCodecs] |= codec << (4 * i);
    input.streams.push_back(fresh_stream(random, static_cast<Codec>(codec), data));
  }
}

void add_exceptions(Case& input, Random& random) {
  const unsigned upper = format_of(input).exponent_nbits + static_cast<unsigned>(input.numbers[kMantissaBits]);
  std::set<std::uint64_t> indices;
  for (std::uint64_t i = input.numbers[kN] ? random.size(200) : 0; i; --i)
    indices.insert(random.below(input.numbers[kN]));
  for (const std::uint64_t index : indices) {
    const std::uint16_t high = static_cast<std::uint16_t>(random.next() & ((1u << upper) - 1));
    for (unsigned i = 0; i < 8; ++i) input.streams[kIndex].push_back(static_cast<std::uint8_t>(index >> (8 * i)));
    for (unsigned i = 0; i < 2; ++i) input.streams[kHigh].push_back(static_cast<std::uint8_t>(high >> (8 * i)));
  }
}

// Whole rows, to as many different rows of a larger output.
void add_rows(Case& input, Random& random) {
  const std::uint64_t row_elements = 1 + random.size(std::max<std::uint64_t>(input.numbers[kCount], 1));
  const std::uint64_t n_rows = input.numbers[kCount] / row_elements;
  std::vector<std::uint32_t> rows(static_cast<std::size_t>(n_rows + random.size(20)));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::uint32_t>(i);
  for (std::size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[random.below(i)]);
  input.numbers[kHasRows] = 1;
  input.numbers[kRowElements] = row_elements;
  input.numbers[kCount] = n_rows * row_elements;
  input.numbers[kOutBytes] = rows.size() * row_elements * out_format_of(input).nbytes();
  input.streams[kRows].resize(static_cast<std::size_t>(4 * n_rows));
  if (n_rows) std::memcpy(input.streams[kRows].data(), rows.data(), input.streams[kRows].size());
}

Case fresh(Random& random) {
  Case input{std::vector<std::uint64_t>(kNumbers), std::vector<Stream>(kSources)};
  const std::uint64_t n_formats = float_names().size();
  input.numbers[kFormat] = random.below(n_formats);
  input.numbers[kOutFormat] = n_formats;
  const FloatFormat& format = format_of(input);
  for (std::uint64_t i = random.below(2 * n_formats); i < n_formats; ++i) {
    if (cmpk::may_narrow(cmpk::float_format(float_names()[i]), format)) input.numbers[kOutFormat] = i;
  }
  // Beyond 2^17 elements a job has several pieces.
  input.numbers[kN] = random.size(random.once_in(16) ? 300000 : 8000);
  input.numbers[kMantissaBits] = random.once_in(2) ? 0 : random.below(1 + max_mantissa_bits(format));
  const std::uint64_t n_upper = std::uint64_t{1} << (format.exponent_nbits + input.numbers[kMantissaBits]);
  input.numbers[kBase] = n_upper > 256 ? random.below(n_upper - 255) : 0;
  input.numbers[kStart] = random.once_in(2) ? 0 : random.below(input.numbers[kN]);
  const std::uint64_t left = input.numbers[kN] - input.numbers[kStart];
  input.numbers[kCount] = random.once_in(2) ? left : random.below(left);
  input.numbers[kOutBytes] = input.numbers[kCount] * out_format_of(input).nbytes();
  if (random.once_in(2)) add_exceptions(input, random);
  if (random.once_in(2)) add_rows(input, random);
  if (random.once_in(4)) input.numbers[kSplit] = random.below(input.numbers[kCount]);
  input.numbers[kThreads] = random.once_in(64);
  add_sources(input, random);
  return input;
}

Spans spans(const Case& input, std::size_t stream) {
  const std::size_t size = input.streams[stream].size();
  if (stream == kIndex) return {{0, size, Kind::kWords64}};
  if (stream == kHigh) return {{0, size, Kind::kWords16}};
  if (stream == kRows) return {{0, size, Kind::kWords32}};
  return spans_of(codec_of(input, stream - kSources), input.streams[stream], input.numbers[kN]);
}

void repair(Case& input) {
  for (std::size_t i = kSources; i < input.streams.size(); ++i) {
    repair_size(codec_of(input, i - kSources), input.streams[i], input.numbers[kN]);
  }
  input.numbers[kOutBytes] = input.numbers[kCount] * out_format_of(input).nbytes();
  const std::uint64_t n = input.streams[kRows].size() / 4;
  if (input.numbers[kHasRows] && n) {
    input.numbers[kCount] = n * input.numbers[kRowElements];
    input.numbers[kOutBytes] =
        (n + input.numbers[kThreads] % 64) * input.numbers[kRowElements] * out_format_of(input).nbytes();
  }
}

// The job of all elements, without an output; and what it refers to.
struct Whole {
  explicit Whole(const Case& input) {
    for (const Stream& stream : input.streams) streams.emplace_back(stream);
    const auto& numbers = input.numbers;
    job.format = &format_of(input);
    job.out_format = &out_format_of(input);
    // Numbers of elements that could be decoded are kept small; others may be anything.
    const auto bounded = [](std::uint64_t value) { return value >> 45 ? value : value % (kMaxElements + 1); };
    job.n = bounded(numbers[kN]) & ~std::uint64_t{0} >> 1;
    job.start = numbers[kStart] & ~std::uint64_t{0} >> 1;
    job.count = numbers[kCount] & ~std::uint64_t{0} >> 1;
    job.mantissa_bits = static_cast<std::int64_t>(numbers[kMantissaBits]);
    job.base = static_cast<std::int64_t>(numbers[kBase]);
    for (std::size_t i = kSources; i < streams.size(); ++i) {
      // Streams beyond those of the type are there only where the case was filled up with empty ones.
      if (streams[i].size() == 0 && i - kSources >= n_sources(*job.format, numbers[kMantissaBits] % 17)) continue;
      const char* const name = kCodecNames[codec_of(input, i - kSources)];
      job.sources.push_back({name ? name : "zstd", streams[i].bytes()});
    }
    job.exception_index = streams[kIndex].bytes();
    job.exception_high = streams[kHigh].bytes();
    job.has_rows = numbers[kHasRows] & 1;
    if (job.has_rows) job.rows = streams[kRows].bytes();
    job.row_elements = numbers[kRowElements] & ~std::uint64_t{0} >> 1;
    job.out_nbytes = static_cast<std::size_t>(std::min(numbers[kOutBytes], kMaxOutBytes));
  }

  FloatJob job{};
  std::vector<Exact> streams;
};

bool has_right_numbers(const FloatJob& job) {
  const FloatFormat& format = *job.format;
  if (job.start > job.n || job.count > job.n - job.start) return false;
  if (job.mantissa_bits < 0 || static_cast<std::uint64_t>(job.mantissa_bits) > max_mantissa_bits(format)) return false;
  const unsigned mantissa_bits = static_cast<unsigned>(job.mantissa_bits);
  const std::uint64_t n_upper = std::uint64_t{1} << (format.exponent_nbits + mantissa_bits);
  if (job.base < 0 || static_cast<std::uint64_t>(job.base) > (n_upper > 256 ? n_upper - 256 : 0)) return false;
  if (job.sources.size() != n_sources(format, mantissa_bits)) return false;
  return job.format == job.out_format || cmpk::may_narrow(*job.out_format, format);
}

// The upper bits of all elements; nothing if the exceptions break a rule.
std::optional<std::vector<std::uint64_t>> slow_highs(const FloatJob& job, const Stream& high) {
  const std::size_t n_exceptions = job.exception_index.size / 8;
  if (job.exception_index.size % 8 || job.exception_high.size != 2 * n_exceptions) return {};
  std::vector<std::uint64_t> highs(high.size());
  for (std::size_t i = 0; i < highs.size(); ++i) highs[i] = high[i] + static_cast<std::uint64_t>(job.base);
  std::uint64_t above = 0;
  for (std::size_t i = 0; i < n_exceptions; ++i) {
    const std::uint64_t index = cmpk::load<std::uint64_t>(job.exception_index.data + 8 * i);
    const std::uint64_t upper = cmpk::load<std::uint16_t>(job.exception_high.data + 2 * i);
    if (index < above || index >= job.n || upper >> (job.format->exponent_nbits + job.mantissa_bits)) return {};
    above = index + 1;
    highs[static_cast<std::size_t>(index)] = upper;
  }
  return highs;
}

Outcome slow_outcome(const FloatJob& job) {
  if (!has_right_numbers(job)) return {Outcome::kWrong};
  if (job.n > kMaxElements) return {Outcome::kEither};
  std::vector<Stream> parts;
  for (const cmpk::Source& source : job.sources) {
    std::optional<Stream> part = slow_part(source, job.n);
    if (!part) return {Outcome::kEither};
    parts.push_back(std::move(*part));
  }
  const auto highs = slow_highs(job, parts[0]);
  const auto places = slow_places(job, job.out_format->nbytes());
  if (!highs || !places) return {Outcome::kWrong};
  const unsigned mantissa_bits = static_cast<unsigned>(job.mantissa_bits);
  const unsigned upper_nbits = job.format->exponent_nbits + mantissa_bits;
  std::vector<std::uint64_t> elements(static_cast<std::size_t>(job.count));
  for (std::uint64_t i = 0; i < job.count; ++i) {
    const std::size_t at = static_cast<std::size_t>(job.start + i);
    std::uint64_t q = 0;
    for (std::size_t j = 1; j < parts.size(); ++j) q |= std::uint64_t{parts[j][at]} << (8 * (j - 1));
    if ((*highs)[at] >> upper_nbits || q >> (8 * job.format->nbytes() - upper_nbits)) return {Outcome::kWrong};
    std::uint64_t bits = slow_merge(*job.format, mantissa_bits, (*highs)[at], q);
    if (job.format != job.out_format) bits = slow_widen(bits, *job.format, *job.out_format);
    elements[static_cast<std::size_t>(i)] = bits;
  }
  return slow_output(job, job.out_format->nbytes(), *places, elements);
}

// One job or two that share the elements between them, each with an output of its own unless rows
// say where in one output its elements go.
struct Jobs {
  Jobs(const FloatJob& whole, std::uint64_t split) {
    const std::size_t nbytes = whole.out_format->nbytes();
    if (!split) {
      outs.emplace_back(whole.out_nbytes);
      jobs.push_back(whole);
      jobs[0].out = outs[0].data();
      return;
    }
    jobs.assign(2, whole);
    jobs[0].count = split;
    jobs[1].start += split;
    jobs[1].count -= split;
    if (!whole.has_rows) {
      for (FloatJob& job : jobs) {
        job.out_nbytes = static_cast<std::size_t>(job.count) * nbytes;
        outs.emplace_back(job.out_nbytes);
        job.out = outs.back().data();
      }
      return;
    }
    outs.emplace_back(whole.out_nbytes);
    for (FloatJob& job : jobs) job.out = outs[0].data();
    const std::size_t n_rows =
        whole.row_elements
            ? static_cast<std::size_t>(std::min<std::uint64_t>(split / whole.row_elements, whole.rows.size / 4))
            : 0;
    jobs[0].rows.size = 4 * n_rows;
    jobs[1].rows = {whole.rows.data + 4 * n_rows, whole.rows.size - 4 * n_rows};
  }

  bool decode(unsigned n_threads) const {
    try {
      cmpk::decode_floats(jobs, n_threads);
      return true;
    } catch (const cmpk::CorruptStream&) {
    } catch (const std::invalid_argument&) {
    }
    return false;
  }

  Stream output() const {
    Stream bytes;
    for (const Exact& out : outs) bytes.insert(bytes.end(), out.data(), out.data() + out.size());
    return bytes;
  }

  std::vector<FloatJob> jobs;
  std::vector<Exact> outs;
};

void run(const Case& input) {
  Whole whole(input);
  FloatJob& job = whole.job;
  std::uint64_t split = input.numbers[kSplit];
  if (job.has_rows && job.row_elements) split -= split % job.row_elements;
  if (split >= job.count || job.count > kMaxElements) split = 0;
  if (split && !job.has_rows) job.out_nbytes = static_cast<std::size_t>(job.count) * job.out_format->nbytes();
  const Jobs jobs(job, split);
  const bool is_decoded = jobs.decode(input.numbers[kThreads] == 1 ? 2 : 1);
  const Outcome expected = slow_outcome(job);
  if (expected.kind == Outcome::kWrong) require(!is_decoded, "a job that breaks a rule is refused");
  if (expected.kind != Outcome::kRight) return;
  require(is_decoded, "a job that breaks no rule is done");
  require(jobs.output() == expected.output,
          "elements are what the pages say and where they belong, and nothing else is written");
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, kStreams, fresh, spans, repair, run};

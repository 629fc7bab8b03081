// Jobs of codes: any scales, zero points, numbers, lists and exceptions over damaged codes, held against
// spec/encodings/affine.md, cast.md and codebook.md.
#include <algorithm>
#include <cmath>
#include <set>

#include "code_jobs.hpp"
#include "lookup_jobs.hpp"
#include "slow_floats.hpp"
#include "slow_jobs.hpp"

namespace {

using namespace fuzz;
using cmpk::FloatFormat;
using cmpk::load;

enum : std::size_t {
  kKind,
  kFormat,  // of lookups, the logarithm of the bytes of an element
  kN,
  kStart,
  kCount,
  kOffset,
  kLine,
  kRun,
  kSize,
  kHasRows,
  kRowElements,
  kOutBytes,
  kCodec,
  kThreads,
  kNumbers
};
// The table holds the scales, or the lists of a lookup.
enum : std::size_t { kCodes, kTable, kZeroPoints, kNumbersOfCodes, kIndex, kCode, kRows, kStreams };
enum : std::uint64_t { kAffine, kAsymmetric, kCast, kLookup, kKinds };
constexpr std::uint64_t kMaxOutBytes = 8 * kMaxElements;
constexpr std::int64_t kMaxCode = std::int64_t{1} << 24;
constexpr const char* kCodecNames[16] = {"raw", "bitpack", "huffman", "rans"};

std::uint64_t kind_of(const Case& input) { return input.numbers[kKind] % kKinds; }

const FloatFormat& format_of(const Case& input) {
  return cmpk::float_format(float_names()[input.numbers[kFormat] % float_names().size()]);
}

std::size_t element_nbytes(const Case& input) {
  return kind_of(input) == kLookup ? std::size_t{1} << input.numbers[kFormat] % 4 : format_of(input).nbytes();
}

Codec codec_of(const Case& input) { return static_cast<Codec>(input.numbers[kCodec] & 15); }

template <class T>
void append(Stream& stream, T value) {
  const std::size_t at = stream.size();
  stream.resize(at + sizeof value);
  std::memcpy(stream.data() + at, &value, sizeof value);
}

float fresh_number(Random& random, bool may_be_special) {
  const FloatFormat& format = cmpk::float_format("F32");
  for (;;) {
    const std::uint32_t bits = static_cast<std::uint32_t>(fresh_float(random, format));
    float number;
    std::memcpy(&number, &bits, sizeof number);
    if (may_be_special || std::isfinite(number)) return number;
  }
}

void add_rows(Case& input, Random& random) {
  const std::uint64_t row_elements = 1 + random.size(std::max<std::uint64_t>(input.numbers[kCount], 1));
  const std::uint64_t n_rows = input.numbers[kCount] / row_elements;
  std::vector<std::uint32_t> rows(static_cast<std::size_t>(n_rows + random.size(20)));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::uint32_t>(i);
  for (std::size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[random.below(i)]);
  input.numbers[kHasRows] = 1;
  input.numbers[kRowElements] = row_elements;
  input.numbers[kCount] = n_rows * row_elements;
  input.numbers[kOutBytes] = rows.size() * row_elements * element_nbytes(input);
  for (std::uint64_t i = 0; i < n_rows; ++i) append(input.streams[kRows], rows[i]);
}

void add_scales(Case& input, Random& random) {
  auto& numbers = input.numbers;
  const bool is_cast = kind_of(input) == kCast;
  numbers[kLine] = 1 + random.size(std::max<std::uint64_t>(numbers[kN], 1));
  numbers[kRun] = 1 + random.size(numbers[kLine] - 1);
  const std::int64_t offset = is_cast ? 0 : static_cast<std::int64_t>(random.size(600)) - 300;
  numbers[kOffset] = static_cast<std::uint64_t>(offset);
  const std::uint64_t n_scales = 1 + random.size(numbers[kN] / numbers[kRun]);
  std::vector<std::int32_t> zeros(static_cast<std::size_t>(n_scales));
  for (std::int32_t& zero : zeros) {
    append(input.streams[kTable], fresh_number(random, false));
    if (kind_of(input) == kAsymmetric) zero = static_cast<std::int32_t>(random.size(1 << 25)) - (1 << 24) + 1000;
    zero = std::max<std::int32_t>(zero, static_cast<std::int32_t>(offset) + 255 - static_cast<std::int32_t>(kMaxCode));
    zero = std::min<std::int32_t>(zero, static_cast<std::int32_t>(offset + kMaxCode));
    if (kind_of(input) == kAsymmetric) append(input.streams[kZeroPoints], zero);
  }
  for (unsigned i = 0; is_cast && i < 256; ++i) append(input.streams[kNumbersOfCodes], fresh_number(random, true));
  if (is_cast || !numbers[kN] || random.once_in(2)) return;
  std::set<std::uint64_t> indices;
  for (std::uint64_t i = random.size(200); i; --i) indices.insert(random.below(numbers[kN]));
  for (const std::uint64_t index : indices) {
    append(input.streams[kIndex], index);
    // Close to every zero point.
    append(input.streams[kCode], static_cast<std::int32_t>(random.size(2000)) - 1000);
  }
}

void add_lists(Case& input, Random& random, const Stream& data) {
  auto& numbers = input.numbers;
  const std::uint8_t most = data.empty() ? std::uint8_t{0} : *std::max_element(data.begin(), data.end());
  numbers[kSize] = most + 1 + random.size(255u - most);
  // No shorter runs: lists for each of them would be most of the case.
  numbers[kRun] = random.once_in(2) ? 0 : 64 + random.size(numbers[kN]);
  const std::uint64_t n_lists = numbers[kN] ? (numbers[kRun] ? (numbers[kN] - 1) / numbers[kRun] + 1 : 1) : 0;
  const std::uint64_t nbytes = n_lists * numbers[kSize] * element_nbytes(input);
  for (std::uint64_t i = 0; i < nbytes; ++i) {
    input.streams[kTable].push_back(static_cast<std::uint8_t>(random.next()));
  }
}

Case fresh(Random& random) {
  Case input{std::vector<std::uint64_t>(kNumbers), std::vector<Stream>(kStreams)};
  auto& numbers = input.numbers;
  numbers[kKind] = random.below(kKinds);
  numbers[kFormat] = random.below(float_names().size());
  while (numbers[kKind] == kCast && format_of(input).nbytes() == 1) numbers[kFormat] = random.below(float_names().size());
  // Beyond 2^17 elements a job has several pieces.
  numbers[kN] = random.size(random.once_in(16) ? 300000 : 8000);
  numbers[kStart] = random.once_in(2) ? 0 : random.below(numbers[kN]);
  const std::uint64_t left = numbers[kN] - numbers[kStart];
  numbers[kCount] = random.once_in(2) ? left : random.below(left);
  numbers[kOutBytes] = numbers[kCount] * element_nbytes(input);
  if (random.once_in(2)) add_rows(input, random);
  numbers[kThreads] = random.once_in(64);
  Stream data = skewed_bytes(random, static_cast<std::size_t>(numbers[kN]));
  if (!data.empty()) numbers[kCodec] = random.below(kCodecs);
  input.streams[kCodes] = fresh_stream(random, codec_of(input), data);
  if (kind_of(input) == kLookup) {
    add_lists(input, random, data);
  } else {
    add_scales(input, random);
  }
  return input;
}

Spans spans(const Case& input, std::size_t stream) {
  const std::size_t size = input.streams[stream].size();
  if (stream == kCodes) return spans_of(codec_of(input), input.streams[stream], input.numbers[kN]);
  return {{0, size, stream == kIndex ? Kind::kWords64 : Kind::kWords32}};
}

void repair(Case& input) {
  repair_size(codec_of(input), input.streams[kCodes], input.numbers[kN]);
  const std::uint64_t n = input.streams[kRows].size() / 4;
  if (input.numbers[kHasRows] && n) input.numbers[kCount] = n * input.numbers[kRowElements];
  input.numbers[kOutBytes] = input.numbers[kCount] * element_nbytes(input);
}

// The bits of a float rounded to a type, by its distance in units of the last place.
std::uint64_t slow_round(float number, const FloatFormat& format) {
  const bool is_fnuz = format.name.find("FNUZ") != std::string_view::npos;
  const int bias = (1 << (format.exponent_nbits - 1)) - (is_fnuz ? 0 : 1);
  const int mantissa_nbits = static_cast<int>(format.mantissa_nbits);
  const std::uint64_t infinity = ((std::uint64_t{1} << format.exponent_nbits) - 1) << format.mantissa_nbits;
  if (std::isnan(number)) return infinity | std::uint64_t{1} << (format.mantissa_nbits - 1);
  std::uint64_t top = infinity;
  if (is_fnuz) top = 0x7f;
  if (format.name == "F8_E4M3") top = 0x7e;
  std::uint64_t bits = top;
  if (std::isfinite(number)) {
    const double magnitude = std::fabs(static_cast<double>(number));
    const int exponent = std::max(magnitude > 0 ? std::ilogb(magnitude) : 1 - bias, 1 - bias);
    const double units = std::nearbyint(std::ldexp(magnitude, mantissa_nbits - exponent));
    const std::uint64_t above = static_cast<std::uint64_t>(exponent - 1 + bias) << format.mantissa_nbits;
    bits = std::min(top, above + static_cast<std::uint64_t>(units));
  }
  const bool has_sign = std::signbit(number) && (bits || !is_fnuz);
  return bits | std::uint64_t{has_sign} << (format.exponent_nbits + format.mantissa_nbits);
}

// A case as a job without an output, and what it refers to.
struct Whole {
  explicit Whole(const Case& input) {
    for (const Stream& stream : input.streams) streams.emplace_back(stream);
    const auto& numbers = input.numbers;
    const auto natural = [](std::uint64_t value) { return value & ~std::uint64_t{0} >> 1; };
    range.n = natural(numbers[kN] >> 45 ? numbers[kN] : numbers[kN] % (kMaxElements + 1));
    range.start = natural(numbers[kStart]);
    range.count = natural(numbers[kCount]);
    range.has_rows = numbers[kHasRows] & 1;
    if (range.has_rows) range.rows = streams[kRows].bytes();
    range.row_elements = natural(numbers[kRowElements]);
    range.out_nbytes = static_cast<std::size_t>(std::min(numbers[kOutBytes], kMaxOutBytes));
    const char* const name = kCodecNames[codec_of(input)];
    const cmpk::Source source{name ? name : "zstd", streams[kCodes].bytes()};
    static_cast<cmpk::JobRange&>(code) = range;
    code.format = &format_of(input);
    code.codes = source;
    code.scale = streams[kTable].bytes();
    code.has_zero_points = kind_of(input) == kAsymmetric;
    if (code.has_zero_points) code.zero_point = streams[kZeroPoints].bytes();
    code.offset = static_cast<std::int64_t>(numbers[kOffset]);
    code.line = natural(numbers[kLine]);
    code.run = natural(numbers[kRun]);
    code.has_numbers = kind_of(input) == kCast;
    if (code.has_numbers) code.numbers = streams[kNumbersOfCodes].bytes();
    code.exception_index = streams[kIndex].bytes();
    code.exception_code = streams[kCode].bytes();
    static_cast<cmpk::JobRange&>(lookup) = range;
    lookup.element_nbytes = element_nbytes(input);
    lookup.codes = source;
    lookup.table = streams[kTable].bytes();
    lookup.size = natural(numbers[kSize]);
    lookup.run = natural(numbers[kRun]);
  }

  std::vector<Exact> streams;
  cmpk::JobRange range{};
  cmpk::CodeJob code{};
  cmpk::LookupJob lookup{};
};

bool has_right_scales(const cmpk::CodeJob& job) {
  const std::uint64_t n_scales = job.scale.size / 4;
  if (job.scale.size % 4 || (job.n && !n_scales) || !job.run || job.run > job.line) return false;
  if (job.offset < -kMaxCode || job.offset > kMaxCode) return false;
  if (job.has_zero_points && job.zero_point.size != job.scale.size) return false;
  for (std::uint64_t i = 0; i < n_scales; ++i) {
    const std::int64_t zero = job.has_zero_points ? load<std::int32_t>(job.zero_point.data + 4 * i) : 0;
    if (!std::isfinite(load<float>(job.scale.data + 4 * i))) return false;
    if (job.offset - zero < -kMaxCode || job.offset + 255 - zero > kMaxCode) return false;
  }
  const std::size_t n_exceptions = job.exception_index.size / 8;
  if (job.exception_index.size % 8 || job.exception_code.size != 4 * n_exceptions) return false;
  return !job.has_numbers ||
         (job.numbers.size == 1024 && !job.offset && !n_exceptions && job.format->nbytes() > 1);
}

// The number of each element before it is scaled; nothing if exceptions break a rule.
std::optional<std::vector<float>> slow_factors(const cmpk::CodeJob& job, const Stream& codes,
                                               const std::vector<std::size_t>& scales) {
  const auto zero = [&](std::size_t i) -> std::int64_t {
    return job.has_zero_points ? load<std::int32_t>(job.zero_point.data + 4 * scales[i]) : 0;
  };
  std::vector<float> factors(codes.size());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    factors[i] = job.has_numbers ? load<float>(job.numbers.data + 4 * codes[i])
                                 : static_cast<float>(codes[i] + job.offset - zero(i));
  }
  std::uint64_t above = 0;
  for (std::size_t i = 0; i < job.exception_index.size / 8; ++i) {
    const std::uint64_t index = load<std::uint64_t>(job.exception_index.data + 8 * i);
    if (index < above || index >= job.n) return {};
    above = index + 1;
    const std::size_t at = static_cast<std::size_t>(index);
    const std::int64_t distance = load<std::int32_t>(job.exception_code.data + 4 * i) - zero(at);
    if (distance < -kMaxCode || distance > kMaxCode) return {};
    factors[at] = static_cast<float>(distance);
  }
  return factors;
}

Outcome slow_outcome(const cmpk::CodeJob& job) {
  if (job.start > job.n || job.count > job.n - job.start || !has_right_scales(job)) return {Outcome::kWrong};
  if (job.n > kMaxElements) return {Outcome::kEither};
  const std::optional<Stream> codes = slow_part(job.codes, job.n);
  if (!codes) return {Outcome::kEither};
  std::vector<std::size_t> scales(codes->size());
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const std::uint64_t runs_per_line = (job.line - 1) / job.run + 1;
    scales[i] = static_cast<std::size_t>((i / job.line * runs_per_line + i % job.line / job.run) % (job.scale.size / 4));
  }
  const auto factors = slow_factors(job, *codes, scales);
  const auto places = slow_places(job, job.format->nbytes());
  if (!factors || !places) return {Outcome::kWrong};
  std::vector<std::uint64_t> elements(static_cast<std::size_t>(job.count));
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const std::size_t at = static_cast<std::size_t>(job.start) + i;
    // Exact in a double, unless it is no number.
    const double product = static_cast<double>((*factors)[at]) * load<float>(job.scale.data + 4 * scales[at]);
    elements[i] = slow_round(static_cast<float>(product), *job.format);
  }
  return slow_output(job, job.format->nbytes(), *places, elements);
}

Outcome slow_outcome(const cmpk::LookupJob& job) {
  if (job.start > job.n || job.count > job.n - job.start || job.size < 1 || job.size > 256) return {Outcome::kWrong};
  const std::uint64_t n_lists = job.n ? (job.run ? (job.n - 1) / job.run + 1 : 1) : 0;
  const std::uint64_t list_nbytes = job.size * job.element_nbytes;
  if (job.table.size % list_nbytes || job.table.size / list_nbytes < n_lists) return {Outcome::kWrong};
  if (job.n > kMaxElements) return {Outcome::kEither};
  const std::optional<Stream> codes = slow_part(job.codes, job.n);
  if (!codes) return {Outcome::kEither};
  const auto places = slow_places(job, job.element_nbytes);
  if (!places) return {Outcome::kWrong};
  std::vector<std::uint64_t> elements(static_cast<std::size_t>(job.count));
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const std::size_t at = static_cast<std::size_t>(job.start) + i;
    if ((*codes)[at] >= job.size) return {Outcome::kWrong};
    const std::uint64_t list = job.run ? at / job.run : 0;
    std::memcpy(&elements[i], job.table.data + (list * job.size + (*codes)[at]) * job.element_nbytes,
                static_cast<std::size_t>(job.element_nbytes));
  }
  return slow_output(job, static_cast<std::size_t>(job.element_nbytes), *places, elements);
}

template <class Job>
void run_job(Job& job, bool has_threads) {
  const Exact out(job.out_nbytes);
  job.out = out.data();
  bool is_decoded = false;
  try {
    std::vector<std::unique_ptr<cmpk::PreparedJob>> jobs;
    jobs.push_back(prepare(job));
    cmpk::run_jobs(jobs, has_threads ? 2 : 1);
    is_decoded = true;
  } catch (const cmpk::CorruptStream&) {
  } catch (const std::invalid_argument&) {
  }
  const Outcome expected = slow_outcome(job);
  if (expected.kind == Outcome::kWrong) require(!is_decoded, "a job that breaks a rule is refused");
  if (expected.kind != Outcome::kRight) return;
  require(is_decoded, "a job that breaks no rule is done");
  require(Stream(out.data(), out.data() + out.size()) == expected.output,
          "elements are what the pages say and where they belong, and nothing else is written");
}

void run(const Case& input) {
  Whole whole(input);
  const bool has_threads = input.numbers[kThreads] == 1;
  if (kind_of(input) == kLookup) {
    run_job(whole.lookup, has_threads);
  } else {
    run_job(whole.code, has_threads);
  }
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, kStreams, fresh, spans, repair, run};

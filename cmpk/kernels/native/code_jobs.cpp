// Ranges of tensors of byte codes, dequantized straight to where they belong.
#include "code_jobs.hpp"

#include <array>
#include <cmath>

#include "dequantize.hpp"
#include "float_rounding.hpp"

namespace cmpk {

namespace {

constexpr std::int64_t kMaxCode = std::int64_t{1} << 24;
// Runs of fewer elements with one scale are dequantized together, each element with a copy of its own:
// that many make up for a call.
constexpr std::uint64_t kMinRun = 128;

class PreparedCodes final : public PreparedJob {
 public:
  explicit PreparedCodes(const CodeJob& job);

 private:
  // Elements up to `stop` that have one scale, and the end of their line.
  struct Run {
    std::uint64_t scale;
    std::uint64_t stop;
    std::uint64_t line_stop;
  };

  void check_scales() const;
  void check_exceptions() const;
  void run(std::uint64_t start, std::uint64_t stop, Workspace& workspace) const override;
  void dequantize(std::uint64_t start, std::size_t n, const std::uint8_t* codes, std::uint8_t* out) const;
  void dequantize_short_runs(std::uint64_t start, std::size_t n, const std::uint8_t* codes, std::uint8_t* out) const;
  void spread_scales(std::uint64_t start, std::size_t n, std::int32_t* firsts, float* scales) const;
  void apply_exceptions(std::uint64_t start, std::size_t n, std::uint8_t* out) const;

  Run run_of(std::uint64_t element) const;
  Run next(const Run& run) const;
  float scale(std::uint64_t i) const { return load<float>(job_.scale.data + 4 * i); }
  std::int64_t zero_point(std::uint64_t i) const {
    return job_.has_zero_points ? load<std::int32_t>(job_.zero_point.data + 4 * i) : 0;
  }
  // What is added to a byte; within kMaxCode, for that has been checked.
  std::int32_t first_code(std::uint64_t i) const { return static_cast<std::int32_t>(job_.offset - zero_point(i)); }

  const CodeJob& job_;
  std::uint64_t n_scales_;
  std::uint64_t runs_per_line_;
  unsigned element_nbytes_;
  Dequantizer dequantizer_;
  LookUp look_up_ = nullptr;
  JobOutput output_;
  Exceptions exceptions_;
  std::unique_ptr<Part> codes_;
  std::array<float, 256> numbers_;
};

PreparedCodes::PreparedCodes(const CodeJob& job)
    : PreparedJob(job),
      job_(job),
      n_scales_(job.scale.size / 4),
      element_nbytes_(job.format->nbytes()),
      dequantizer_(dequantizer_of(*job.format)),
      output_(job, job.format->nbytes()),
      exceptions_(job.exception_index, job.exception_code, 4, job.n, "affine") {
  if (job.scale.size % 4 || (job.n && !n_scales_)) {
    throw std::invalid_argument("scale has " + std::to_string(job.scale.size) + " bytes; each takes 4, and " +
                                std::to_string(job.n) + " elements need one");
  }
  if (!job.run || job.run > job.line || job.offset < -kMaxCode || job.offset > kMaxCode) {
    throw std::invalid_argument("offset is " + std::to_string(job.offset) + ", line " + std::to_string(job.line) +
                                " and run " + std::to_string(job.run));
  }
  if (job.has_zero_points && job.zero_point.size != job.scale.size) {
    throw std::invalid_argument(std::to_string(job.zero_point.size) + " bytes of zero points do not go with " +
                                std::to_string(job.scale.size) + " of scales");
  }
  if (job.has_numbers) {
    if (job.numbers.size != sizeof numbers_ || job.offset || job.has_zero_points || exceptions_.size()) {
      throw std::invalid_argument("numbers are 256 of 4 bytes, without an offset, zero points and exceptions");
    }
    if (element_nbytes_ == 1) {
      throw std::invalid_argument("numbers do not go with " + std::string(job.format->name) +
                                  ", which has no quiet NaN");
    }
    std::memcpy(numbers_.data(), job.numbers.data, sizeof numbers_);
    look_up_ = look_up_of(*job.format, numbers_.data());
  }
  runs_per_line_ = (job.line - 1) / job.run + 1;
  check_scales();
  check_exceptions();
  codes_ = open_part(job.codes.codec, job.codes.stream, job.n);
}

void PreparedCodes::check_scales() const {
  for (std::uint64_t i = 0; i < n_scales_; ++i) {
    if (!std::isfinite(scale(i))) throw CorruptStream("encoding 'affine': a scale is not finite");
  }
  for (std::uint64_t i = 0; i < n_scales_; ++i) {
    const std::int64_t lowest = job_.offset - zero_point(i);
    if (lowest < -kMaxCode || lowest + 255 > kMaxCode) {
      throw CorruptStream("encoding 'affine': codes from " + std::to_string(job_.offset) +
                          " on are too far from a zero point");
    }
  }
}

void PreparedCodes::check_exceptions() const {
  for (std::size_t i = 0; i < exceptions_.size(); ++i) {
    const std::int64_t distance =
        exceptions_.value<std::int32_t>(i) - zero_point(run_of(exceptions_.index(i)).scale);
    if (std::abs(distance) > kMaxCode) {
      throw CorruptStream("encoding 'affine': the code of an exception is too far from its zero point");
    }
  }
}

PreparedCodes::Run PreparedCodes::run_of(std::uint64_t element) const {
  const std::uint64_t line = element / job_.line;
  const std::uint64_t within = element % job_.line;
  const std::uint64_t run = within / job_.run;
  const std::uint64_t line_start = element - within;
  return {(line * runs_per_line_ + run) % n_scales_, line_start + std::min((run + 1) * job_.run, job_.line),
          line_start + job_.line};
}

PreparedCodes::Run PreparedCodes::next(const Run& run) const {
  const std::uint64_t line_stop = run.stop == run.line_stop ? run.line_stop + job_.line : run.line_stop;
  return {run.scale + 1 == n_scales_ ? 0 : run.scale + 1, std::min(run.stop + job_.run, line_stop), line_stop};
}

void PreparedCodes::run(std::uint64_t start, std::uint64_t stop, Workspace& workspace) const {
  const FloatEnvironment environment;
  const bool by_block = codes_->is_cheap_by_block();
  const std::uint8_t* codes = by_block ? nullptr : codes_->read(start, stop, workspace.parts.get(), workspace.tables);
  JobOutput::Place place = output_.place_of(start);
  for (std::uint64_t at = start; at < stop;) {
    const std::uint64_t end = std::min(stop, (at / kBlock + 1) * kBlock);
    if (by_block) codes = codes_->read(at, end, workspace.blocks, workspace.tables);
    output_.write_block(static_cast<std::size_t>(end - at), place, workspace.aside,
                        [&](std::size_t offset, std::size_t n, std::uint8_t* out) {
                          dequantize(at + offset, n, codes + offset, out);
                          if (exceptions_.size()) apply_exceptions(at + offset, n, out);
                        });
    codes += end - at;
    at = end;
  }
}

void PreparedCodes::dequantize(std::uint64_t start, std::size_t n, const std::uint8_t* codes,
                               std::uint8_t* out) const {
  if (job_.run < kMinRun && n_scales_ > 1) return dequantize_short_runs(start, n, codes, out);
  Run run = run_of(start);
  for (std::size_t i = 0; i < n; run = next(run)) {
    const std::size_t length = static_cast<std::size_t>(std::min<std::uint64_t>(n - i, run.stop - (start + i)));
    if (job_.has_numbers) {
      look_up_(codes + i, length, numbers_.data(), scale(run.scale), out + i * element_nbytes_);
    } else {
      dequantizer_.all(codes + i, length, first_code(run.scale), scale(run.scale), out + i * element_nbytes_);
    }
    i += length;
  }
}

void PreparedCodes::dequantize_short_runs(std::uint64_t start, std::size_t n, const std::uint8_t* codes,
                                          std::uint8_t* out) const {
  std::int32_t firsts[kBlock];
  float scales[kBlock];
  spread_scales(start, n, firsts, scales);
  if (job_.has_numbers) {
    dequantizer_.look_up_each(codes, n, numbers_.data(), scales, out);
  } else {
    dequantizer_.each(codes, n, firsts, scales, out);
  }
}

// Gives each of n elements a copy of its scale.
void PreparedCodes::spread_scales(std::uint64_t start, std::size_t n, std::int32_t* firsts, float* scales) const {
  if (job_.run == 1) {
    // Scales stand in the order of the elements.
    for (std::size_t i = 0; i < n;) {
      const std::uint64_t at = (start + i) % n_scales_;
      const std::size_t end = static_cast<std::size_t>(std::min<std::uint64_t>(n, i + (n_scales_ - at)));
      std::memcpy(scales + i, job_.scale.data + 4 * at, 4 * (end - i));
      for (std::size_t j = 0; i < end; ++i, ++j) firsts[i] = first_code(at + j);
    }
    return;
  }
  Run run = run_of(start);
  for (std::size_t i = 0; i < n; run = next(run)) {
    const std::size_t end = static_cast<std::size_t>(std::min<std::uint64_t>(n, run.stop - start));
    std::fill(scales + i, scales + end, scale(run.scale));
    std::fill(firsts + i, firsts + end, first_code(run.scale));
    i = end;
  }
}

void PreparedCodes::apply_exceptions(std::uint64_t start, std::size_t n, std::uint8_t* out) const {
  for (std::size_t i = exceptions_.first_from(start); i < exceptions_.size() && exceptions_.index(i) < start + n; ++i) {
    const std::uint64_t element = exceptions_.index(i);
    const std::uint64_t at = run_of(element).scale;
    const std::int32_t distance = static_cast<std::int32_t>(exceptions_.value<std::int32_t>(i) - zero_point(at));
    dequantizer_.one(distance, scale(at), out + (element - start) * element_nbytes_);
  }
}

}  // namespace

std::unique_ptr<PreparedJob> prepare(const CodeJob& job) { return std::make_unique<PreparedCodes>(job); }

}  // namespace cmpk

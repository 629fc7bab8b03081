// Ranges of float_split tensors, decoded straight to where they belong.
#include "float_jobs.hpp"

#include <array>

namespace cmpk {

namespace {

// Whether one of n bytes has a bit beyond the lowest `nbits`.
bool any_bit_above(const std::uint8_t* octets, std::size_t n, unsigned nbits) {
  std::uint8_t bits = 0;
  for (std::size_t i = 0; i < n; ++i) bits |= octets[i];
  return bits >> nbits;
}

class PreparedFloats final : public PreparedJob {
 public:
  explicit PreparedFloats(const FloatJob& job);

 private:
  // Where the symbols of each part are.
  using Symbols = std::array<const std::uint8_t*, 1 + kMaxRest>;

  void run(std::uint64_t start, std::uint64_t stop, Workspace& workspace) const override;
  void merge_run(std::uint64_t start, std::size_t n, const Symbols& parts, std::uint8_t* out,
                 Workspace& workspace) const;
  void apply_exceptions(std::uint64_t start, std::size_t n, std::uint8_t* elements) const;
  bool exceeds(std::uint64_t start, std::size_t n, const std::uint8_t* high) const;

  const FloatJob& job_;
  FloatLayout layout_;
  FloatMerge merge_;
  bool widens_;
  JobOutput output_;
  Exceptions exceptions_;
  std::vector<std::unique_ptr<Part>> parts_;
  // Whether a part may hold bits that an element has no room for.
  bool may_exceed_high_;
  bool may_exceed_rest_;
};

PreparedFloats::PreparedFloats(const FloatJob& job)
    : PreparedJob(job),
      job_(job),
      layout_(*job.format, job.mantissa_bits, job.base),
      merge_(float_merge_of(layout_)),
      widens_(!(*job.format == *job.out_format)),
      output_(job, job.out_format->nbytes()),
      exceptions_(job.exception_index, job.exception_high, 2, job.n, "float_split") {
  if (widens_ && !may_narrow(*job.out_format, *job.format)) {
    throw std::invalid_argument(std::string(job.format->name) + " does not widen to " +
                                std::string(job.out_format->name));
  }
  if (job.sources.size() != 1 + layout_.n_rest) {
    throw std::invalid_argument(std::to_string(job.sources.size()) + " sources; " + std::string(job.format->name) +
                                " with these parameters has " + std::to_string(1 + layout_.n_rest));
  }
  for (std::size_t i = 0; i < exceptions_.size(); ++i) {
    if (exceptions_.value<std::uint16_t>(i) >> layout_.upper_nbits) {
      throw CorruptStream("encoding 'float_split': exception_high exceeds " + std::to_string(layout_.upper_nbits) +
                          " bits");
    }
  }
  parts_.reserve(job.sources.size());
  for (const Source& source : job.sources) parts_.push_back(open_part(source.codec, source.stream, job.n));
  may_exceed_high_ = parts_.front()->max_nbits() > layout_.upper_nbits;
  may_exceed_rest_ = layout_.rest_nbits % 8 && parts_.back()->max_nbits() > layout_.rest_nbits % 8;
}

void PreparedFloats::run(std::uint64_t start, std::uint64_t stop, Workspace& workspace) const {
  Symbols parts{};
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    if (!parts_[i]->is_cheap_by_block()) {
      parts[i] = parts_[i]->read(start, stop, workspace.parts.get() + i * kPiece, workspace.tables);
    }
  }
  JobOutput::Place place = output_.place_of(start);
  for (std::uint64_t at = start; at < stop;) {
    const std::uint64_t end = std::min(stop, (at / kBlock + 1) * kBlock);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (parts_[i]->is_cheap_by_block()) {
        parts[i] = parts_[i]->read(at, end, workspace.blocks + i * kBlock, workspace.tables);
      }
    }
    output_.write_block(static_cast<std::size_t>(end - at), place, workspace.aside,
                        [&](std::size_t offset, std::size_t n, std::uint8_t* out) {
                          Symbols symbols = parts;
                          for (std::size_t i = 0; i < parts_.size(); ++i) symbols[i] += offset;
                          merge_run(at + offset, n, symbols, out, workspace);
                        });
    for (std::size_t i = 0; i < parts_.size(); ++i) parts[i] += end - at;
    at = end;
  }
}

// Elements that stand together in the output.
void PreparedFloats::merge_run(std::uint64_t start, std::size_t n, const Symbols& parts, std::uint8_t* out,
                            Workspace& workspace) const {
  std::uint8_t* const merged = widens_ ? workspace.merged : out;
  merge_(layout_, parts[0], parts.data() + 1, n, merged);
  if (may_exceed_high_ && any_bit_above(parts[0], n, layout_.upper_nbits) && exceeds(start, n, parts[0])) {
    throw CorruptStream("encoding 'float_split': upper bits exceed " + std::to_string(layout_.upper_nbits) + " bits");
  }
  if (may_exceed_rest_ && any_bit_above(parts[layout_.n_rest], n, layout_.rest_nbits % 8)) {
    throw CorruptStream("encoding 'float_split': the rest exceeds " + std::to_string(layout_.rest_nbits) + " bits");
  }
  if (exceptions_.size()) apply_exceptions(start, n, merged);
  if (widens_) widen(merged, n, *job_.format, *job_.out_format, out);
}

void PreparedFloats::apply_exceptions(std::uint64_t start, std::size_t n, std::uint8_t* elements) const {
  const std::uint64_t upper_mask = ((std::uint64_t{1} << layout_.upper_nbits) - 1) << layout_.lower_nbits;
  for (std::size_t i = exceptions_.first_from(start); i < exceptions_.size() && exceptions_.index(i) < start + n; ++i) {
    std::uint8_t* const at = elements + (exceptions_.index(i) - start) * layout_.nbytes;
    std::uint64_t element = 0;
    std::memcpy(&element, at, layout_.nbytes);
    element = (element & ~upper_mask) | std::uint64_t{exceptions_.value<std::uint16_t>(i)} << layout_.lower_nbits;
    std::memcpy(at, &element, layout_.nbytes);
  }
}

// Whether upper bits of an element that is no exception have more bits than there are.
bool PreparedFloats::exceeds(std::uint64_t start, std::size_t n, const std::uint8_t* high) const {
  std::size_t exception = exceptions_.first_from(start);
  for (std::size_t i = 0; i < n; ++i) {
    if (exception < exceptions_.size() && exceptions_.index(exception) == start + i) {
      ++exception;
    } else if (high[i] >> layout_.upper_nbits) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::unique_ptr<PreparedJob> prepare(const FloatJob& job) { return std::make_unique<PreparedFloats>(job); }

void decode_floats(const std::vector<FloatJob>& jobs, unsigned n_threads) {
  std::vector<std::unique_ptr<PreparedJob>> prepared;
  prepared.reserve(jobs.size());
  for (const FloatJob& job : jobs) prepared.push_back(prepare(job));
  run_jobs(prepared, n_threads);
}

}  // namespace cmpk

// Ranges of float_split tensors, decoded straight to where they belong.
#include "float_jobs.hpp"

#include <algorithm>
#include <array>
#include <memory>

#include "memory.hpp"
#include "parallel.hpp"
#include "part.hpp"

namespace cmpk {

namespace {

// Elements decoded at a time, at a multiple of this number. More than sync points need to pay, and
// few enough for the second-level cache.
constexpr std::uint64_t kPiece = std::uint64_t{1} << 17;
// Elements merged at a time: with what is made of them, they fit the first-level cache.
constexpr std::size_t kBlock = 2048;
// Rows of fewer elements are merged aside and copied: that many make up for a call.
constexpr std::uint64_t kMinRowElements = 64;

// Whether one of n bytes has a bit beyond the lowest `nbits`.
bool any_bit_above(const std::uint8_t* octets, std::size_t n, unsigned nbits) {
  std::uint8_t bits = 0;
  for (std::size_t i = 0; i < n; ++i) bits |= octets[i];
  return bits >> nbits;
}

// What a thread needs for itself.
struct Workspace {
  PartTables tables;
  std::unique_ptr<std::uint8_t[]> parts{new std::uint8_t[(1 + kMaxRest) * kPiece]};
  std::uint8_t blocks[(1 + kMaxRest) * kBlock];
  std::uint8_t merged[kBlock * 8];
  std::uint8_t aside[kBlock * 8];
};

// A job whose numbers are known to fit together.
class PreparedJob {
 public:
  explicit PreparedJob(const FloatJob& job);

  std::uint64_t first_piece() const { return job_.start / kPiece; }
  std::uint64_t n_pieces() const { return job_.count ? (job_.start + job_.count - 1) / kPiece - first_piece() + 1 : 0; }
  void run_piece(std::uint64_t piece, Workspace& workspace) const;

 private:
  // Where the symbols of each part are.
  using Symbols = std::array<const std::uint8_t*, 1 + kMaxRest>;

  // A place in the output: a column of one of the rows that are wanted.
  struct Place {
    std::uint64_t row;
    std::uint64_t column;
    std::uint64_t row_elements;
  };

  void check_rows() const;
  void check_exceptions() const;
  void run_block(std::uint64_t start, std::size_t n, Symbols parts, Place& place, Workspace& workspace) const;
  void merge_run(std::uint64_t start, std::size_t n, const Symbols& parts, std::uint8_t* out,
                 Workspace& workspace) const;
  Place place_of(std::uint64_t element) const;
  std::uint8_t* out_of(const Place& place) const;
  static void advance(Place& place, std::size_t n);
  std::size_t first_exception(std::uint64_t element) const;
  void apply_exceptions(std::uint64_t start, std::size_t n, std::uint8_t* elements) const;
  bool exceeds(std::uint64_t start, std::size_t n, const std::uint8_t* high) const;
  void scatter(std::size_t n, const std::uint8_t* elements, Place& place) const;

  std::uint64_t exception_index(std::size_t i) const { return load<std::uint64_t>(job_.exception_index.data + 8 * i); }
  std::uint16_t exception_high(std::size_t i) const { return load<std::uint16_t>(job_.exception_high.data + 2 * i); }

  const FloatJob& job_;
  FloatLayout layout_;
  FloatMerge merge_;
  unsigned out_nbytes_;  // of an element
  bool widens_;
  std::vector<std::unique_ptr<Part>> parts_;
  // Whether a part may hold bits that an element has no room for.
  bool may_exceed_high_;
  bool may_exceed_rest_;
};

PreparedJob::PreparedJob(const FloatJob& job)
    : job_(job),
      layout_(*job.format, job.mantissa_bits, job.base),
      merge_(float_merge_of(layout_)),
      out_nbytes_(job.out_format->nbytes()),
      widens_(!(*job.format == *job.out_format)) {
  if (job.start > job.n || job.count > job.n - job.start) {
    throw std::invalid_argument("the range of a job does not lie within its elements");
  }
  if (widens_ && !may_narrow(*job.out_format, *job.format)) {
    throw std::invalid_argument(std::string(job.format->name) + " does not widen to " +
                                std::string(job.out_format->name));
  }
  if (job.sources.size() != 1 + layout_.n_rest) {
    throw std::invalid_argument(std::to_string(job.sources.size()) + " sources; " + std::string(job.format->name) +
                                " with these parameters has " + std::to_string(1 + layout_.n_rest));
  }
  check_rows();
  check_exceptions();
  parts_.reserve(job.sources.size());
  for (const Source& source : job.sources) parts_.push_back(open_part(source.codec, source.stream, job.n));
  may_exceed_high_ = parts_.front()->max_nbits() > layout_.upper_nbits;
  may_exceed_rest_ = layout_.rest_nbits % 8 && parts_.back()->max_nbits() > layout_.rest_nbits % 8;
  advise_huge_pages(job.out, job.out_nbytes);
}

void PreparedJob::check_rows() const {
  const std::size_t n_out = job_.out_nbytes / out_nbytes_;
  const bool is_whole = job_.out_nbytes % out_nbytes_ == 0;
  if (!job_.has_rows) {
    if (job_.row_elements || !is_whole || n_out != job_.count) {
      throw std::invalid_argument("output has " + std::to_string(job_.out_nbytes) + " bytes; its " +
                                  std::to_string(job_.count) + " elements take " + std::to_string(out_nbytes_));
    }
    return;
  }
  const std::size_t n_rows = job_.rows.size / 4;
  // Division, for the product may overflow.
  const bool fits = job_.row_elements ? job_.count % job_.row_elements == 0 && job_.count / job_.row_elements == n_rows
                                      : job_.count == 0;
  if (job_.rows.size % 4 || !fits) {
    throw std::invalid_argument(std::to_string(job_.count) + " elements are not " + std::to_string(n_rows) +
                                " rows of " + std::to_string(job_.row_elements));
  }
  if (!job_.row_elements) return;
  const std::size_t n_out_rows = static_cast<std::size_t>(n_out / job_.row_elements);
  std::uint32_t highest = 0;
  for (std::size_t i = 0; i < n_rows; ++i) highest = std::max(highest, load<std::uint32_t>(job_.rows.data + 4 * i));
  if (!is_whole || n_out % job_.row_elements || (n_rows && highest >= n_out_rows)) {
    throw std::invalid_argument("the rows do not lie within an output of " + std::to_string(job_.out_nbytes) +
                                " bytes");
  }
}

void PreparedJob::check_exceptions() const {
  const std::size_t n = job_.exception_high.size / 2;
  if (job_.exception_high.size % 2 || job_.exception_index.size % 8 || job_.exception_index.size / 8 != n) {
    throw std::invalid_argument("exception_index and exception_high do not have the same length");
  }
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t index = exception_index(i);
    if (index >= job_.n || (i && index <= exception_index(i - 1))) {
      throw CorruptStream("encoding 'float_split': exception_index is not strictly ascending below " +
                          std::to_string(job_.n));
    }
    if (exception_high(i) >> layout_.upper_nbits) {
      throw CorruptStream("encoding 'float_split': exception_high exceeds " + std::to_string(layout_.upper_nbits) +
                          " bits");
    }
  }
}

void PreparedJob::run_piece(std::uint64_t piece, Workspace& workspace) const {
  const std::uint64_t start = std::max(job_.start, piece * kPiece);
  const std::uint64_t stop = std::min(job_.start + job_.count, (piece + 1) * kPiece);
  Symbols parts;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    if (!parts_[i]->is_cheap_by_block()) {
      parts[i] = parts_[i]->read(start, stop, workspace.parts.get() + i * kPiece, workspace.tables);
    }
  }
  Place place = place_of(start);
  for (std::uint64_t at = start; at < stop;) {
    const std::uint64_t end = std::min(stop, (at / kBlock + 1) * kBlock);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (parts_[i]->is_cheap_by_block()) {
        parts[i] = parts_[i]->read(at, end, workspace.blocks + i * kBlock, workspace.tables);
      }
    }
    run_block(at, static_cast<std::size_t>(end - at), parts, place, workspace);
    for (std::size_t i = 0; i < parts_.size(); ++i) parts[i] += end - at;
    at = end;
  }
}

// Merges a block right to where it belongs, run by run; moves `place` on.
void PreparedJob::run_block(std::uint64_t start, std::size_t n, Symbols parts, Place& place,
                            Workspace& workspace) const {
  if (job_.has_rows && job_.row_elements < kMinRowElements) {
    merge_run(start, n, parts, workspace.aside, workspace);
    scatter(n, workspace.aside, place);
    return;
  }
  while (n) {
    const std::size_t length = static_cast<std::size_t>(std::min<std::uint64_t>(n, place.row_elements - place.column));
    merge_run(start, length, parts, out_of(place), workspace);
    for (std::size_t i = 0; i < parts_.size(); ++i) parts[i] += length;
    start += length;
    n -= length;
    advance(place, length);
  }
}

// Elements that stand together in the output.
void PreparedJob::merge_run(std::uint64_t start, std::size_t n, const Symbols& parts, std::uint8_t* out,
                            Workspace& workspace) const {
  std::uint8_t* const merged = widens_ ? workspace.merged : out;
  merge_(layout_, parts[0], parts.data() + 1, n, merged);
  if (may_exceed_high_ && any_bit_above(parts[0], n, layout_.upper_nbits) && exceeds(start, n, parts[0])) {
    throw CorruptStream("encoding 'float_split': upper bits exceed " + std::to_string(layout_.upper_nbits) + " bits");
  }
  if (may_exceed_rest_ && any_bit_above(parts[layout_.n_rest], n, layout_.rest_nbits % 8)) {
    throw CorruptStream("encoding 'float_split': the rest exceeds " + std::to_string(layout_.rest_nbits) + " bits");
  }
  if (job_.exception_index.size) apply_exceptions(start, n, merged);
  if (widens_) widen(merged, n, *job_.format, *job_.out_format, out);
}

// Where an element goes. Without rows all elements are one.
PreparedJob::Place PreparedJob::place_of(std::uint64_t element) const {
  const std::uint64_t at = element - job_.start;
  if (!job_.has_rows) return {0, at, job_.count};
  return {at / job_.row_elements, at % job_.row_elements, job_.row_elements};
}

std::uint8_t* PreparedJob::out_of(const Place& place) const {
  const std::uint64_t row = job_.has_rows ? load<std::uint32_t>(job_.rows.data + 4 * place.row) : 0;
  return job_.out + (row * place.row_elements + place.column) * out_nbytes_;
}

// To at most the start of the next row.
void PreparedJob::advance(Place& place, std::size_t n) {
  place.column += n;
  if (place.column == place.row_elements) {
    ++place.row;
    place.column = 0;
  }
}

// The place in the lists of the first exception from an element on.
std::size_t PreparedJob::first_exception(std::uint64_t element) const {
  std::size_t low = 0;
  std::size_t high = job_.exception_index.size / 8;
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    if (exception_index(middle) < element) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

void PreparedJob::apply_exceptions(std::uint64_t start, std::size_t n, std::uint8_t* elements) const {
  const std::uint64_t upper_mask = ((std::uint64_t{1} << layout_.upper_nbits) - 1) << layout_.lower_nbits;
  const std::size_t n_exceptions = job_.exception_index.size / 8;
  for (std::size_t i = first_exception(start); i < n_exceptions && exception_index(i) < start + n; ++i) {
    std::uint8_t* const at = elements + (exception_index(i) - start) * layout_.nbytes;
    std::uint64_t element = 0;
    std::memcpy(&element, at, layout_.nbytes);
    element = (element & ~upper_mask) | std::uint64_t{exception_high(i)} << layout_.lower_nbits;
    std::memcpy(at, &element, layout_.nbytes);
  }
}

// Whether upper bits of an element that is no exception have more bits than there are.
bool PreparedJob::exceeds(std::uint64_t start, std::size_t n, const std::uint8_t* high) const {
  const std::size_t n_exceptions = job_.exception_index.size / 8;
  std::size_t exception = first_exception(start);
  for (std::size_t i = 0; i < n; ++i) {
    if (exception < n_exceptions && exception_index(exception) == start + i) {
      ++exception;
    } else if (high[i] >> layout_.upper_nbits) {
      return true;
    }
  }
  return false;
}

// Copies elements to their rows of the output; moves `place` on.
void PreparedJob::scatter(std::size_t n, const std::uint8_t* elements, Place& place) const {
  while (n) {
    const std::size_t length = static_cast<std::size_t>(std::min<std::uint64_t>(n, place.row_elements - place.column));
    std::memcpy(out_of(place), elements, length * out_nbytes_);
    elements += length * out_nbytes_;
    n -= length;
    advance(place, length);
  }
}

}  // namespace

void decode_floats(const std::vector<FloatJob>& jobs, unsigned n_threads) {
  std::vector<PreparedJob> prepared;
  prepared.reserve(jobs.size());
  struct Item {
    const PreparedJob* job;
    std::uint64_t piece;
  };
  std::vector<Item> items;
  for (const FloatJob& job : jobs) {
    const PreparedJob& ready = prepared.emplace_back(job);
    for (std::uint64_t i = 0; i < ready.n_pieces(); ++i) items.push_back({&ready, ready.first_piece() + i});
  }
  std::vector<std::unique_ptr<Workspace>> workspaces(n_threads);
  parallel_for(items.size(), n_threads, [&](unsigned worker, std::size_t i) {
    std::unique_ptr<Workspace>& workspace = workspaces[worker];
    if (!workspace) workspace = std::make_unique<Workspace>();
    items[i].job->run_piece(items[i].piece, *workspace);
  });
}

}  // namespace cmpk

// Jobs of every kind: outputs, exceptions, and the pieces of all jobs over threads.
#include "jobs.hpp"

#include "memory.hpp"
#include "parallel.hpp"

namespace cmpk {

JobOutput::JobOutput(const JobRange& range, unsigned element_nbytes) : range_(range), element_nbytes_(element_nbytes) {
  check_rows();
  advise_huge_pages(range.out, range.out_nbytes);
}

void JobOutput::check_rows() const {
  const std::size_t n_out = range_.out_nbytes / element_nbytes_;
  const bool is_whole = range_.out_nbytes % element_nbytes_ == 0;
  if (!range_.has_rows) {
    if (range_.row_elements || !is_whole || n_out != range_.count) {
      throw std::invalid_argument("output has " + std::to_string(range_.out_nbytes) + " bytes; its " +
                                  std::to_string(range_.count) + " elements take " + std::to_string(element_nbytes_));
    }
    return;
  }
  const std::size_t n_rows = range_.rows.size / 4;
  // Division, for the product may overflow.
  const bool fits = range_.row_elements
                        ? range_.count % range_.row_elements == 0 && range_.count / range_.row_elements == n_rows
                        : range_.count == 0;
  if (range_.rows.size % 4 || !fits) {
    throw std::invalid_argument(std::to_string(range_.count) + " elements are not " + std::to_string(n_rows) +
                                " rows of " + std::to_string(range_.row_elements));
  }
  if (!range_.row_elements) return;
  const std::size_t n_out_rows = static_cast<std::size_t>(n_out / range_.row_elements);
  std::uint32_t highest = 0;
  for (std::size_t i = 0; i < n_rows; ++i) highest = std::max(highest, load<std::uint32_t>(range_.rows.data + 4 * i));
  if (!is_whole || n_out % range_.row_elements || (n_rows && highest >= n_out_rows)) {
    throw std::invalid_argument("the rows do not lie within an output of " + std::to_string(range_.out_nbytes) +
                                " bytes");
  }
}

JobOutput::Place JobOutput::place_of(std::uint64_t element) const {
  const std::uint64_t at = element - range_.start;
  if (!range_.has_rows) return {0, at, range_.count};
  return {at / range_.row_elements, at % range_.row_elements, range_.row_elements};
}

std::uint8_t* JobOutput::address(const Place& place) const {
  const std::uint64_t row = range_.has_rows ? load<std::uint32_t>(range_.rows.data + 4 * place.row) : 0;
  return range_.out + (row * place.row_elements + place.column) * element_nbytes_;
}

// To at most the start of the next row.
void JobOutput::advance(Place& place, std::size_t n) {
  place.column += n;
  if (place.column == place.row_elements) {
    ++place.row;
    place.column = 0;
  }
}

// Copies elements to their rows; moves `place` on.
void JobOutput::scatter(std::size_t n, const std::uint8_t* elements, Place& place) const {
  while (n) {
    const std::size_t length = static_cast<std::size_t>(std::min<std::uint64_t>(n, place.row_elements - place.column));
    std::memcpy(address(place), elements, length * element_nbytes_);
    elements += length * element_nbytes_;
    n -= length;
    advance(place, length);
  }
}

Exceptions::Exceptions(Bytes indices, Bytes values, unsigned value_nbytes, std::uint64_t n, const char* encoding)
    : indices_(indices), values_(values) {
  if (values.size % value_nbytes || indices.size % 8 || indices.size / 8 != values.size / value_nbytes) {
    throw std::invalid_argument("the lists of exceptions do not have the same length");
  }
  for (std::size_t i = 0; i < size(); ++i) {
    if (index(i) < n && (!i || index(i) > index(i - 1))) continue;
    throw CorruptStream("encoding '" + std::string(encoding) + "': exception_index is not strictly ascending below " +
                        std::to_string(n));
  }
}

std::size_t Exceptions::first_from(std::uint64_t element) const {
  std::size_t low = 0;
  std::size_t high = size();
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    if (index(middle) < element) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

PreparedJob::PreparedJob(const JobRange& range) : range_(range) {
  if (range.start > range.n || range.count > range.n - range.start) {
    throw std::invalid_argument("the range of a job does not lie within its elements");
  }
}

void run_jobs(const std::vector<std::unique_ptr<PreparedJob>>& jobs, unsigned n_threads) {
  struct Item {
    const PreparedJob* job;
    std::uint64_t piece;
  };
  std::vector<Item> items;
  for (const std::unique_ptr<PreparedJob>& job : jobs) {
    for (std::uint64_t i = 0; i < job->n_pieces(); ++i) items.push_back({job.get(), job->first_piece() + i});
  }
  std::vector<std::unique_ptr<Workspace>> workspaces(n_threads);
  parallel_for(items.size(), n_threads, [&](unsigned worker, std::size_t i) {
    std::unique_ptr<Workspace>& workspace = workspaces[worker];
    if (!workspace) workspace = std::make_unique<Workspace>();
    items[i].job->run_piece(items[i].piece, *workspace);
  });
}

}  // namespace cmpk

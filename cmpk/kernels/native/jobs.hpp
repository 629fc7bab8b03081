// Jobs of every kind: what they have in common, where their elements go, and how they are run.
#pragma once

#include <algorithm>
#include <memory>
#include <string_view>
#include <vector>

#include "floats.hpp"
#include "part.hpp"

namespace cmpk {

// Elements decoded at a time, at a multiple of this number. More than sync points need to pay, and
// few enough for the second-level cache.
constexpr std::uint64_t kPiece = std::uint64_t{1} << 17;
// Elements made of them at a time: with all that this takes, they fit the first-level cache.
constexpr std::size_t kBlock = 2048;

struct Source {
  std::string_view codec;
  Bytes stream;
};

// A range of a tensor of n elements, and where it goes; nothing is checked yet but the signs.
struct JobRange {
  std::uint8_t* out;
  std::size_t out_nbytes;
  std::uint64_t n;
  std::uint64_t start;
  std::uint64_t count;
  Bytes rows;  // uint32, not necessarily aligned
  bool has_rows;
  std::uint64_t row_elements;
};

// What a thread needs for itself.
struct Workspace {
  PartTables tables;
  std::unique_ptr<std::uint8_t[]> parts{new std::uint8_t[(1 + kMaxRest) * kPiece]};
  std::uint8_t blocks[(1 + kMaxRest) * kBlock];
  std::uint8_t merged[kBlock * 8];
  std::uint8_t aside[kBlock * 8];
};

// The output of a job: its elements one after another, or in rows.
class JobOutput {
 public:
  // Throws std::invalid_argument if range, rows and size contradict each other.
  JobOutput(const JobRange& range, unsigned element_nbytes);

  // A column of one of the rows that are wanted. Without rows all elements are one.
  struct Place {
    std::uint64_t row;
    std::uint64_t column;
    std::uint64_t row_elements;
  };
  Place place_of(std::uint64_t element) const;

  // Has n elements of a block written where they belong, from `place` on, which it moves: calls
  // `write(offset, length, out)` for each run of them that stands together. `aside` has room for n.
  template <class Write>
  void write_block(std::size_t n, Place& place, std::uint8_t* aside, const Write& write) const {
    if (range_.has_rows && range_.row_elements < kMinRowElements) {
      write(std::size_t{0}, n, aside);
      scatter(n, aside, place);
      return;
    }
    for (std::size_t offset = 0; offset < n;) {
      const std::size_t length =
          static_cast<std::size_t>(std::min<std::uint64_t>(n - offset, place.row_elements - place.column));
      write(offset, length, address(place));
      offset += length;
      advance(place, length);
    }
  }

 private:
  // Rows of fewer elements are written aside and copied: that many make up for a call.
  static constexpr std::uint64_t kMinRowElements = 64;

  void check_rows() const;
  std::uint8_t* address(const Place& place) const;
  static void advance(Place& place, std::size_t n);
  void scatter(std::size_t n, const std::uint8_t* elements, Place& place) const;

  const JobRange& range_;
  unsigned element_nbytes_;
};

// Elements of which something is given apart; the lists need not be aligned.
class Exceptions {
 public:
  // Throws CorruptStream in the name of an encoding unless the indices ascend strictly below n.
  Exceptions(Bytes indices, Bytes values, unsigned value_nbytes, std::uint64_t n, const char* encoding);

  std::size_t size() const { return indices_.size / 8; }
  std::uint64_t index(std::size_t i) const { return load<std::uint64_t>(indices_.data + 8 * i); }
  template <class T>
  T value(std::size_t i) const {
    return load<T>(values_.data + sizeof(T) * i);
  }
  // The place in the lists of the first one from an element on.
  std::size_t first_from(std::uint64_t element) const;

 private:
  Bytes indices_;
  Bytes values_;
};

// A job whose numbers are known to fit together. The job must outlive it.
class PreparedJob {
 public:
  // Throws std::invalid_argument if the range does not lie within the elements.
  explicit PreparedJob(const JobRange& range);
  virtual ~PreparedJob() = default;
  PreparedJob(const PreparedJob&) = delete;
  PreparedJob& operator=(const PreparedJob&) = delete;

  std::uint64_t first_piece() const { return range_.start / kPiece; }
  std::uint64_t n_pieces() const {
    return range_.count ? (range_.start + range_.count - 1) / kPiece - first_piece() + 1 : 0;
  }
  // May be called from several threads at once, each with its own workspace. Throws CorruptStream.
  void run_piece(std::uint64_t piece, Workspace& workspace) const {
    const std::uint64_t start = std::max(range_.start, piece * kPiece);
    run(start, std::min(range_.start + range_.count, (piece + 1) * kPiece), workspace);
  }

 private:
  // Elements start .. stop - 1, all of one piece.
  virtual void run(std::uint64_t start, std::uint64_t stop, Workspace& workspace) const = 0;

  const JobRange& range_;
};

// Runs the jobs, piece by piece, spread over threads. Throws CorruptStream; the outputs are then in
// an undefined state.
void run_jobs(const std::vector<std::unique_ptr<PreparedJob>>& jobs, unsigned n_threads);

}  // namespace cmpk

// What all jobs promise, by the letter of cmpk/kernels/interface.py, and jobs that are run.
#pragma once

#include <optional>

#include "jobs.hpp"
#include "streams.hpp"

namespace fuzz {

// Numbers of elements that could be decoded are kept below this; others may be anything.
constexpr std::uint64_t kMaxElements = std::uint64_t{1} << 20;

// All symbols of a part; nothing if it breaks a rule.
std::optional<Stream> slow_part(const cmpk::Source& source, std::uint64_t n);

// Where each element of a job goes, counted in elements; nothing if they do not fit the output.
std::optional<std::vector<std::uint64_t>> slow_places(const cmpk::JobRange& job, std::size_t element_nbytes);

// What the pages make of a job: an output, or none. Where a part is damaged they may leave it open: a
// decoder need not look at what it does not use.
struct Outcome {
  enum { kRight, kWrong, kEither } kind;
  Stream output{};
};

// Puts elements where they belong, in an output that held 0xa5; kEither where two go to one place, for
// either may come last.
Outcome slow_output(const cmpk::JobRange& job, std::size_t element_nbytes, const std::vector<std::uint64_t>& places,
                    const std::vector<std::uint64_t>& elements);

}  // namespace fuzz

// What a fuzz target is given, and what it offers in turn.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "bytes.hpp"
#include "random.hpp"

namespace fuzz {

using Stream = std::vector<std::uint8_t>;

// One input: numbers and streams. Any bytes are a case.
struct Case {
  std::vector<std::uint64_t> numbers;
  std::vector<Stream> streams;
};

Case parse(const std::uint8_t* data, std::size_t size);
std::vector<std::uint8_t> to_bytes(const Case& input);

// What stands in a part of a stream, so that it is changed in the way that matters there.
enum class Kind { kBytes, kNibbles, kWords16, kWords32, kWords64 };
struct Span {
  std::size_t begin;
  std::size_t end;
  Kind kind;
};
using Spans = std::vector<Span>;

// A target, one a program.
struct Target {
  std::size_t n_numbers;
  std::size_t n_streams;  // with which a case is filled up
  // A case that breaks no rule.
  Case (*fresh)(Random&);
  // The parts of a stream of a case, as far as it has them.
  Spans (*spans)(const Case&, std::size_t stream);
  // Brings sizes in line with what the heads say, so that a change gets past the arithmetic.
  void (*repair)(Case&);
  void (*run)(const Case&);
};
extern const Target target;

// Changes a case in one place or a few.
void mutate(Case& input, Random& random);

// Ends the process with a message unless `condition` holds.
inline void require(bool condition, const char* message) {
  if (condition) return;
  std::fprintf(stderr, "fuzz: broken promise: %s\n", message);
  std::abort();
}

// Memory of exactly this size on the heap, so that AddressSanitizer sees an access one byte beyond.
class Exact {
 public:
  explicit Exact(std::size_t size, std::uint8_t fill = 0xa5)
      : size_(size), memory_(size ? new std::uint8_t[size] : nullptr) {
    if (size) std::memset(memory_.get(), fill, size);
  }
  Exact(const std::uint8_t* data, std::size_t size) : Exact(size) {
    if (size) std::memcpy(memory_.get(), data, size);
  }
  explicit Exact(const Stream& stream) : Exact(stream.data(), stream.size()) {}

  std::uint8_t* data() const { return memory_.get(); }
  std::size_t size() const { return size_; }
  cmpk::Bytes bytes() const { return {memory_.get(), size_}; }
  bool operator==(const Exact& other) const {
    return size_ == other.size_ && (!size_ || !std::memcmp(data(), other.data(), size_));
  }

 private:
  std::size_t size_;
  std::unique_ptr<std::uint8_t[]> memory_;
};

}  // namespace fuzz

// Memory that outputs of middling size share.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cmpk {

// How long an output is kept, as a rule: what goes together shares memory.
enum class Lifetime {
  kBrief,  // until the next operation has read it
  kKept,   // until the tensor or the file is complete
};

// Outputs of this size and more, up to that of a slab, are worth a slab: the system clears and maps 2 MiB
// at a time there (measured: a page of 4 KiB takes 2 microseconds, which is most of what packing costs),
// and what was let go is used again at once, while it still is in the cache.
constexpr std::size_t kMinSlabOutput = std::size_t{1} << 15;
constexpr std::size_t kSlabNbytes = std::size_t{1} << 22;

class Slab;

// A piece of a slab. Each thread has a slab of its own for each lifetime, which it keeps; others live as
// long as a piece of them.
class SlabPiece {
 public:
  // At most kSlabNbytes.
  SlabPiece(std::size_t nbytes, Lifetime lifetime);
  SlabPiece(const SlabPiece&) = delete;
  SlabPiece& operator=(const SlabPiece&) = delete;
  ~SlabPiece();  // by any thread

  std::uint8_t* data() const { return data_; }

 private:
  Slab* slab_;
  std::uint8_t* data_;
};

}  // namespace cmpk

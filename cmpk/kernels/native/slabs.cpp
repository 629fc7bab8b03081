// Memory that outputs of middling size share.
#include "slabs.hpp"

#include <array>
#include <atomic>
#include <new>

#include "memory.hpp"

namespace cmpk {

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::align_val_t kSlabAlignment{std::size_t{1} << 21};

}  // namespace

class Slab {
 public:
  Slab() : memory_(static_cast<std::uint8_t*>(::operator new(kSlabNbytes, kSlabAlignment))) {
    advise_huge_pages(memory_, kSlabNbytes);
  }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  void let_go() {
    if (n_users_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  // The next bytes, with a user more; null where there are too few. By the thread that owns it.
  std::uint8_t* take(std::size_t nbytes) {
    // Only the owner adds users: where it is alone it stays so.
    if (n_users_.load(std::memory_order_acquire) == 1) used_ = 0;
    if (nbytes > kSlabNbytes - used_) return nullptr;
    std::uint8_t* const piece = memory_ + used_;
    used_ += (nbytes + kAlignment - 1) & ~(kAlignment - 1);
    n_users_.fetch_add(1, std::memory_order_relaxed);
    return piece;
  }

 private:
  ~Slab() { ::operator delete(memory_, kSlabAlignment); }

  std::atomic<std::size_t> n_users_{1};
  std::uint8_t* memory_;
  std::size_t used_ = 0;
};

namespace {

// The slab that a thread takes pieces of.
struct Current {
  ~Current() {
    if (slab) slab->let_go();
  }
  Slab* slab = nullptr;
};

}  // namespace

SlabPiece::SlabPiece(std::size_t nbytes, Lifetime lifetime) {
  thread_local std::array<Current, 2> currents;
  Slab*& current = currents[static_cast<std::size_t>(lifetime)].slab;
  data_ = current ? current->take(nbytes) : nullptr;
  if (!data_) {
    Slab* const fresh = new Slab;
    if (current) current->let_go();
    current = fresh;
    data_ = current->take(nbytes);
  }
  slab_ = current;
}

SlabPiece::~SlabPiece() { slab_->let_go(); }

}  // namespace cmpk

// Python objects as bytes, and bytes as NumPy arrays.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <deque>
#include <memory>
#include <variant>
#include <vector>

#include "code_jobs.hpp"
#include "float_jobs.hpp"
#include "lookup_jobs.hpp"
#include "memory.hpp"
#include "slabs.hpp"

namespace cmpk {

template <class T>
using Array = nanobind::ndarray<nanobind::numpy, T>;

// A contiguous buffer of any object, held while this lives. Made and destroyed with the GIL.
class Buffer {
 public:
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { PyBuffer_Release(&view_); }

 protected:
  // Throws the Python exception that the object raises; std::invalid_argument where it can't be
  // written.
  Buffer(nanobind::handle object, int flags);

  Py_buffer view_;
};

class InputBuffer : public Buffer {
 public:
  explicit InputBuffer(nanobind::handle object) : Buffer(object, PyBUF_ND | PyBUF_FORMAT) {}

  Bytes bytes() const { return {static_cast<const std::uint8_t*>(view_.buf), static_cast<std::size_t>(view_.len)}; }
  bool holds_uint64() const;
};

class OutputBuffer : public Buffer {
 public:
  explicit OutputBuffer(nanobind::handle object) : Buffer(object, PyBUF_WRITABLE) {}

  std::uint8_t* data() const { return static_cast<std::uint8_t*>(view_.buf); }
  std::size_t size() const { return static_cast<std::size_t>(view_.len); }
};

// Memory that becomes a NumPy array. May be made without the GIL.
template <class T>
class NewArray {
 public:
  explicit NewArray(std::size_t size) : size_(size), memory_(new T[size ? size : 1]), data_(memory_.get()) {
    advise_huge_pages(data_, size * sizeof(T));
  }

  // Out of a slab, where that suits the size.
  NewArray(std::size_t size, Lifetime lifetime) : size_(size) {
    if (size * sizeof(T) >= kMinSlabOutput && size <= kSlabNbytes / sizeof(T)) {
      piece_ = std::make_unique<SlabPiece>(size * sizeof(T), lifetime);
      data_ = reinterpret_cast<T*>(piece_->data());
    } else {
      memory_.reset(new T[size ? size : 1]);
      data_ = memory_.get();
      advise_huge_pages(data_, size * sizeof(T));
    }
  }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }

  Array<T> release(std::initializer_list<std::size_t> shape) {
    if (piece_) {
      const nanobind::capsule owner(piece_.get(), [](void* piece) noexcept { delete static_cast<SlabPiece*>(piece); });
      piece_.release();
      return Array<T>(data_, shape, owner);
    }
    const nanobind::capsule owner(memory_.get(), [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
    memory_.release();
    return Array<T>(data_, shape, owner);
  }

 private:
  std::size_t size_;
  std::unique_ptr<SlabPiece> piece_;
  std::unique_ptr<T[]> memory_;
  T* data_;
};

// A Python sequence of the jobs of cmpk.kernels.interface, with the buffers of all of them held.
class Jobs {
 public:
  explicit Jobs(nanobind::handle sequence);

  // In their order; they refer to this. Throws what `prepare` throws.
  std::vector<std::unique_ptr<PreparedJob>> prepared() const;

 private:
  FloatJob float_job(PyObject* object);
  CodeJob code_job(PyObject* object);
  LookupJob lookup_job(PyObject* object);
  void set_range(JobRange& range, PyObject* object);
  static void check_pair(PyObject* index, PyObject* value);
  Source source(PyObject* object);
  Bytes input(PyObject* object);

  std::deque<InputBuffer> inputs_;
  std::deque<OutputBuffer> outputs_;
  std::deque<std::variant<FloatJob, CodeJob, LookupJob>> jobs_;
};

}  // namespace cmpk

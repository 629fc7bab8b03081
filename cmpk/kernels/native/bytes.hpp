// Bytes in memory, and the error that damaged ones raise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the format is little-endian and these kernels read it as the processor does"
#endif

namespace cmpk {

struct Bytes {
  const std::uint8_t* data;
  std::size_t size;
};

// Becomes cmpk.errors.CorruptStreamError; std::invalid_argument becomes ValueError.
class CorruptStream : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// memcpy, for streams and tensors may start at any address; it compiles to one move.
template <class T>
inline T load(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
inline void store(std::uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// The eight bytes at `offset`; those beyond the end read as zero.
inline std::uint64_t load_padded(Bytes bytes, std::size_t offset) {
  if (bytes.size >= 8 && offset <= bytes.size - 8) return load<std::uint64_t>(bytes.data + offset);
  std::uint64_t value = 0;
  if (offset < bytes.size) std::memcpy(&value, bytes.data + offset, bytes.size - offset);
  return value;
}

}  // namespace cmpk

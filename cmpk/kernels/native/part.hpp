// One part of a tensor, as a codec stores it.
#pragma once

#include <memory>
#include <string_view>

#include "huffman.hpp"

namespace cmpk {

// The tables of the part that was read last: with one of these a thread, a table is built once for
// all runs of a part that the thread reads one after another.
struct PartTables {
  const void* owner = nullptr;
  DecodeTable huffman;
};

// n symbols of which any run can be read. To let `decode_floats` decode one more codec, implement
// this and name it in `open_part`.
class Part {
 public:
  virtual ~Part() = default;

  // No symbol has a bit beyond that many, whatever the stream says.
  virtual unsigned max_nbits() const { return 8; }

  // Whether short runs are read as fast as long ones, so that they are best read when they are needed.
  virtual bool is_cheap_by_block() const { return false; }

  // Symbols start .. stop - 1, where they lie or decoded to `scratch`, which has room for them.
  // May be called from several threads at once, each with its own scratch and tables. Throws
  // CorruptStream.
  virtual const std::uint8_t* read(std::uint64_t start, std::uint64_t stop, std::uint8_t* scratch,
                                   PartTables& tables) const = 0;
};

// Checks what the codec can check without decoding; throws CorruptStream, or std::invalid_argument
// for a codec that is not decoded here. The bytes must outlive the part.
std::unique_ptr<Part> open_part(std::string_view codec, Bytes stream, std::uint64_t n);

}  // namespace cmpk

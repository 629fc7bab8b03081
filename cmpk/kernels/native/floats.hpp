// Floating-point types, and encodings float_split and narrow on runs of elements
// (spec/encodings/float_split.md, spec/encodings/narrow.md).
#pragma once

#include <string_view>
#include <vector>

#include "bytes.hpp"

namespace cmpk {

struct FloatFormat {
  std::string_view name;
  unsigned exponent_nbits;
  unsigned mantissa_nbits;

  unsigned nbytes() const { return (1 + exponent_nbits + mantissa_nbits) / 8; }
  bool operator==(const FloatFormat& other) const { return name == other.name; }
};

// Throws std::invalid_argument if float_split does not take the type.
const FloatFormat& float_format(std::string_view name);

// Whether encoding narrow may store `wide` as `narrower`.
bool may_narrow(const FloatFormat& wide, const FloatFormat& narrower);

// How float_split divides the bits of an element; H, L, R, t and b of the specification.
struct FloatLayout {
  // Throws std::invalid_argument if the specification does not allow the parameters.
  FloatLayout(const FloatFormat& format, std::int64_t mantissa_bits, std::int64_t base);

  unsigned nbytes;
  unsigned upper_nbits;
  unsigned lower_nbits;
  unsigned rest_nbits;
  unsigned n_rest;
  unsigned base;
};

constexpr unsigned kMaxRest = 7;

struct FloatExceptions {
  std::vector<std::uint64_t> index;
  std::vector<std::uint16_t> high;
};

// Some rows of a tensor, taken one after another.
struct PickedRows {
  Bytes rows;  // 32-bit numbers; the tensor has these rows
  std::size_t row_elements;

  std::size_t n_rows() const { return rows.size / sizeof(std::uint32_t); }
  std::size_t operator[](std::size_t i) const { return load<std::uint32_t>(rows.data + i * sizeof(std::uint32_t)); }
};

// Splits n elements: all, or those of the rows that are picked. `high` gets n bytes, `rest` n_rest
// planes of n bytes, one after another.
FloatExceptions float_split(Bytes data, const FloatLayout& layout, std::uint8_t* high, std::uint8_t* rest,
                            const PickedRows* picked = nullptr);

// Counts the upper bits of all elements; `counts` gets 2^H of them.
void upper_bits_histogram(Bytes data, const FloatLayout& layout, std::uint64_t* counts);

// Counts the exponents among the first `limit` elements of each of the rows that are picked, at most all
// of a row; `counts` gets 2^E for each.
void exponent_histograms(Bytes data, const FloatFormat& format, const PickedRows& picked, std::size_t limit,
                         std::uint32_t* counts);

// Puts n elements together; exceptions are not looked at. `out` gets n * nbytes bytes, whatever the
// parts are; it overlaps none of them.
using FloatMerge = void (*)(const FloatLayout& layout, const std::uint8_t* high, const std::uint8_t* const* rest,
                            std::size_t n, std::uint8_t* out);

// The loop for a layout, found once for all rows of a tensor.
FloatMerge float_merge_of(const FloatLayout& layout);

// Whether each row of `row_elements` elements narrows exactly.
void narrows_to(Bytes data, const FloatFormat& wide, const FloatFormat& narrower, std::size_t row_elements,
                bool* exact);

// `out` gets as many elements. Throws std::invalid_argument if one of them does not narrow exactly.
void narrow(Bytes data, const FloatFormat& wide, const FloatFormat& narrower, std::uint8_t* out);

// `out` gets n elements of the wider type; it does not overlap `in`.
void widen(const std::uint8_t* in, std::size_t n, const FloatFormat& narrower, const FloatFormat& wide,
           std::uint8_t* out);

}  // namespace cmpk

// Encodings affine and cast on runs of elements (spec/encodings/affine.md, spec/encodings/cast.md).
#pragma once

#include "floats.hpp"

namespace cmpk {

// element = to_type(float(code + first) * scale): `first` is the offset less the zero point, and the
// sums are at most 2^24. Reads n codes, writes n elements. The floating-point environment is the
// default one (FloatEnvironment).
using Dequantize = void (*)(const std::uint8_t* codes, std::size_t n, std::int32_t first, float scale,
                            std::uint8_t* out);
// The same with a scale and a first code for each element.
using DequantizeEach = void (*)(const std::uint8_t* codes, std::size_t n, const std::int32_t* first,
                                const float* scale, std::uint8_t* out);
// element = to_type(numbers[code] * scale), by a table of 256 numbers, NaNs and infinities among them.
using LookUp = void (*)(const std::uint8_t* codes, std::size_t n, const float* numbers, float scale,
                        std::uint8_t* out);
using LookUpEach = void (*)(const std::uint8_t* codes, std::size_t n, const float* numbers, const float* scale,
                            std::uint8_t* out);
// One element of a code that is not in the bytes.
using DequantizeOne = void (*)(std::int32_t distance, float scale, std::uint8_t* out);

struct Dequantizer {
  Dequantize all;
  DequantizeEach each;
  DequantizeOne one;
  LookUpEach look_up_each;
};

Dequantizer dequantizer_of(const FloatFormat& format);

// What is fastest for a table: if it is that of F8_E4M3 or F8_E5M2, arithmetic gives the same numbers.
LookUp look_up_of(const FloatFormat& format, const float* numbers);

}  // namespace cmpk

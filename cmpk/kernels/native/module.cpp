// Python module cmpk.kernels._native: the operations of cmpk.kernels.interface.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "bitpack.hpp"
#include "codebook.hpp"
#include "encode.hpp"
#include "float_jobs.hpp"
#include "memory.hpp"
#include "module_choices.hpp"
#include "parallel.hpp"
#include "product.hpp"
#include "python_buffers.hpp"
#include "rans.hpp"
#include "row_costs.hpp"
#include "sparse.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace cmpk {

namespace {

// A run of symbols or elements, given as Python integers.
void check_range(std::int64_t n, std::int64_t start, std::size_t count) {
  if (n < 0 || start < 0 || start > n || count > static_cast<std::uint64_t>(n - start)) {
    throw std::invalid_argument("range " + std::to_string(start) + " .. + " + std::to_string(count) +
                                " does not lie within " + std::to_string(n) + " symbols");
  }
}

unsigned thread_count(int threads) { return static_cast<unsigned>(std::clamp(threads, 1, 256)); }

Array<std::uint64_t> py_byte_histogram(nb::handle data) {
  const InputBuffer input(data);
  NewArray<std::uint64_t> counts(256);
  {
    nb::gil_scoped_release release;
    const ByteCounts found = byte_histogram(input.bytes());
    std::copy(found.begin(), found.end(), counts.data());
  }
  return counts.release({256});
}

Array<std::uint8_t> py_code_lengths(nb::handle counts, int max_length) {
  const InputBuffer input(counts);
  if (input.bytes().size != sizeof(ByteCounts) || !input.holds_uint64()) {
    throw std::invalid_argument("counts must be uint64 [256]");
  }
  ByteCounts table;
  std::memcpy(table.data(), input.bytes().data, sizeof table);
  const CodeLengths lengths = code_lengths(table, max_length < 0 ? 0 : static_cast<unsigned>(max_length));
  NewArray<std::uint8_t> result(lengths.size());
  std::copy(lengths.begin(), lengths.end(), result.data());
  return result.release({256});
}

Array<std::uint8_t> py_huffman_encode(nb::handle data, nb::handle lengths, int chunk_log2, int threads) {
  const InputBuffer input(data);
  const InputBuffer length_input(lengths);
  CodeLengths table;
  if (length_input.bytes().size != table.size()) throw std::invalid_argument("lengths must have 256 entries");
  std::memcpy(table.data(), length_input.bytes().data, table.size());
  std::unique_ptr<NewArray<std::uint8_t>> stream;
  {
    nb::gil_scoped_release release;
    const HuffmanEncoder encoder(input.bytes(), table, chunk_log2 < 0 ? 0 : static_cast<unsigned>(chunk_log2),
                                 thread_count(threads));
    stream = std::make_unique<NewArray<std::uint8_t>>(encoder.stream_nbytes(), Lifetime::kKept);
    encoder.write(stream->data(), thread_count(threads));
  }
  return stream->release({stream->size()});
}

void py_huffman_decode(nb::handle stream, std::int64_t n, std::int64_t start, nb::handle out, int threads) {
  const InputBuffer input(stream);
  const OutputBuffer output(out);
  check_range(n, start, output.size());
  nb::gil_scoped_release release;
  const HuffmanStream parsed(input.bytes(), static_cast<std::uint64_t>(n));
  const auto table = std::make_unique<DecodeTable>();
  if (!parsed.is_one_symbol()) table->build(parsed.lengths());
  advise_huge_pages(output.data(), output.size());
  constexpr std::uint64_t kPiece = std::uint64_t{1} << 18;
  const std::uint64_t first = static_cast<std::uint64_t>(start);
  const std::uint64_t stop = first + output.size();
  const std::uint64_t first_piece = first / kPiece;
  const std::uint64_t n_pieces = (stop + kPiece - 1) / kPiece - first_piece;
  parallel_for(static_cast<std::size_t>(n_pieces), thread_count(threads), [&](unsigned, std::size_t i) {
    const std::uint64_t from = std::max(first, (first_piece + i) * kPiece);
    const std::uint64_t to = std::min(stop, (first_piece + i + 1) * kPiece);
    parsed.decode(*table, from, to, output.data() + (from - first));
  });
}

void py_huffman_check(nb::handle stream, std::int64_t n) {
  const InputBuffer input(stream);
  nb::gil_scoped_release release;
  const HuffmanStream parsed(input.bytes(), n < 0 ? 0 : static_cast<std::uint64_t>(n));
  const auto table = std::make_unique<DecodeTable>();
  if (!parsed.is_one_symbol()) table->build(parsed.lengths());
  parsed.check(*table);
}

Array<std::uint8_t> py_rans_encode(nb::handle data, nb::handle frequencies, int chunk_log2, int threads) {
  const InputBuffer input(data);
  const InputBuffer frequency_input(frequencies);
  Frequencies table;
  if (frequency_input.bytes().size != sizeof table) throw std::invalid_argument("frequencies must be uint16 [256]");
  std::memcpy(table.data(), frequency_input.bytes().data, sizeof table);
  std::unique_ptr<NewArray<std::uint8_t>> stream;
  {
    nb::gil_scoped_release release;
    const RansEncoder encoder(input.bytes(), table, chunk_log2 < 0 ? 0 : static_cast<unsigned>(chunk_log2),
                              thread_count(threads));
    stream = std::make_unique<NewArray<std::uint8_t>>(encoder.stream_nbytes(), Lifetime::kKept);
    encoder.write(stream->data());
  }
  return stream->release({stream->size()});
}

void py_rans_decode(nb::handle stream, std::int64_t n, std::int64_t start, nb::handle out, int threads) {
  const InputBuffer input(stream);
  const OutputBuffer output(out);
  check_range(n, start, output.size());
  nb::gil_scoped_release release;
  const RansStream parsed(input.bytes(), static_cast<std::uint64_t>(n));
  if (output.size() == 0) return;
  advise_huge_pages(output.data(), output.size());
  const std::uint64_t first = static_cast<std::uint64_t>(start);
  const std::uint64_t stop = first + output.size();
  const std::uint64_t first_chunk = first >> parsed.chunk_log2();
  const std::uint64_t n_chunks = ((stop - 1) >> parsed.chunk_log2()) - first_chunk + 1;
  parallel_for(static_cast<std::size_t>(n_chunks), thread_count(threads), [&](unsigned, std::size_t i) {
    const std::uint64_t from = std::max(first, (first_chunk + i) << parsed.chunk_log2());
    const std::uint64_t to = std::min(stop, (first_chunk + i + 1) << parsed.chunk_log2());
    parsed.decode(from, to, output.data() + (from - first));
  });
}

Array<std::uint8_t> py_bitpack_encode(nb::handle data, int width) {
  const InputBuffer input(data);
  if (width < 1 || width > 7) throw std::invalid_argument("width must be 1 .. 7");
  const unsigned nbits = static_cast<unsigned>(width);
  NewArray<std::uint8_t> stream(static_cast<std::size_t>(bitpack_stream_nbytes(input.bytes().size, nbits)));
  {
    nb::gil_scoped_release release;
    bitpack_encode(input.bytes(), nbits, stream.data());
  }
  return stream.release({stream.size()});
}

void py_bitpack_decode(nb::handle stream, std::int64_t n, std::int64_t start, nb::handle out) {
  const InputBuffer input(stream);
  const OutputBuffer output(out);
  check_range(n, start, output.size());
  nb::gil_scoped_release release;
  const BitpackStream parsed(input.bytes(), static_cast<std::uint64_t>(n));
  advise_huge_pages(output.data(), output.size());
  parsed.decode(static_cast<std::uint64_t>(start), static_cast<std::uint64_t>(start) + output.size(), output.data());
}

std::size_t count_elements(Bytes data, const FloatFormat& format) {
  if (data.size % format.nbytes()) {
    throw std::invalid_argument(std::to_string(data.size) + " bytes are no whole number of " +
                                std::string(format.name) + " elements");
  }
  return data.size / format.nbytes();
}

Array<std::uint64_t> py_row_costs(nb::handle data, std::string_view dtype, std::int64_t row_elements,
                                  nb::handle costs) {
  const FloatFormat& format = float_format(dtype);
  const InputBuffer input(data);
  const InputBuffer cost_input(costs);
  const std::size_t n = count_elements(input.bytes(), format);
  if (row_elements < 1 || n % static_cast<std::size_t>(row_elements)) {
    throw std::invalid_argument(std::to_string(n) + " elements are no whole number of rows of " +
                                std::to_string(row_elements));
  }
  const std::size_t n_exponents = std::size_t{1} << format.exponent_nbits;
  const std::size_t n_tables = cost_input.bytes().size / n_exponents;
  if (n_tables * n_exponents != cost_input.bytes().size) {
    throw std::invalid_argument("costs must be uint8 [tables, " + std::to_string(n_exponents) + "]");
  }
  const std::size_t n_rows = n / static_cast<std::size_t>(row_elements);
  NewArray<std::uint64_t> sums(n_rows * n_tables, Lifetime::kBrief);
  {
    nb::gil_scoped_release release;
    row_costs(input.bytes(),
              {format.nbytes(), format.exponent_nbits, format.mantissa_nbits, static_cast<std::size_t>(row_elements),
               cost_input.bytes().data, n_tables},
              sums.data());
  }
  return sums.release({n_rows, n_tables});
}

// Rows that are there; the buffer is one of 32-bit numbers.
PickedRows picked_rows(Bytes rows, std::int64_t row_elements, std::size_t n) {
  if (rows.size % sizeof(std::uint32_t)) throw std::invalid_argument("rows must be uint32");
  if (row_elements < 1 || n % static_cast<std::size_t>(row_elements)) {
    throw std::invalid_argument(std::to_string(n) + " elements are no whole number of rows of " +
                                std::to_string(row_elements));
  }
  const PickedRows picked{rows, static_cast<std::size_t>(row_elements)};
  for (std::size_t i = 0; i < picked.n_rows(); ++i) {
    if (picked[i] >= n / picked.row_elements) throw std::invalid_argument("a row is not there");
  }
  return picked;
}

nb::tuple py_float_split(nb::handle data, std::string_view dtype, std::int64_t mantissa_bits, std::int64_t base,
                         nb::handle rows, std::int64_t row_elements) {
  const FloatFormat& format = float_format(dtype);
  const FloatLayout layout(format, mantissa_bits, base);
  const InputBuffer input(data);
  std::optional<InputBuffer> row_input;
  std::optional<PickedRows> picked;
  std::size_t n = count_elements(input.bytes(), format);
  if (!rows.is_none()) {
    row_input.emplace(rows);
    picked = picked_rows(row_input->bytes(), row_elements, n);
    n = picked->n_rows() * picked->row_elements;
  }
  NewArray<std::uint8_t> high(n, Lifetime::kBrief);
  NewArray<std::uint8_t> rest(n * layout.n_rest, Lifetime::kKept);
  FloatExceptions exceptions;
  {
    nb::gil_scoped_release release;
    exceptions = float_split(input.bytes(), layout, high.data(), rest.data(), picked ? &*picked : nullptr);
  }
  NewArray<std::uint64_t> index(exceptions.index.size());
  NewArray<std::uint16_t> upper(exceptions.high.size());
  std::copy(exceptions.index.begin(), exceptions.index.end(), index.data());
  std::copy(exceptions.high.begin(), exceptions.high.end(), upper.data());
  return nb::make_tuple(high.release({n}), rest.release({layout.n_rest, n}), index.release({index.size()}),
                        upper.release({upper.size()}));
}

Array<std::uint64_t> py_upper_bits_histogram(nb::handle data, std::string_view dtype, std::int64_t mantissa_bits) {
  const FloatFormat& format = float_format(dtype);
  const FloatLayout layout(format, mantissa_bits, 0);
  const InputBuffer input(data);
  count_elements(input.bytes(), format);
  NewArray<std::uint64_t> counts(std::size_t{1} << layout.upper_nbits);
  {
    nb::gil_scoped_release release;
    upper_bits_histogram(input.bytes(), layout, counts.data());
  }
  return counts.release({counts.size()});
}

Array<std::uint32_t> py_exponent_histograms(nb::handle data, std::string_view dtype, std::int64_t row_elements,
                                            nb::handle rows, std::int64_t limit) {
  const FloatFormat& format = float_format(dtype);
  const InputBuffer input(data);
  const InputBuffer row_input(rows);
  const PickedRows picked = picked_rows(row_input.bytes(), row_elements, count_elements(input.bytes(), format));
  if (limit < 0 || limit >> 32) throw std::invalid_argument("limit must be 0 .. 2**32 - 1");
  const std::size_t n_exponents = std::size_t{1} << format.exponent_nbits;
  NewArray<std::uint32_t> counts(picked.n_rows() * n_exponents, Lifetime::kBrief);
  {
    nb::gil_scoped_release release;
    exponent_histograms(input.bytes(), format, picked, static_cast<std::size_t>(limit), counts.data());
  }
  return counts.release({picked.n_rows(), n_exponents});
}

// Both types of encoding narrow.
struct NarrowTypes {
  NarrowTypes(std::string_view wide_name, std::string_view narrow_name) {
    // The wide name alone may be one that float_split does not take; the message is for both.
    wide = &float_format(wide_name);
    narrow = &float_format(narrow_name);
    if (!may_narrow(*wide, *narrow)) {
      throw std::invalid_argument(std::string(wide_name) + " does not narrow to " + std::string(narrow_name));
    }
  }
  const FloatFormat* wide;
  const FloatFormat* narrow;
};

Array<bool> py_narrows_to(nb::handle data, std::string_view dtype, std::string_view narrower,
                          std::int64_t row_elements) {
  const NarrowTypes types(dtype, narrower);
  const InputBuffer input(data);
  const std::size_t n = count_elements(input.bytes(), *types.wide);
  if (row_elements < 1 || n % static_cast<std::size_t>(row_elements)) {
    throw std::invalid_argument(std::to_string(n) + " elements are no whole number of rows of " +
                                std::to_string(row_elements));
  }
  NewArray<bool> exact(n / static_cast<std::size_t>(row_elements));
  {
    nb::gil_scoped_release release;
    narrows_to(input.bytes(), *types.wide, *types.narrow, static_cast<std::size_t>(row_elements), exact.data());
  }
  return exact.release({exact.size()});
}

Array<std::uint8_t> py_narrow(nb::handle data, std::string_view dtype, std::string_view narrower) {
  const NarrowTypes types(dtype, narrower);
  const InputBuffer input(data);
  NewArray<std::uint8_t> out(count_elements(input.bytes(), *types.wide) * types.narrow->nbytes());
  {
    nb::gil_scoped_release release;
    narrow(input.bytes(), *types.wide, *types.narrow, out.data());
  }
  return out.release({out.size()});
}

Array<std::uint8_t> py_widen(nb::handle data, std::string_view narrower, std::string_view dtype) {
  const NarrowTypes types(dtype, narrower);
  const InputBuffer input(data);
  const std::size_t n = count_elements(input.bytes(), *types.narrow);
  NewArray<std::uint8_t> out(n * types.wide->nbytes());
  {
    nb::gil_scoped_release release;
    widen(input.bytes().data, n, *types.narrow, *types.wide, out.data());
  }
  return out.release({out.size()});
}

std::uint64_t element_count(std::size_t nbytes, const Bytes& fill) {
  if (fill.size != 1 && fill.size != 2 && fill.size != 4 && fill.size != 8) {
    throw std::invalid_argument("elements have 1, 2, 4 or 8 bytes, not " + std::to_string(fill.size));
  }
  if (nbytes % fill.size) {
    throw std::invalid_argument(std::to_string(nbytes) + " bytes are no whole number of elements of " +
                                std::to_string(fill.size));
  }
  return nbytes / fill.size;
}

void py_matrix_product(nb::handle left, nb::handle right, std::int64_t rank, std::string_view dtype, nb::handle out,
                       int threads) {
  const InputBuffer left_input(left);
  const InputBuffer right_input(right);
  const OutputBuffer output(out);
  if (dtype != "F16" && dtype != "BF16" && dtype != "F32" && dtype != "F64") {
    throw std::invalid_argument(std::string(dtype) + " is not one of F16, BF16, F32, F64");
  }
  const FloatFormat& format = float_format(dtype);
  const std::uint64_t line = 4 * static_cast<std::uint64_t>(rank);
  if (rank < 1 || rank > std::int64_t{1} << 60 || left_input.bytes().size % line || right_input.bytes().size % line) {
    throw std::invalid_argument("the matrices have no whole number of rows and columns for a rank of " +
                                std::to_string(rank));
  }
  const std::uint64_t rows = left_input.bytes().size / line, columns = right_input.bytes().size / line;
  const std::uint64_t n = element_count(output.size(), {nullptr, format.nbytes()});
  if (columns ? n % columns || n / columns != rows : n != 0) {
    throw std::invalid_argument("the output is not for " + std::to_string(rows) + " rows of " +
                                std::to_string(columns));
  }
  if (!n) return;
  nb::gil_scoped_release release;
  advise_huge_pages(output.data(), output.size());
  matrix_product(left_input.bytes(), right_input.bytes(), static_cast<std::size_t>(rank), format, output.data(),
                 thread_count(threads));
}

void py_codebook_expand(nb::handle codes, int code_nbytes, std::int64_t first, nb::handle centroids, std::int64_t size,
                        std::int64_t run, nb::handle out, int threads) {
  const InputBuffer code_input(codes);
  const InputBuffer centroid_input(centroids);
  const OutputBuffer output(out);
  if (code_nbytes != 1 && code_nbytes != 2 && code_nbytes != 4) {
    throw std::invalid_argument("codes have 1, 2 or 4 bytes, not " + std::to_string(code_nbytes));
  }
  const std::size_t n = code_input.bytes().size / static_cast<std::size_t>(code_nbytes);
  if (code_input.bytes().size % static_cast<std::size_t>(code_nbytes) || (n ? output.size() % n : output.size())) {
    throw std::invalid_argument("codes and output are no whole number of units");
  }
  if (first < 0 || size < 1 || run < 0) throw std::invalid_argument("first, size and run are out of range");
  const std::size_t unit = n ? output.size() / n : 0;
  if (!unit) return;
  // All products are of numbers below 2^63: divided rather than multiplied, they can't overflow.
  const std::uint64_t n_centroids = centroid_input.bytes().size / unit;
  const std::uint64_t n_books = n_centroids / static_cast<std::uint64_t>(size);
  const std::uint64_t last = static_cast<std::uint64_t>(first) + n - 1;
  if (centroid_input.bytes().size % unit || n_books <= (run ? last / static_cast<std::uint64_t>(run) : 0)) {
    throw std::invalid_argument("the centroids are too few, or no whole number of units");
  }
  nb::gil_scoped_release release;
  advise_huge_pages(output.data(), output.size());
  codebook_expand({code_input.bytes(), static_cast<unsigned>(code_nbytes), static_cast<std::uint64_t>(first),
                   static_cast<std::uint64_t>(run), centroid_input.bytes(), static_cast<std::uint64_t>(size), unit},
                  output.data(), thread_count(threads));
}

void py_bitmask_expand(nb::handle mask, std::int64_t start, nb::handle values, nb::handle fill, nb::handle out,
                       int threads) {
  const InputBuffer mask_input(mask);
  const InputBuffer value_input(values);
  const InputBuffer fill_input(fill);
  const OutputBuffer output(out);
  const Bytes one = fill_input.bytes();
  element_count(value_input.bytes().size, one);
  const std::uint64_t n = element_count(output.size(), one);
  check_range(static_cast<std::int64_t>(8 * mask_input.bytes().size), start, n);
  nb::gil_scoped_release release;
  advise_huge_pages(output.data(), output.size());
  bitmask_expand(mask_input.bytes(), static_cast<std::uint64_t>(start),
                 {static_cast<unsigned>(one.size), one.data, value_input.bytes()}, output.data(), n,
                 thread_count(threads));
}

void py_gaps_expand(nb::handle gaps, int max_gap, std::int64_t n, std::int64_t start, nb::handle values,
                    nb::handle fill, nb::handle out) {
  const InputBuffer gap_input(gaps);
  const InputBuffer value_input(values);
  const InputBuffer fill_input(fill);
  const OutputBuffer output(out);
  const Bytes one = fill_input.bytes();
  element_count(value_input.bytes().size, one);
  const std::uint64_t count = element_count(output.size(), one);
  if (max_gap < 1 || max_gap > 255) throw std::invalid_argument("max_gap must be 1 .. 255");
  check_range(n, start, count);
  nb::gil_scoped_release release;
  advise_huge_pages(output.data(), output.size());
  gaps_expand({gap_input.bytes(), static_cast<unsigned>(max_gap), static_cast<std::uint64_t>(n)},
              {static_cast<unsigned>(one.size), one.data, value_input.bytes()}, static_cast<std::uint64_t>(start),
              output.data(), count);
}

void py_decode_floats(nb::handle jobs, int threads) {
  const Jobs parsed(jobs);
  nb::gil_scoped_release release;
  run_jobs(parsed.prepared(), thread_count(threads));
}

}  // namespace

}  // namespace cmpk

NB_MODULE(_native, m) {
  using namespace cmpk;
  m.doc() = "The operations of cmpk.kernels.interface in C++.";
  // Lives as long as the process, like the module.
  static const nb::object* const corrupt_stream_error =
      new nb::object(nb::module_::import_("cmpk.errors").attr("CorruptStreamError"));
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const CorruptStream& error) {
      PyErr_SetString(corrupt_stream_error->ptr(), error.what());
    }
  });
  m.def("byte_histogram", &py_byte_histogram, "data"_a);
  m.def("code_lengths", &py_code_lengths, "counts"_a, "max_length"_a);
  m.def("huffman_encode", &py_huffman_encode, "data"_a, "lengths"_a, "chunk_log2"_a, "threads"_a = 1);
  m.def("huffman_decode", &py_huffman_decode, "stream"_a, "n"_a, "start"_a, "out"_a, "threads"_a = 1);
  m.def("huffman_check", &py_huffman_check, "stream"_a, "n"_a);
  m.def("rans_encode", &py_rans_encode, "data"_a, "frequencies"_a, "chunk_log2"_a, "threads"_a = 1);
  m.def("rans_decode", &py_rans_decode, "stream"_a, "n"_a, "start"_a, "out"_a, "threads"_a = 1);
  m.def("bitpack_encode", &py_bitpack_encode, "data"_a, "width"_a);
  m.def("bitpack_decode", &py_bitpack_decode, "stream"_a, "n"_a, "start"_a, "out"_a);
  m.def("matrix_product", &py_matrix_product, "left"_a, "right"_a, "rank"_a, "dtype"_a, "out"_a, "threads"_a = 1);
  m.def("codebook_expand", &py_codebook_expand, "codes"_a, "code_nbytes"_a, "first"_a, "centroids"_a, "size"_a,
        "run"_a, "out"_a, "threads"_a = 1);
  m.def("bitmask_expand", &py_bitmask_expand, "mask"_a, "start"_a, "values"_a, "fill"_a, "out"_a, "threads"_a = 1);
  m.def("gaps_expand", &py_gaps_expand, "gaps"_a, "max_gap"_a, "n"_a, "start"_a, "values"_a, "fill"_a, "out"_a);
  m.def("row_costs", &py_row_costs, "data"_a, "dtype"_a, "row_elements"_a, "costs"_a);
  m.def("float_split", &py_float_split, "data"_a, "dtype"_a, "mantissa_bits"_a, "base"_a,
        "rows"_a.none() = nb::none(), "row_elements"_a = 0);
  m.def("exponent_histograms", &py_exponent_histograms, "data"_a, "dtype"_a, "row_elements"_a, "rows"_a, "limit"_a);
  m.def("upper_bits_histogram", &py_upper_bits_histogram, "data"_a, "dtype"_a, "mantissa_bits"_a);
  m.def("narrows_to", &py_narrows_to, "data"_a, "dtype"_a, "narrower"_a, "row_elements"_a);
  m.def("narrow", &py_narrow, "data"_a, "dtype"_a, "narrower"_a);
  m.def("widen", &py_widen, "data"_a, "narrower"_a, "dtype"_a);
  m.def("decode_floats", &py_decode_floats, "jobs"_a, "threads"_a = 1);
  define_choices(m);
}

#include "module_choices.hpp"

#include <nanobind/ndarray.h>

#include <algorithm>

#include "feedback.hpp"
#include "intervals.hpp"
#include "python_buffers.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace cmpk {

namespace {

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Array<std::int32_t> py_feed_errors(const Matrix& values, const Matrix& steps, const Matrix& factor, int threads) {
  const std::size_t rows = values.shape(0), columns = values.shape(1);
  if (steps.shape(0) != rows || steps.shape(1) != columns || factor.shape(0) != rows || factor.shape(1) != rows) {
    throw std::invalid_argument("steps or factor have a shape that does not fit that of the values");
  }
  NewArray<std::int32_t> codes(rows * columns);
  {
    nb::gil_scoped_release release;
    feed_errors({values.data(), steps.data(), factor.data(), rows, columns}, codes.data(),
                static_cast<unsigned>(std::clamp(threads, 1, 256)));
  }
  return codes.release({rows, columns});
}

Array<std::int64_t> py_best_intervals(const Sums& mass, const Sums& moment, const Sums& square, std::int64_t n_intervals) {
  const std::size_t n = mass.shape(0);
  if (moment.shape(0) != n || square.shape(0) != n || n > std::size_t{1} << 31) {
    throw std::invalid_argument("the sums are not of the same places");
  }
  if (n_intervals < 1 || static_cast<std::uint64_t>(n_intervals) >= n) {
    throw std::invalid_argument(std::to_string(n_intervals) + " intervals can't begin at " + std::to_string(n) +
                                " places, the end among them");
  }
  NewArray<std::int64_t> begins(static_cast<std::size_t>(n_intervals));
  {
    nb::gil_scoped_release release;
    best_intervals({mass.data(), moment.data(), square.data(), n}, begins.size(), begins.data());
  }
  return begins.release({begins.size()});
}

}  // namespace

void define_choices(nb::module_& m) {
  m.def("feed_errors", &py_feed_errors, "values"_a.noconvert(), "steps"_a.noconvert(), "factor"_a.noconvert(),
        "threads"_a = 1);
  m.def("best_intervals", &py_best_intervals, "mass"_a.noconvert(), "moment"_a.noconvert(), "square"_a.noconvert(),
        "n_intervals"_a);
}

}  // namespace cmpk

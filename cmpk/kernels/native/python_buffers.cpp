// Python objects as bytes and as jobs.
#include "python_buffers.hpp"

namespace nb = nanobind;

namespace cmpk {

namespace {

std::string_view text(PyObject* object) {
  Py_ssize_t size;
  const char* const characters = PyUnicode_AsUTF8AndSize(object, &size);
  if (!characters) throw nb::python_error();
  return {characters, static_cast<std::size_t>(size)};
}

std::int64_t integer(PyObject* object) {
  const long long value = PyLong_AsLongLong(object);
  if (value == -1 && PyErr_Occurred()) throw nb::python_error();
  return value;
}

std::uint64_t natural(PyObject* object, const char* name) {
  const std::int64_t value = integer(object);
  if (value < 0) throw std::invalid_argument(std::string(name) + " of a job is negative");
  return static_cast<std::uint64_t>(value);
}

// The items of a list or tuple; of any other sequence, those of a list made of it.
class Items {
 public:
  explicit Items(PyObject* sequence) : fast_(nb::steal(PySequence_Fast(sequence, "a sequence is needed"))) {
    if (!fast_.is_valid()) throw nb::python_error();
  }
  std::size_t size() const { return static_cast<std::size_t>(PySequence_Fast_GET_SIZE(fast_.ptr())); }
  PyObject* operator[](std::size_t i) const {
    return PySequence_Fast_GET_ITEM(fast_.ptr(), static_cast<Py_ssize_t>(i));
  }

 private:
  nb::object fast_;
};

}  // namespace

Buffer::Buffer(nb::handle object, int flags) {
  if (PyObject_GetBuffer(object.ptr(), &view_, flags) == 0) return;
  if (!(flags & PyBUF_WRITABLE) || !PyObject_CheckBuffer(object.ptr())) throw nb::python_error();
  PyErr_Clear();
  throw std::invalid_argument("the output buffer is read-only or not contiguous");
}

bool InputBuffer::holds_uint64() const {
  const std::string_view format = view_.format ? view_.format : "B";
  return view_.itemsize == 8 && (format.back() == 'L' || format.back() == 'Q');
}

FloatJobs::FloatJobs(nb::handle sequence) {
  const Items items(sequence.ptr());
  jobs_.reserve(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) jobs_.push_back(parse(items[i]));
}

Bytes FloatJobs::input(PyObject* object) { return inputs_.emplace_back(nb::handle(object)).bytes(); }

FloatJob FloatJobs::parse(PyObject* object) {
  const Items fields(object);
  if (fields.size() != 13) throw std::invalid_argument("a job has 13 fields, as FloatJob has them");
  FloatJob job{};
  const OutputBuffer& out = outputs_.emplace_back(nb::handle(fields[0]));
  job.out = out.data();
  job.out_nbytes = out.size();
  job.format = &float_format(text(fields[1]));
  job.n = natural(fields[2], "n");
  job.start = natural(fields[3], "start");
  job.count = natural(fields[4], "count");
  job.mantissa_bits = integer(fields[5]);
  job.base = integer(fields[6]);
  const Items sources(fields[7]);
  job.sources.reserve(sources.size());
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const Items source(sources[i]);
    if (source.size() != 2) throw std::invalid_argument("a source is a codec and a stream");
    job.sources.push_back({text(source[0]), input(source[1])});
  }
  if ((fields[8] == Py_None) != (fields[9] == Py_None)) {
    throw std::invalid_argument("exception_index and exception_high come together");
  }
  if (fields[8] != Py_None) {
    job.exception_index = input(fields[8]);
    job.exception_high = input(fields[9]);
  }
  const std::string_view out_dtype = text(fields[10]);
  job.out_format = out_dtype.empty() ? job.format : &float_format(out_dtype);
  job.has_rows = fields[11] != Py_None;
  if (job.has_rows) job.rows = input(fields[11]);
  job.row_elements = natural(fields[12], "row_elements");
  return job;
}

}  // namespace cmpk

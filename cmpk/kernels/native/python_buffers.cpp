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

Jobs::Jobs(nb::handle sequence) {
  const Items items(sequence.ptr());
  const nb::module_ interface = nb::module_::import_("cmpk.kernels.interface");
  const nb::object code_job_type = interface.attr("CodeJob");
  const nb::object lookup_job_type = interface.attr("LookupJob");
  for (std::size_t i = 0; i < items.size(); ++i) {
    const nb::handle type = nb::handle(items[i]).type();
    if (type.is(code_job_type)) {
      jobs_.emplace_back(code_job(items[i]));
    } else if (type.is(lookup_job_type)) {
      jobs_.emplace_back(lookup_job(items[i]));
    } else {
      jobs_.emplace_back(float_job(items[i]));
    }
  }
}

std::vector<std::unique_ptr<PreparedJob>> Jobs::prepared() const {
  std::vector<std::unique_ptr<PreparedJob>> prepared;
  prepared.reserve(jobs_.size());
  for (const auto& job : jobs_) {
    prepared.push_back(std::visit([](const auto& found) { return prepare(found); }, job));
  }
  return prepared;
}

Bytes Jobs::input(PyObject* object) {
  return object == Py_None ? Bytes{nullptr, 0} : inputs_.emplace_back(nb::handle(object)).bytes();
}

Source Jobs::source(PyObject* object) {
  const Items fields(object);
  if (fields.size() != 2) throw std::invalid_argument("a source is a codec and a stream");
  return {text(fields[0]), input(fields[1])};
}

// The fields that all jobs begin and end with.
void Jobs::set_range(JobRange& range, PyObject* object) {
  const Items fields(object);
  const OutputBuffer& out = outputs_.emplace_back(nb::handle(fields[0]));
  range.out = out.data();
  range.out_nbytes = out.size();
  range.n = natural(fields[2], "n");
  range.start = natural(fields[3], "start");
  range.count = natural(fields[4], "count");
  PyObject* const rows = fields[fields.size() - 2];
  range.has_rows = rows != Py_None;
  range.rows = input(rows);
  range.row_elements = natural(fields[fields.size() - 1], "row_elements");
}

void Jobs::check_pair(PyObject* index, PyObject* value) {
  if ((index == Py_None) == (value == Py_None)) return;
  throw std::invalid_argument("the indices of exceptions and their values come together");
}

FloatJob Jobs::float_job(PyObject* object) {
  const Items fields(object);
  if (fields.size() != 13) throw std::invalid_argument("a job has 13 fields, as FloatJob has them");
  FloatJob job{};
  set_range(job, object);
  job.format = &float_format(text(fields[1]));
  job.mantissa_bits = integer(fields[5]);
  job.base = integer(fields[6]);
  const Items sources(fields[7]);
  job.sources.reserve(sources.size());
  for (std::size_t i = 0; i < sources.size(); ++i) job.sources.push_back(source(sources[i]));
  check_pair(fields[8], fields[9]);
  job.exception_index = input(fields[8]);
  job.exception_high = input(fields[9]);
  const std::string_view out_dtype = text(fields[10]);
  job.out_format = out_dtype.empty() ? job.format : &float_format(out_dtype);
  return job;
}

CodeJob Jobs::code_job(PyObject* object) {
  const Items fields(object);
  CodeJob job{};
  set_range(job, object);
  job.format = &float_format(text(fields[1]));
  job.codes = source(fields[5]);
  job.scale = input(fields[6]);
  job.has_zero_points = fields[7] != Py_None;
  job.zero_point = input(fields[7]);
  job.offset = integer(fields[8]);
  job.line = natural(fields[9], "line");
  job.run = natural(fields[10], "run");
  job.has_numbers = fields[11] != Py_None;
  job.numbers = input(fields[11]);
  check_pair(fields[12], fields[13]);
  job.exception_index = input(fields[12]);
  job.exception_code = input(fields[13]);
  return job;
}

LookupJob Jobs::lookup_job(PyObject* object) {
  const Items fields(object);
  LookupJob job{};
  set_range(job, object);
  job.element_nbytes = natural(fields[1], "element_nbytes");
  job.codes = source(fields[5]);
  job.table = input(fields[6]);
  job.size = natural(fields[7], "size");
  job.run = natural(fields[8], "run");
  return job;
}

}  // namespace cmpk

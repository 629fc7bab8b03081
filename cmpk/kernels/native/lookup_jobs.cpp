// Ranges of tensors of byte codes, each looked up in a list of elements.
#include "lookup_jobs.hpp"

namespace cmpk {

namespace {

using LookUpElements = void (*)(const std::uint8_t* codes, std::size_t n, const std::uint8_t* table,
                                std::uint8_t* out);

template <class Word>
void look_up_elements(const std::uint8_t* codes, std::size_t n, const std::uint8_t* table, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    store(out + i * sizeof(Word), load<Word>(table + codes[i] * sizeof(Word)));
  }
}

LookUpElements look_up_of(std::uint64_t element_nbytes) {
  switch (element_nbytes) {
    case 1:
      return look_up_elements<std::uint8_t>;
    case 2:
      return look_up_elements<std::uint16_t>;
    case 4:
      return look_up_elements<std::uint32_t>;
    case 8:
      return look_up_elements<std::uint64_t>;
    default:
      throw std::invalid_argument("elements of " + std::to_string(element_nbytes) + " bytes are not looked up");
  }
}

std::uint8_t highest(const std::uint8_t* codes, std::size_t n) {
  std::uint8_t most = 0;
  for (std::size_t i = 0; i < n; ++i) most = std::max(most, codes[i]);
  return most;
}

class PreparedLookups final : public PreparedJob {
 public:
  explicit PreparedLookups(const LookupJob& job);

 private:
  void run(std::uint64_t start, std::uint64_t stop, Workspace& workspace) const override;
  void check_codes(const std::uint8_t* codes, std::size_t n) const;
  void look_up(std::uint64_t start, std::size_t n, const std::uint8_t* codes, std::uint8_t* out) const;

  const LookupJob& job_;
  LookUpElements look_up_;
  JobOutput output_;
  std::unique_ptr<Part> codes_;
  // Whether a code may be one that the list does not have.
  bool may_exceed_;
};

PreparedLookups::PreparedLookups(const LookupJob& job)
    : PreparedJob(job),
      job_(job),
      look_up_(look_up_of(job.element_nbytes)),
      output_(job, static_cast<unsigned>(job.element_nbytes)) {
  if (job.size < 1 || job.size > 256) throw std::invalid_argument("a list has 1 .. 256 elements");
  const std::uint64_t list_nbytes = job.size * job.element_nbytes;
  const std::uint64_t n_lists = job.n ? (job.run ? (job.n - 1) / job.run + 1 : 1) : 0;
  // Division, for the product may overflow.
  if (job.table.size % list_nbytes || job.table.size / list_nbytes < n_lists) {
    throw std::invalid_argument(std::to_string(job.table.size) + " bytes are not lists of " +
                                std::to_string(list_nbytes) + " for each of " + std::to_string(n_lists) + " runs");
  }
  codes_ = open_part(job.codes.codec, job.codes.stream, job.n);
  may_exceed_ = job.size < std::uint64_t{1} << codes_->max_nbits();
}

void PreparedLookups::run(std::uint64_t start, std::uint64_t stop, Workspace& workspace) const {
  const bool by_block = codes_->is_cheap_by_block();
  const std::uint8_t* codes = by_block ? nullptr : codes_->read(start, stop, workspace.parts.get(), workspace.tables);
  JobOutput::Place place = output_.place_of(start);
  for (std::uint64_t at = start; at < stop;) {
    const std::uint64_t end = std::min(stop, (at / kBlock + 1) * kBlock);
    const std::size_t n = static_cast<std::size_t>(end - at);
    if (by_block) codes = codes_->read(at, end, workspace.blocks, workspace.tables);
    if (may_exceed_) check_codes(codes, n);
    output_.write_block(n, place, workspace.aside, [&](std::size_t offset, std::size_t length, std::uint8_t* out) {
      look_up(at + offset, length, codes + offset, out);
    });
    codes += n;
    at = end;
  }
}

void PreparedLookups::check_codes(const std::uint8_t* codes, std::size_t n) const {
  const std::uint8_t most = highest(codes, n);
  if (most < job_.size) return;
  throw CorruptStream("encoding 'codebook': code " + std::to_string(most) + " is not in a codebook of " +
                      std::to_string(job_.size));
}

void PreparedLookups::look_up(std::uint64_t start, std::size_t n, const std::uint8_t* codes, std::uint8_t* out) const {
  if (!job_.run) return look_up_(codes, n, job_.table.data, out);
  for (std::size_t i = 0; i < n;) {
    const std::uint64_t list = (start + i) / job_.run;
    const std::uint64_t left = job_.run - (start + i) % job_.run;
    const std::size_t length = static_cast<std::size_t>(std::min<std::uint64_t>(n - i, left));
    look_up_(codes + i, length, job_.table.data + list * job_.size * job_.element_nbytes,
             out + i * job_.element_nbytes);
    i += length;
  }
}

}  // namespace

std::unique_ptr<PreparedJob> prepare(const LookupJob& job) { return std::make_unique<PreparedLookups>(job); }

}  // namespace cmpk

// What all jobs promise, slowly.
#include "slow_jobs.hpp"

#include "bitpack.hpp"

namespace fuzz {

std::optional<Stream> slow_part(const cmpk::Source& source, std::uint64_t n) {
  try {
    Stream symbols(static_cast<std::size_t>(n));
    if (source.codec == "raw") {
      if (source.stream.size != n) return {};
      if (n) std::memcpy(symbols.data(), source.stream.data, symbols.size());
    } else if (source.codec == "bitpack") {
      cmpk::BitpackStream(source.stream, n).decode(0, n, symbols.data());
    } else if (source.codec == "rans") {
      cmpk::RansStream(source.stream, n).decode(0, n, symbols.data());
    } else if (source.codec == "huffman") {
      const cmpk::HuffmanStream stream(source.stream, n);
      const auto table = std::make_unique<cmpk::DecodeTable>();
      if (!stream.is_one_symbol()) table->build(stream.lengths());
      stream.check(*table);
      stream.decode(*table, 0, n, symbols.data());
    } else {
      return {};
    }
    return symbols;
  } catch (const cmpk::CorruptStream&) {
    return {};
  }
}

std::optional<std::vector<std::uint64_t>> slow_places(const cmpk::JobRange& job, std::size_t element_nbytes) {
  std::vector<std::uint64_t> places(static_cast<std::size_t>(job.count));
  for (std::size_t i = 0; i < places.size(); ++i) places[i] = i;
  if (!job.has_rows) {
    if (job.row_elements || job.out_nbytes != job.count * element_nbytes) return {};
    return places;
  }
  const std::uint64_t n_rows = job.rows.size / 4;
  if (job.rows.size % 4) return {};
  if (!job.row_elements) return job.count ? std::nullopt : std::optional(places);
  if (job.count % job.row_elements || job.count / job.row_elements != n_rows) return {};
  if (job.out_nbytes % element_nbytes || job.out_nbytes / element_nbytes % job.row_elements) return {};
  for (std::size_t row = 0; row < n_rows; ++row) {
    const std::uint64_t to = cmpk::load<std::uint32_t>(job.rows.data + 4 * row);
    if (to >= job.out_nbytes / element_nbytes / job.row_elements) return {};
    for (std::uint64_t i = 0; i < job.row_elements; ++i) places[row * job.row_elements + i] = to * job.row_elements + i;
  }
  return places;
}

Outcome slow_output(const cmpk::JobRange& job, std::size_t element_nbytes, const std::vector<std::uint64_t>& places,
                    const std::vector<std::uint64_t>& elements) {
  Outcome outcome{Outcome::kRight, Stream(job.out_nbytes, 0xa5)};
  std::vector<bool> is_taken(job.out_nbytes / element_nbytes);
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (is_taken[places[i]]) outcome.kind = Outcome::kEither;
    is_taken[places[i]] = true;
    std::memcpy(outcome.output.data() + places[i] * element_nbytes, &elements[i], element_nbytes);
  }
  return outcome;
}

}  // namespace fuzz

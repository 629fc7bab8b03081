// Masks, gaps and codes, and the values that they put in their places.
#include <algorithm>
#include <array>

#include "case.hpp"
#include "codebook.hpp"
#include "sparse.hpp"

namespace {

using namespace fuzz;

enum : std::size_t { kSize, kStart, kCount, kValues, kMaxGap, kRun, kBookSize, kNumbers };
enum : std::size_t { kPlaces, kFill, kStreams };

const std::array<std::size_t, 9> kUnits = {1, 2, 4, 8, 16, 32, 64, 3, 40};

Case fresh(Random& random) {
  Case input{{}, {{}, {}}};
  for (std::size_t i = 0; i < kNumbers; ++i) input.numbers.push_back(random.next());
  input.streams[kPlaces].resize(random.size(3000));
  const std::uint64_t limit = random.once_in(2) ? 256 : 1 + random.below(256);
  for (std::uint8_t& byte : input.streams[kPlaces]) byte = static_cast<std::uint8_t>(random.below(limit));
  input.streams[kFill].resize(8);
  return input;
}

Spans spans(const Case&, std::size_t) { return {}; }

void repair(Case&) {}

// Values that differ from each other and from the fill.
Exact values_of(std::size_t n, std::size_t nbytes) {
  const Exact values(n * nbytes);
  for (std::size_t i = 0; i < values.size(); ++i) values.data()[i] = static_cast<std::uint8_t>(i * 7 + i / 251 + 1);
  return Exact(values.data(), values.size());
}

// As many values as are needed, or one more or less.
std::size_t off(std::size_t n, std::uint64_t number) {
  return number % 4 == 1 ? n + 1 : number % 4 == 2 && n ? n - 1 : n;
}

template <class Expand>
bool succeeds(const Expand& expand) {
  try {
    expand();
    return true;
  } catch (const cmpk::CorruptStream&) {
    return false;
  }
}

void check_mask(const Case& input, const Exact& places, const Exact& fill) {
  const std::size_t nbytes = fill.size();
  const std::uint64_t n_bits = 8 * places.size();
  const std::uint64_t start = n_bits ? input.numbers[kStart] % (n_bits + 1) : 0;
  const std::size_t n = static_cast<std::size_t>(input.numbers[kCount] % (n_bits - start + 1));
  const auto is_set = [&](std::uint64_t bit) { return places.data()[bit / 8] >> bit % 8 & 1; };
  std::size_t n_set = 0;
  for (std::size_t i = 0; i < n; ++i) n_set += is_set(start + i);
  const std::size_t n_values = off(n_set, input.numbers[kValues]);
  const Exact values = values_of(n_values, nbytes);
  const Exact out(n * nbytes);
  const bool is_sound = succeeds([&] {
    cmpk::bitmask_expand(places.bytes(), start, {static_cast<unsigned>(nbytes), fill.data(), values.bytes()}, out.data(),
                         n, 1);
  });
  require(is_sound == (n_values == n_set), "as many bits are set as there are values");
  if (!is_sound) return;
  const std::uint8_t* value = values.data();
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint8_t* const wanted = is_set(start + i) ? value : fill.data();
    require(!std::memcmp(out.data() + i * nbytes, wanted, nbytes), "a value stands where its bit is set");
    value += is_set(start + i) ? nbytes : 0;
  }
}

void check_gaps(const Case& input, const Exact& places, const Exact& fill) {
  const std::size_t nbytes = fill.size();
  const unsigned max_gap = static_cast<unsigned>(1 + input.numbers[kMaxGap] % 255);
  std::size_t n_needed = 0, end = 0;
  bool is_sound = true;
  for (std::size_t i = 0; i < places.size(); ++i) {
    is_sound &= places.data()[i] <= max_gap;
    n_needed += places.data()[i] != max_gap;
    end += places.data()[i] + (places.data()[i] != max_gap);
  }
  // Sometimes too few elements for the gaps.
  const std::size_t n = input.numbers[kSize] % 4 == 3 && end ? end - 1 : end + input.numbers[kSize] % 3;
  const std::size_t start = static_cast<std::size_t>(input.numbers[kStart] % (n + 1));
  const std::size_t count = static_cast<std::size_t>(input.numbers[kCount] % (n - start + 1));
  const std::size_t n_values = off(n_needed, input.numbers[kValues]);
  is_sound &= n >= end && n_values == n_needed;
  const Exact values = values_of(n_values, nbytes);
  const Exact out(count * nbytes);
  const bool is_taken = succeeds([&] {
    cmpk::gaps_expand({places.bytes(), max_gap, n}, {static_cast<unsigned>(nbytes), fill.data(), values.bytes()}, start,
                      out.data(), count);
  });
  require(is_taken == is_sound, "gaps that break a rule, and only these, are refused");
  if (!is_taken) return;
  std::vector<const std::uint8_t*> wanted(n, fill.data());
  const std::uint8_t* value = values.data();
  std::size_t at = 0;
  for (std::size_t i = 0; i < places.size(); ++i) {
    at += places.data()[i];
    if (places.data()[i] == max_gap) continue;
    wanted[at++] = value;
    value += nbytes;
  }
  for (std::size_t i = 0; i < count; ++i) {
    require(!std::memcmp(out.data() + i * nbytes, wanted[start + i], nbytes), "a value stands behind its gap");
  }
}

void check_codes(const Case& input, const Exact& places) {
  const unsigned code_nbytes = 1u << input.numbers[kSize] % 3;
  const std::size_t unit = kUnits[input.numbers[kValues] % kUnits.size()];
  const std::size_t n = places.size() / code_nbytes;
  const std::uint64_t run = input.numbers[kRun] % 4 ? 0 : 1 + input.numbers[kRun] % 70;
  const std::uint64_t size = 1 + input.numbers[kBookSize] % 300;
  const std::uint64_t first = input.numbers[kStart] % 100;
  const Exact codes(places.data(), n * code_nbytes);
  const auto code_of = [&](std::size_t i) {
    std::uint32_t code = 0;
    std::memcpy(&code, codes.data() + i * code_nbytes, code_nbytes);
    return code;
  };
  const std::size_t n_books = run && n ? static_cast<std::size_t>((first + n - 1) / run + 1) : 1;
  const Exact centroids = values_of(n_books * static_cast<std::size_t>(size), unit);
  const Exact out(n * unit);
  bool is_sound = true;
  for (std::size_t i = 0; i < n; ++i) is_sound &= code_of(i) < size;
  const bool is_taken = succeeds([&] {
    cmpk::codebook_expand({codes.bytes(), code_nbytes, first, run, centroids.bytes(), size, unit}, out.data(), 1);
  });
  require(is_taken == is_sound, "codes that are in no codebook, and only these, are refused");
  for (std::size_t i = 0; i < n && is_taken; ++i) {
    const std::size_t book = run ? static_cast<std::size_t>((first + i) / run) : 0;
    const std::uint8_t* const wanted = centroids.data() + (book * static_cast<std::size_t>(size) + code_of(i)) * unit;
    require(!std::memcmp(out.data() + i * unit, wanted, unit), "a code gives the centroid of its codebook");
  }
}

void run(const Case& input) {
  const Exact places(input.streams[kPlaces].data(), std::min<std::size_t>(input.streams[kPlaces].size(), 4096));
  const Exact fill(std::size_t{1} << input.numbers[kSize] % 4, 0);
  check_mask(input, places, fill);
  check_gaps(input, places, fill);
  check_codes(input, places);
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, kStreams, fresh, spans, repair, run};

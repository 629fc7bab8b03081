// Counts and code lengths: those of a code, no longer than allowed, and no other is cheaper.
#include <algorithm>
#include <queue>

#include "encode.hpp"
#include "streams.hpp"

namespace {

using namespace fuzz;
using cmpk::ByteCounts;
using cmpk::CodeLengths;

enum : std::size_t { kMaxLength, kRepeat, kNumbers };

Case fresh(Random& random) {
  Stream counts(8 * (1 + random.below(256)));
  const std::uint64_t kind = random.below(4);
  std::uint64_t a = 1, b = 1;
  for (std::size_t at = 0; at < counts.size(); at += 8) {
    std::uint64_t count = random.size(std::uint64_t{1} << 40);
    if (kind == 0) count = random.size(3);
    if (kind == 1 && b >> 48 == 0) {  // Fibonacci's numbers make the longest codes
      count = a;
      a = b;
      b += count;
    }
    if (kind == 2) count = 1;
    cmpk::store(counts.data() + at, count);
  }
  return {{random.once_in(2) ? 12 : 1 + random.below(16), random.once_in(64) ? 600u : 1u}, {std::move(counts)}};
}

Spans spans(const Case& input, std::size_t stream) { return {{0, input.streams[stream].size(), Kind::kWords64}}; }

void repair(Case& input) { input.numbers[kMaxLength] = 1 + input.numbers[kMaxLength] % 16; }

using Cost = unsigned __int128;

Cost cost_of(const ByteCounts& counts, const CodeLengths& lengths) {
  Cost cost = 0;
  for (unsigned s = 0; s < 256; ++s) cost += Cost{counts[s]} * lengths[s];
  return cost;
}

// The cost of Huffman's code, which has no limit.
Cost huffman_cost(const std::vector<std::uint64_t>& weights) {
  std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>> heap(weights.begin(), weights.end());
  Cost cost = 0;
  while (heap.size() > 1) {
    std::uint64_t sum = heap.top();
    heap.pop();
    sum += heap.top();
    heap.pop();
    cost += sum;
    heap.push(sum);
  }
  return cost;
}

// The cost of the best code within the limit, by trying for every weight every length: cheapest[k]
// is the least cost of the weights so far, with k of the 2^limit codes taken.
Cost limited_cost(const std::vector<std::uint64_t>& weights, unsigned limit) {
  const std::size_t n_codes = std::size_t{1} << limit;
  constexpr Cost kImpossible = ~Cost{0};
  std::vector<Cost> cheapest(n_codes + 1, kImpossible);
  cheapest[0] = 0;
  for (const std::uint64_t weight : weights) {
    for (std::size_t k = n_codes + 1; k-- > 0;) {
      Cost best = kImpossible;
      for (unsigned length = 1; length <= limit; ++length) {
        const std::size_t takes = n_codes >> length;
        if (takes <= k && cheapest[k - takes] != kImpossible)
          best = std::min(best, cheapest[k - takes] + Cost{weight} * length);
      }
      cheapest[k] = best;
    }
  }
  return cheapest[n_codes];
}

void check_lengths(const ByteCounts& counts, const CodeLengths& lengths, unsigned limit) {
  std::vector<std::uint64_t> weights;
  std::uint64_t space = 0;
  for (unsigned s = 0; s < 256; ++s) {
    require((counts[s] != 0) == (lengths[s] != 0), "exactly the symbols that occur have a code");
    require(lengths[s] <= limit, "no code is longer than allowed");
    if (!counts[s]) continue;
    weights.push_back(counts[s]);
    space += std::uint64_t{1} << (16 - lengths[s]);
    for (unsigned t = 0; t < s; ++t) {
      if (!counts[t]) continue;
      const bool is_ordered = counts[t] >= counts[s] ? lengths[t] <= lengths[s] : lengths[t] >= lengths[s];
      require(is_ordered, "longer codes are for rarer symbols, and for the higher of two that are as rare");
    }
  }
  if (weights.size() < 2) return;
  require(space == 1u << 16, "Kraft's equality holds");
  const Cost cost = cost_of(counts, lengths);
  const Cost least = huffman_cost(weights);
  require(cost >= least, "no code is cheaper than Huffman's");
  if (*std::max_element(lengths.begin(), lengths.end()) < limit)
    require(cost == least, "without need of its limit a code is Huffman's");
  if (limit <= 8 && weights.size() <= 48)
    require(cost == limited_cost(weights, limit), "no code within the limit is cheaper");
}

void check_histogram(const Stream& bytes, std::uint64_t repeat) {
  Stream data;
  for (std::uint64_t i = 0; i < repeat % 1024 && data.size() < 1200000; ++i)
    data.insert(data.end(), bytes.begin(), bytes.end());
  ByteCounts expected{};
  for (const std::uint8_t byte : data) ++expected[byte];
  require(cmpk::byte_histogram(Exact(data).bytes()) == expected, "every byte is counted once");
}

void run(const Case& input) {
  check_histogram(input.streams[0], input.numbers[kRepeat]);
  ByteCounts counts{};
  if (!input.streams[0].empty())
    std::memcpy(counts.data(), input.streams[0].data(), std::min(sizeof counts, input.streams[0].size()));
  const unsigned limit = static_cast<unsigned>(input.numbers[kMaxLength]);
  try {
    check_lengths(counts, cmpk::code_lengths(counts, limit), limit);
  } catch (const std::invalid_argument&) {
  }
}

}  // namespace

const fuzz::Target fuzz::target{kNumbers, 1, fresh, spans, repair, run};

// Cases as bytes, and how they are changed.
#include "case.hpp"

#include <algorithm>

namespace fuzz {

namespace {

constexpr std::size_t kMaxStreams = 16;
constexpr std::size_t kMaxStreamBytes = std::size_t{1} << 20;

std::uint64_t interesting(Random& random) {
  static const std::vector<std::uint64_t> values{0,
                                                 1,
                                                 2,
                                                 7,
                                                 8,
                                                 9,
                                                 31,
                                                 32,
                                                 33,
                                                 127,
                                                 128,
                                                 255,
                                                 256,
                                                 1023,
                                                 1024,
                                                 1025,
                                                 4095,
                                                 4096,
                                                 4097,
                                                 65535,
                                                 65536,
                                                 65537,
                                                 131071,
                                                 131072,
                                                 131073,
                                                 std::uint64_t{1} << 20,
                                                 std::uint64_t{1} << 24,
                                                 std::uint64_t{1} << 31,
                                                 std::uint64_t{1} << 32,
                                                 std::uint64_t{1} << 48,
                                                 std::uint64_t{1} << 51,
                                                 ~std::uint64_t{0} >> 1,
                                                 ~std::uint64_t{0}};
  return random.of(values);
}

std::uint64_t changed(std::uint64_t value, const Case& input, Random& random) {
  switch (random.below(7)) {
    case 0:
      return value + 1 + random.size(64);
    case 1:
      return value - 1 - random.size(64);
    case 2:
      return value ^ std::uint64_t{1} << random.below(64);
    case 3:
      return interesting(random);
    case 4:
      return random.of(input.numbers) + random.below(3) - 1;  // limits are numbers of the case
    case 5:
      return value + (interesting(random) << random.below(2)) - random.below(2);
    default:
      return random.size(~std::uint64_t{0});
  }
}

std::uint64_t get(const std::uint8_t* at, std::size_t nbytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, at, nbytes);
  return value;
}

void put(std::uint8_t* at, std::size_t nbytes, std::uint64_t value) { std::memcpy(at, &value, nbytes); }

// Numbers of 2, 4 or 8 bytes: one changes, or two do and keep their sum, or they change places.
void mutate_words(std::uint8_t* words, std::size_t n, std::size_t nbytes, const Case& input, Random& random) {
  std::uint8_t* const a = words + random.below(n) * nbytes;
  std::uint8_t* const b = words + random.below(n) * nbytes;
  const std::uint64_t old_a = get(a, nbytes);
  const std::uint64_t old_b = get(b, nbytes);
  const std::uint64_t change = random.once_in(2) ? 1 + random.size(255) : std::uint64_t{1} << random.below(8 * nbytes);
  switch (random.below(4)) {
    case 0:
      put(a, nbytes, old_b);
      return put(b, nbytes, old_a);
    case 1:
      put(a, nbytes, old_a + change);
      return put(b, nbytes, get(b, nbytes) - change);
    default:
      return put(a, nbytes, changed(old_a, input, random));
  }
}

// Halves of bytes. Exchanging two keeps the sums that the codecs check; so does splitting a code.
void mutate_nibbles(std::uint8_t* bytes, std::size_t n, Random& random) {
  const auto read = [&](std::size_t i) { return bytes[i / 2] >> (i % 2 * 4) & 15u; };
  const auto write = [&](std::size_t i, unsigned value) {
    bytes[i / 2] = static_cast<std::uint8_t>((bytes[i / 2] & (0xf0 >> (i % 2 * 4))) | (value & 15u) << (i % 2 * 4));
  };
  const std::size_t a = random.below(2 * n);
  const std::size_t b = random.below(2 * n);
  const unsigned old_a = read(a);
  switch (random.below(4)) {
    case 0:
      return write(a, static_cast<unsigned>(random.next()));
    case 1: {
      // A symbol without a code takes half of another one's.
      write(a, old_a + 1);
      for (std::size_t i = 0; i < 2 * n; ++i) {
        if (!read((b + i) % (2 * n))) return write((b + i) % (2 * n), old_a + 1);
      }
      return;
    }
    default:
      write(a, read(b));
      return write(b, old_a);
  }
}

void mutate_bytes(std::uint8_t* bytes, std::size_t n, Random& random) {
  std::uint8_t& byte = bytes[random.below(n)];
  switch (random.below(4)) {
    case 0:
      byte = static_cast<std::uint8_t>(random.next());
      break;
    case 1:
      byte = static_cast<std::uint8_t>(interesting(random));
      break;
    default:
      byte ^= static_cast<std::uint8_t>(1u << random.below(8));
      break;
  }
}

void mutate_span(std::uint8_t* begin, const Span& span, const Case& input, Random& random) {
  const std::size_t n = span.end - span.begin;
  const std::size_t word = span.kind == Kind::kWords16   ? 2
                           : span.kind == Kind::kWords32 ? 4
                           : span.kind == Kind::kWords64 ? 8
                                                         : 0;
  if (word && n >= word) return mutate_words(begin, n / word, word, input, random);
  if (span.kind == Kind::kNibbles) return mutate_nibbles(begin, n, random);
  mutate_bytes(begin, n, random);
}

// Cuts, lengthens, repeats or moves a run of bytes.
void mutate_structure(Stream& stream, const Case& input, Random& random) {
  const std::size_t at = static_cast<std::size_t>(random.below(stream.size() + 1));
  const std::size_t n = static_cast<std::size_t>(random.size(std::min<std::size_t>(stream.size() - at, 4096)));
  const auto position = stream.begin() + static_cast<std::ptrdiff_t>(at);
  const auto run_end = position + static_cast<std::ptrdiff_t>(n);
  switch (random.below(6)) {
    case 0:
      stream.resize(stream.size() - std::min<std::size_t>(stream.size(), 1 + random.size(64)));
      break;
    case 1:
      stream.resize(stream.size() + 1 + random.size(64), static_cast<std::uint8_t>(random.next()));
      break;
    case 2:
      stream.erase(position, run_end);
      break;
    case 3:
      stream.insert(position, n, static_cast<std::uint8_t>(random.once_in(2) ? 0 : random.next()));
      break;
    case 4:
      std::fill(position, run_end, static_cast<std::uint8_t>(random.once_in(2) ? 0 : 255));
      break;
    default: {
      const Stream source = random.of(input.streams);
      const std::size_t length = std::min<std::size_t>({n + 8, source.size(), stream.size() - at});
      const std::size_t from = static_cast<std::size_t>(random.below(source.size() - length + 1));
      std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(from), length, position);
    }
  }
  if (stream.size() > kMaxStreamBytes) stream.resize(kMaxStreamBytes);
}

void mutate_stream(Case& input, std::size_t index, Random& random) {
  Stream& stream = input.streams[index];
  if (stream.empty() || random.once_in(8)) return mutate_structure(stream, input, random);
  Spans spans = target.spans(input, index);
  spans.push_back({0, stream.size(), Kind::kBytes});
  for (Span& span : spans) span.end = std::min(span.end, stream.size());
  spans.erase(std::remove_if(spans.begin(), spans.end(), [](const Span& s) { return s.begin >= s.end; }), spans.end());
  // A span and not a byte is chosen at random: the payload is long, and the rules are about the head.
  const Span& span = random.of(spans);
  mutate_span(stream.data() + span.begin, span, input, random);
}

}  // namespace

Case parse(const std::uint8_t* data, std::size_t size) {
  Case input;
  const auto take = [&](std::size_t nbytes) {
    const std::size_t n = std::min(nbytes, size);
    const std::uint64_t value = n ? get(data, n) : 0;
    data += n;
    size -= n;
    return value;
  };
  while (input.numbers.size() < target.n_numbers) input.numbers.push_back(take(8));
  while (size && input.streams.size() < kMaxStreams) {
    const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>({take(4), size, kMaxStreamBytes}));
    input.streams.emplace_back(data, data + n);
    data += n;
    size -= n;
  }
  while (input.streams.size() < target.n_streams) input.streams.emplace_back();
  return input;
}

std::vector<std::uint8_t> to_bytes(const Case& input) {
  std::vector<std::uint8_t> bytes;
  const auto append = [&](std::uint64_t value, std::size_t nbytes) {
    bytes.resize(bytes.size() + nbytes);
    put(bytes.data() + bytes.size() - nbytes, nbytes, value);
  };
  for (const std::uint64_t number : input.numbers) append(number, 8);
  for (const Stream& stream : input.streams) {
    append(stream.size(), 4);
    bytes.insert(bytes.end(), stream.begin(), stream.end());
  }
  return bytes;
}

void mutate(Case& input, Random& random) {
  for (std::uint64_t n = 1 + random.size(7); n; --n) {
    if (input.streams.empty() || random.once_in(4)) {
      std::uint64_t& number = input.numbers[random.below(input.numbers.size())];
      number = changed(number, input, random);
    } else {
      mutate_stream(input, random.below(input.streams.size()), random);
    }
  }
  if (!random.once_in(4)) target.repair(input);
}

}  // namespace fuzz

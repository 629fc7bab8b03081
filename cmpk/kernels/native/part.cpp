// The codecs that decode_floats decodes on the way.
#include "part.hpp"

#include "bitpack.hpp"
#include "rans.hpp"

namespace cmpk {

namespace {

class RawPart final : public Part {
 public:
  RawPart(Bytes stream, std::uint64_t n) : stream_(stream) {
    if (stream.size != n) {
      throw CorruptStream("codec 'raw': stream has " + std::to_string(stream.size) + " bytes; its tensor has " +
                          std::to_string(n));
    }
  }

  bool is_cheap_by_block() const override { return true; }

  const std::uint8_t* read(std::uint64_t start, std::uint64_t, std::uint8_t*, PartTables&) const override {
    return stream_.data + start;
  }

 private:
  Bytes stream_;
};

class BitpackPart final : public Part {
 public:
  BitpackPart(Bytes stream, std::uint64_t n) : stream_(stream, n) {}

  unsigned max_nbits() const override { return stream_.width(); }
  bool is_cheap_by_block() const override { return true; }

  const std::uint8_t* read(std::uint64_t start, std::uint64_t stop, std::uint8_t* scratch,
                           PartTables&) const override {
    stream_.decode(start, stop, scratch);
    return scratch;
  }

 private:
  BitpackStream stream_;
};

class HuffmanPart final : public Part {
 public:
  HuffmanPart(Bytes stream, std::uint64_t n) : stream_(stream, n) {}

  const std::uint8_t* read(std::uint64_t start, std::uint64_t stop, std::uint8_t* scratch,
                           PartTables& tables) const override {
    if (tables.owner != this) {
      if (!stream_.is_one_symbol()) tables.huffman.build(stream_.lengths());
      tables.owner = this;
    }
    stream_.decode(tables.huffman, start, stop, scratch);
    return scratch;
  }

 private:
  HuffmanStream stream_;
};

// Read fastest by runs of whole chunks.
class RansPart final : public Part {
 public:
  RansPart(Bytes stream, std::uint64_t n) : stream_(stream, n) {}

  const std::uint8_t* read(std::uint64_t start, std::uint64_t stop, std::uint8_t* scratch,
                           PartTables&) const override {
    stream_.decode(start, stop, scratch);
    return scratch;
  }

 private:
  RansStream stream_;
};

}  // namespace

std::unique_ptr<Part> open_part(std::string_view codec, Bytes stream, std::uint64_t n) {
  if (codec == "raw") return std::make_unique<RawPart>(stream, n);
  if (codec == "huffman") return std::make_unique<HuffmanPart>(stream, n);
  if (codec == "rans") return std::make_unique<RansPart>(stream, n);
  if (codec == "bitpack") return std::make_unique<BitpackPart>(stream, n);
  throw std::invalid_argument("decode_floats does not decode codec '" + std::string(codec) + "'");
}

}  // namespace cmpk

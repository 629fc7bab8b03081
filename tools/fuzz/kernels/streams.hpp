// Valid streams of every codec, where their parts are, and sizes that fit.
#pragma once

#include "case.hpp"
#include "huffman.hpp"
#include "rans.hpp"

namespace fuzz {

// Bytes as entropy coders meet them: of one symbol, of few, of all; skewed or even.
Stream skewed_bytes(Random& random, std::size_t n);

// Lengths of a code for the bytes, and often for some that do not occur.
cmpk::CodeLengths fresh_code_lengths(Random& random, const Stream& data);

// Frequencies that add up to 4096, positive for all bytes that occur, rarely those that cost least.
cmpk::Frequencies fresh_frequencies(Random& random, const Stream& data);

// The stream of the bytes with these frequencies. Throws std::invalid_argument as RansEncoder does.
Stream rans_stream(cmpk::Bytes data, const cmpk::Frequencies& frequencies, unsigned chunk_log2, unsigned n_threads = 1);

enum Codec : unsigned { kRaw, kBitpack, kHuffman, kRans, kCodecs };

// A valid stream of the bytes. Where the codec can't hold them, they are changed until it can.
Stream fresh_stream(Random& random, Codec codec, Stream& data);

Spans spans_of(Codec codec, const Stream& stream, std::uint64_t n);

// Makes the stream end where its head says that it does.
void repair_size(Codec codec, Stream& stream, std::uint64_t n);

// What a stream of codec rans says of its frequencies; they may add up to anything.
cmpk::Frequencies frequencies_of(const Stream& stream);

}  // namespace fuzz

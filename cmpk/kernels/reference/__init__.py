"""Backend reference: what each operation of `cmpk.kernels.interface` means, in NumPy.

The other backends give the same bytes and raise the same errors. This one is also the fallback
where no compiler was present, so it works on whole arrays and never on single elements.
"""

from cmpk.kernels.reference.bitpack import bitpack_decode, bitpack_encode
from cmpk.kernels.reference.code_lengths import byte_histogram, code_lengths
from cmpk.kernels.reference.codebook import codebook_expand
from cmpk.kernels.reference.feedback import feed_errors
from cmpk.kernels.reference.float_split import exponent_histograms, float_split, upper_bits_histogram
from cmpk.kernels.reference.huffman import huffman_check, huffman_decode, huffman_encode
from cmpk.kernels.reference.intervals import best_intervals
from cmpk.kernels.reference.jobs import decode_floats
from cmpk.kernels.reference.narrow import narrow, narrows_to, widen
from cmpk.kernels.reference.product import matrix_product
from cmpk.kernels.reference.rans import rans_decode, rans_encode
from cmpk.kernels.reference.row_costs import row_costs
from cmpk.kernels.reference.sparse import bitmask_expand, gaps_expand

__all__ = [
    "best_intervals",
    "bitmask_expand",
    "bitpack_decode",
    "bitpack_encode",
    "byte_histogram",
    "code_lengths",
    "codebook_expand",
    "decode_floats",
    "exponent_histograms",
    "feed_errors",
    "float_split",
    "gaps_expand",
    "huffman_check",
    "huffman_decode",
    "huffman_encode",
    "matrix_product",
    "narrow",
    "narrows_to",
    "rans_decode",
    "rans_encode",
    "row_costs",
    "upper_bits_histogram",
    "widen",
]

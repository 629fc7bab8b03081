"""Encodings: one tensor to named part tensors and back. One module an encoding, one spec page each."""

from cmpk.encodings.affine import Affine
from cmpk.encodings.alias import Alias
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Leaf, Part, Stored
from cmpk.encodings.bitmask import Bitmask
from cmpk.encodings.cast import Cast
from cmpk.encodings.codebook import Codebook
from cmpk.encodings.float_split import FloatSplit
from cmpk.encodings.gap_index import GapIndex
from cmpk.encodings.narrow import Narrow
from cmpk.encodings.product import Product
from cmpk.encodings.row_groups import RowGroups

__all__ = [
    "Affine",
    "Alias",
    "Bitmask",
    "Branch",
    "Cast",
    "Codebook",
    "Decoder",
    "Encoded",
    "Encoding",
    "FloatSplit",
    "GapIndex",
    "Leaf",
    "Narrow",
    "Part",
    "Product",
    "RowGroups",
    "Stored",
]

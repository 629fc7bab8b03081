"""Codecs: bytes to fewer bytes and back, exactly. One module a codec, one spec page each."""

from cmpk.codecs.base import Codec
from cmpk.codecs.bitpack import Bitpack
from cmpk.codecs.huffman import Huffman
from cmpk.codecs.rans import Rans
from cmpk.codecs.raw import Raw
from cmpk.codecs.zstd import Zstd

__all__ = ["Bitpack", "Codec", "Huffman", "Rans", "Raw", "Zstd"]

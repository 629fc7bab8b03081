"""Codec bitpack: bytes without their zero upper bits (spec/codecs/bitpack.md)."""

from __future__ import annotations

import numpy as np

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, Buffer
from cmpk.kernels.reference.buffers import bytes_of, check_range, writable_bytes_of

__all__ = ["BLOCK_SYMBOLS", "bitpack_decode", "bitpack_encode"]

BLOCK_SYMBOLS = 1024


def bitpack_encode(data: Buffer, width: int) -> U8:
    """The whole stream; ValueError if a byte of ``data`` is 2**width or more."""
    octets = bytes_of(data)
    if not 1 <= width <= 7:
        raise ValueError(f"width is {width}; it must be 1 .. 7")
    if octets.size and int(octets.max()) >> width:
        raise ValueError(f"byte {int(octets.max())} does not fit {width} bits")
    n_whole = octets.size // BLOCK_SYMBOLS * BLOCK_SYMBOLS
    parts = [np.array([width], np.uint8), _pack_blocks(octets[:n_whole].reshape(-1, BLOCK_SYMBOLS), width)]
    if n_whole < octets.size:
        last = np.zeros((1, -(-(octets.size - n_whole) // 8) * 8), np.uint8)
        last[0, : octets.size - n_whole] = octets[n_whole:]
        parts.append(_pack_blocks(last, width))
    return np.concatenate(parts)


def bitpack_decode(stream: Buffer, n: int, start: int, out: U8) -> None:
    """Decode symbols ``start .. start + len(out) - 1`` of ``n`` into ``out``.

    Raises
    ------
    CorruptStreamError
        If the width, the size or the padding of the last block is wrong.
    """
    target = writable_bytes_of(out)
    check_range(n, start, target.size)
    octets = bytes_of(stream)
    width = int(octets[0]) if octets.size else 0
    if not 1 <= width <= 7:
        raise CorruptStreamError(f"codec 'bitpack': width is {width}; it must be 1 .. 7")
    whole, rest = divmod(n, BLOCK_SYMBOLS)
    block_nbytes = width * BLOCK_SYMBOLS // 8
    expected = 1 + whole * block_nbytes + width * -(-rest // 8)
    if octets.size != expected:
        raise CorruptStreamError(
            f"codec 'bitpack': stream has {octets.size} bytes; {n} symbols of {width} bits take {expected}"
        )
    first = start // BLOCK_SYMBOLS
    stop = min(-(-(start + target.size) // BLOCK_SYMBOLS), whole)
    planes = octets[1 + first * block_nbytes : 1 + max(stop, first) * block_nbytes]
    symbols = _unpack_blocks(planes.reshape(-1, block_nbytes), width).reshape(-1)
    if rest:
        last = _unpack_blocks(octets[None, 1 + whole * block_nbytes :], width)[0]
        if last[rest:].any():
            raise CorruptStreamError("codec 'bitpack': the padding of the last block is not zero")
        if start + target.size > whole * BLOCK_SYMBOLS:
            symbols = np.concatenate([symbols, last])
    skipped = start - first * BLOCK_SYMBOLS
    target[:] = symbols[skipped : skipped + target.size]


def _fields(width: int) -> list[tuple[int, int]]:
    """(bits, shift) of each field of a symbol, largest first."""
    return [(nbits, width & (nbits - 1)) for nbits in (4, 2, 1) if width & nbits]


def _pack_blocks(blocks: U8, width: int) -> U8:
    """Pack uint8 [blocks, L], L a multiple of eight, to the bytes of all blocks."""
    n_blocks, n_symbols = blocks.shape
    planes = []
    for nbits, shift in _fields(width):
        fields = (blocks >> shift) & ((1 << nbits) - 1)
        fields = fields.reshape(n_blocks, 8 // nbits, n_symbols * nbits // 8)
        shifts = np.arange(0, 8, nbits, dtype=np.uint8)[None, :, None]
        planes.append(np.bitwise_or.reduce(fields << shifts, axis=1))
    return np.concatenate(planes, axis=1).reshape(-1)


def _unpack_blocks(packed: U8, width: int) -> U8:
    """Undo `_pack_blocks`: uint8 [blocks, width * L / 8] to uint8 [blocks, L]."""
    n_blocks, n_symbols = packed.shape[0], packed.shape[1] * 8 // width
    symbols = np.zeros((n_blocks, n_symbols), np.uint8)
    offset = 0
    for nbits, shift in _fields(width):
        plane_nbytes = n_symbols * nbits // 8
        plane = packed[:, None, offset : offset + plane_nbytes]
        shifts = np.arange(0, 8, nbits, dtype=np.uint8)[None, :, None]
        fields = (plane >> shifts) & np.uint8((1 << nbits) - 1)
        symbols |= fields.reshape(n_blocks, n_symbols) << np.uint8(shift)
        offset += plane_nbytes
    return symbols

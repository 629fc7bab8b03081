"""Floats as bit patterns (spec/encodings/float_split.md and narrow.md), one element at a time."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .assemble import Object, branch, leaf
from .streams import noise

__all__ = ["LAYOUTS", "SplitParts", "float_split", "numbers", "pack", "special", "split", "widen"]

LAYOUTS = {
    "F8_E4M3": (4, 3),
    "F8_E5M2": (5, 2),
    "F8_E4M3FNUZ": (4, 3),
    "F8_E5M2FNUZ": (5, 2),
    "F16": (5, 10),
    "BF16": (8, 7),
    "F32": (8, 23),
    "F64": (11, 52),
}
"""Exponent and mantissa bits."""

SplitParts = dict[str, bytes]


def nbits_of(dtype: str) -> int:
    """Bits of an element."""
    return 1 + sum(LAYOUTS[dtype])


def pack(dtype: str, elements: Sequence[int]) -> bytes:
    """The bytes of a tensor of bit patterns."""
    return b"".join(element.to_bytes(nbits_of(dtype) // 8, "little") for element in elements)


def special(dtype: str) -> list[int]:
    """Zeros, subnormals, the ends of the normal numbers, infinities and NaNs, of both signs."""
    exponent, mantissa = LAYOUTS[dtype]
    one = 1 << mantissa
    top = (1 << exponent) - 1 << mantissa
    magnitudes = [
        0,
        1,
        one >> 1,
        one - 1,
        one,
        one | 1,
        (1 << exponent - 1) - 1 << mantissa,
        top - 1,
        top,
        top | 1,
        top | one >> 1,
        top | (one >> 1) - 1,
        top | one - 1,
    ]
    sign = 1 << exponent + mantissa
    return [element | s for element in magnitudes for s in (0, sign)]


def numbers(dtype: str, n: int, seed: int = 1) -> list[int]:
    """Bit patterns whose exponents are as skewed as those of weights."""
    exponent, mantissa = LAYOUTS[dtype]
    nbytes = nbits_of(dtype) // 8
    random = noise(n * (nbytes + 2), seed)
    out = []
    for at in range(0, len(random), nbytes + 2):
        bits = int.from_bytes(random[at : at + nbytes], "little")
        # The number of leading ones of a random byte falls off like the exponents of weights do.
        drop = f"{random[at + nbytes]:08b}0".index("0")
        upper = (1 << exponent - 1) - 2 - drop
        low = bits & (1 << mantissa) - 1
        out.append((bits >> exponent + mantissa) << exponent + mantissa | upper << mantissa | low)
    return out


def split(dtype: str, elements: Sequence[int], k: int = 0, base: int = 0) -> tuple[Object, SplitParts]:
    """Parameters and parts of ``float_split``; what does not fit becomes an exception."""
    exponent, mantissa = LAYOUTS[dtype]
    lower = mantissa - k
    rest_nbits = 1 + lower
    high, rests, index, upper = bytearray(), [], [], []
    for i, element in enumerate(elements):
        h = element >> lower & (1 << exponent + k) - 1
        if not 0 <= h - base < 256:
            index.append(i)
            upper.append(h)
        # What stands in place of an exception has no meaning.
        high.append(h - base if 0 <= h - base < 256 else 0xEE)
        rests.append(element >> exponent + mantissa << lower | element & (1 << lower) - 1)
    parts = {"high": bytes(high)}
    for j in range((rest_nbits + 7) // 8):
        parts[f"rest{j}"] = bytes(rest >> 8 * j & 255 for rest in rests)
    if index:
        parts["exception_index"] = struct.pack(f"<{len(index)}Q", *index)
        parts["exception_high"] = struct.pack(f"<{len(upper)}H", *upper)
    return {"base": base, "exceptions": len(index), "mantissa_bits": k}, parts


def float_split(dtype: str, elements: Sequence[int], k: int = 0, base: int = 0, **nodes: Object) -> Object:
    """A branch; every part raw but those given."""
    params, parts = split(dtype, elements, k, base)
    return branch(
        "float_split", params, **({name: leaf("raw", part) for name, part in parts.items()} | nodes)
    )


def widen(narrow: str, wide: str, element: int) -> int:
    """The same number in a wider type; by its value where it is one."""
    exponent, mantissa = LAYOUTS[narrow]
    wide_exponent, wide_mantissa = LAYOUTS[wide]
    sign = element >> exponent + mantissa
    if element >> mantissa & (1 << exponent) - 1 == (1 << exponent) - 1:
        kept = (element & (1 << mantissa) - 1) << wide_mantissa - mantissa
        return (sign << wide_exponent | (1 << wide_exponent) - 1) << wide_mantissa | kept
    if narrow == "BF16":
        element, narrow = element << 16, "F32"
    (value,) = struct.unpack({"F16": "<e", "F32": "<f"}[narrow], pack(narrow, [element]))
    return int.from_bytes(struct.pack({"F32": "<f", "F64": "<d"}[wide], value), "little")

"""Products of codes and scales, one number at a time (spec/encodings/affine.md and cast.md)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction

from . import floats
from .assemble import Object, branch
from .cases import raw

__all__ = ["affine", "cast", "number", "rounded", "scale_numbers"]

_BIAS = {"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 16}
_TOP = {"F8_E4M3": 0x7E, "F8_E4M3FNUZ": 0x7F, "F8_E5M2FNUZ": 0x7F}


def number(dtype: str, bits: int) -> Fraction:
    """The value of a finite float, by the definition of its fields."""
    exponent_nbits, mantissa_nbits = floats.LAYOUTS[dtype]
    exponent = bits >> mantissa_nbits & (1 << exponent_nbits) - 1
    mantissa = bits & (1 << mantissa_nbits) - 1
    bias = _BIAS.get(dtype, (1 << exponent_nbits - 1) - 1)
    units = mantissa | (1 << mantissa_nbits if exponent else 0)
    magnitude = units * Fraction(2) ** (max(exponent, 1) - bias - mantissa_nbits)
    return -magnitude if bits >> exponent_nbits + mantissa_nbits else magnitude


def rounded(value: Fraction, dtype: str, *, is_negative: bool) -> int:
    """The bits of the nearest float; ``is_negative`` is the sign of a zero.

    The magnitudes of a type ascend with their bits: search for the last that is not above.
    """
    exponent_nbits, mantissa_nbits = floats.LAYOUTS[dtype]
    top = _TOP.get(dtype, (1 << exponent_nbits) - 1 << mantissa_nbits)
    magnitude = abs(value)
    low, high = 0, top + 1
    while high - low > 1:
        middle = (low + high) // 2
        # By its fields even infinity has a value: that of the next number, were the exponents to go on.
        low, high = (middle, high) if number(dtype, middle) <= magnitude else (low, middle)
    if low < top or dtype in _TOP:
        to_low, to_next = magnitude - number(dtype, low), number(dtype, low + 1) - magnitude
        low += to_next < to_low or (to_next == to_low and low % 2)
    low = min(low, top)
    has_sign = is_negative and (low > 0 or not dtype.endswith("FNUZ"))
    return low | has_sign << exponent_nbits + mantissa_nbits


def scale_numbers(dtype: str, data: bytes) -> list[Fraction]:
    """The values of scales."""
    if dtype == "F8_E8M0":
        return [Fraction(2) ** (octet - 127) for octet in data]
    nbytes = 2 if dtype in ("F16", "BF16") else 4
    return [
        number(dtype, int.from_bytes(data[at : at + nbytes], "little")) for at in range(0, len(data), nbytes)
    ]


def product(distance: Fraction | int, scale: Fraction, dtype: str, *, minus: bool = False) -> int:
    """The bits of one element; ``minus`` is the sign of a product that is zero."""
    exact = distance * scale
    minus = exact < 0 or (exact == 0 and minus)
    single = rounded(exact, "F32", is_negative=minus)
    if single & 0x7FFFFFFF == 0x7F800000:
        # Infinity, to be rounded on: any number that no type reaches.
        return rounded(Fraction(-1 if minus else 1) * 2**2000, dtype, is_negative=minus)
    return rounded(number("F32", single), dtype, is_negative=minus)


def affine(
    dtype: str,
    shape: list[int],
    codes: Sequence[int],
    scale: bytes,
    zero_point: Sequence[int] | None = None,
    *,
    axis: int = -1,
    group_size: int = 0,
    offset: int = 0,
    scale_dtype: str = "F32",
    **nodes: Object,
) -> tuple[bytes, Object]:
    """The bytes of a tensor, and its branch; codes that do not fit become exceptions."""
    scales = scale_numbers(scale_dtype, scale)
    signs = [s < 0 or (s == 0 and is_negative_zero(scale_dtype, scale, i)) for i, s in enumerate(scales)]
    index = [i for i, code in enumerate(codes) if not 0 <= code - offset < 256]
    # What stands in place of an exception has no meaning.
    qdata = bytes(code - offset if 0 <= code - offset < 256 else 0xEE for code in codes)
    elements = []
    for i, code in enumerate(codes):
        s = scale_of(i, shape, axis, group_size)
        distance = code - (zero_point[s] if zero_point else 0)
        minus = signs[s] != (distance < 0)
        elements.append(product(distance, scales[s], dtype, minus=minus))
    parts = {"qdata": raw(qdata)}
    if index:
        parts["exception_index"] = raw(struct.pack(f"<{len(index)}Q", *index))
        parts["exception_code"] = raw(struct.pack(f"<{len(index)}i", *(codes[i] for i in index)))
    parts["scale"] = raw(scale)
    if zero_point is not None:
        parts["zero_point"] = raw(struct.pack(f"<{len(zero_point)}i", *zero_point))
    params = {
        "axis": axis,
        "exceptions": len(index),
        "group_size": group_size,
        "offset": offset,
        "scale_dtype": scale_dtype,
        "zero_point": int(zero_point is not None),
    }
    return floats.pack(dtype, elements), branch("affine", params, **(parts | nodes))


def cast(
    dtype: str,
    shape: list[int],
    narrow: str,
    octets: bytes,
    scale: bytes,
    *,
    axis: int = -1,
    group_size: int = 0,
    scale_dtype: str = "F32",
    **nodes: Object,
) -> tuple[bytes, Object]:
    """The bytes of a tensor, and its branch."""
    scales = scale_numbers(scale_dtype, scale)
    signs = [s < 0 or (s == 0 and is_negative_zero(scale_dtype, scale, i)) for i, s in enumerate(scales)]
    elements = []
    for i, value in enumerate(octets):
        s = scale_of(i, shape, axis, group_size)
        elements.append(_cast_one(dtype, narrow, value, scales[s], scale_is_negative=signs[s]))
    params = {"axis": axis, "dtype": narrow, "group_size": group_size, "scale_dtype": scale_dtype}
    parts = {"values": raw(octets), "scale": raw(scale)} | nodes
    return floats.pack(dtype, elements), branch("cast", params, **parts)


def _cast_one(dtype: str, narrow: str, value: int, scale: Fraction, *, scale_is_negative: bool) -> int:
    """The bits of one element."""
    exponent_nbits, mantissa_nbits = floats.LAYOUTS[dtype]
    infinity = (1 << exponent_nbits) - 1 << mantissa_nbits
    magnitude = value & 127
    is_infinite = narrow == "F8_E5M2" and magnitude == 0x7C
    is_nan = magnitude == 127 if narrow == "F8_E4M3" else magnitude > 0x7C
    if is_nan or (is_infinite and scale == 0):
        return infinity | 1 << mantissa_nbits - 1
    minus = (value >= 128) != scale_is_negative
    if is_infinite:
        return infinity | minus << exponent_nbits + mantissa_nbits
    return product(number(narrow, value), scale, dtype, minus=minus)


def is_negative_zero(dtype: str, data: bytes, index: int) -> bool:
    """Whether the sign of a scale is set."""
    if dtype == "F8_E8M0":
        return False
    nbytes = 2 if dtype in ("F16", "BF16") else 4
    return data[(index + 1) * nbytes - 1] >= 0x80


def scale_of(i: int, shape: list[int], axis: int, group_size: int) -> int:
    """The number of an element's scale, by its indices."""
    indices: list[int] = []
    for size in reversed(shape):
        indices.insert(0, i % size)
        i //= size
    if group_size:
        line = 0
        for at, size in zip(indices[:-1], shape[:-1], strict=True):
            line = line * size + at
        return line * -(-shape[-1] // group_size) + indices[-1] // group_size
    return 0 if axis == -1 else indices[axis]

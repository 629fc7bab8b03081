"""Valid vectors: products of matrices (spec/encodings/product.md)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from .assemble import Entry, Object, branch, leaf, manifest, one, tensor
from .cases import Valid, raw
from .streams import huffman, noise

__all__ = ["product_page"]

LETTERS = {"F16": "e", "F32": "f", "F64": "d"}


def float32(number: float) -> float:
    """The nearest float32: a double holds the product of two exactly, and their sum well enough."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)


def packed(dtype: str, numbers: list[float]) -> bytes:
    """Numbers of a type; those that are not exactly of it are rounded, NaN is the one of the page."""
    out = b""
    for number in numbers:
        if math.isnan(number):
            out += bytes.fromhex(
                {"F16": "007e", "BF16": "c07f", "F32": "0000c07f", "F64": "000000000000f87f"}[dtype]
            )
        elif dtype == "BF16":
            bits = int.from_bytes(struct.pack("<f", number), "little")
            out += (bits + 0x7FFF + (bits >> 16 & 1) >> 16).to_bytes(2, "little")
        else:
            try:
                out += struct.pack("<" + LETTERS[dtype], number)
            except OverflowError:
                out += struct.pack("<" + LETTERS[dtype], math.copysign(math.inf, number))
    return out


def product(left: list[list[float]], right: list[list[float]]) -> list[float]:
    """The sums of the page, in double precision and rounded at each step."""
    found = []
    for row in left:
        for j in range(len(right[0])):
            s = 0.0
            for k, factor in enumerate(row):
                s = float32(s + float32(factor * right[k][j]))
            found.append(s)
    return found


def flat(matrix: list[list[float]]) -> list[float]:
    """Row after row."""
    return [number for row in matrix for number in row]


def matrices(m: int, r: int, n: int, seed: int) -> tuple[list[list[float]], list[list[float]]]:
    """Numbers that every type has, and whose sums none but the widest has."""
    numbers = [(byte - 128) * 2.0 ** (byte % 7 - 9) for byte in noise(m * r + r * n, seed)]
    left = [numbers[i * r : i * r + r] for i in range(m)]
    rest = numbers[m * r :]
    return left, [rest[k * n : k * n + n] for k in range(r)]


def of(
    dtype: str, factors: str, shape: list[int], left: list[list[float]], right: list[list[float]]
) -> Entry:
    """A tensor, with its matrices stored raw."""
    r = len(right)
    parts = {"left": raw(packed(factors, flat(left))), "right": raw(packed(factors, flat(right)))}
    node: Object = branch("product", {"dtype": factors, "rank": r}, **parts)
    data = packed(dtype, product(left, right))
    return tensor(f"{dtype} {factors} {shape} {r}", dtype, shape, data, node)


def product_page() -> Iterator[Valid]:
    """encodings/product.md."""
    entries = [
        of(dtype, factors, [5, 3, 2], *matrices(5, 4, 6, seed))
        for seed, dtype in enumerate(("F16", "BF16", "F32", "F64"))
        for factors in ("F32", "F16", "BF16")
    ]
    yield Valid("product-dtypes", manifest(entries))
    yield Valid("product-larger", manifest([of("F32", "F32", [19, 70], *matrices(19, 33, 70, 9))]))
    # A fused multiply and add would keep the 2^-24 squared; sums from the other end would keep the 1.
    one_and_a_bit = 1 + 2.0**-12
    twice = [[one_and_a_bit, -1.0], [2.0**24, 1.0], [1.0, 2.0**24]]
    right = [[one_and_a_bit, 1.0], [1 + 2.0**-11, -(2.0**24)]]
    yield Valid("product-rounded-twice-in-order", manifest([of("F64", "F32", [3, 2], twice, right)]))
    far = [[2.0**120, 2.0**-100], [-(2.0**120), 2.0**-149], [math.inf, 0.0]]
    other = [[2.0**10, 0.0, 2.0**-140], [2.0**-40, 2.0**-30, 1.0]]
    yield Valid(
        "product-infinities-nans-and-subnormals",
        manifest([of(dtype, "F32", [3, 3], far, other) for dtype in ("F16", "BF16", "F32", "F64")]),
    )
    zeros = [of("F32", "F32", [2, 2], [[-0.0], [0.0]], [[1.0, -1.0]])]
    empty = branch("product", {"dtype": "F16", "rank": 2}, left=raw(b""), right=raw(bytes(12)))
    zeros.append(tensor("empty", "F32", [0, 3], b"", empty))
    yield Valid("product-zeros-and-none", manifest(zeros))
    left, right = matrices(4, 2, 3, 5)
    halves = packed("F16", flat(left))
    coded = leaf("huffman", huffman(halves, dict.fromkeys(range(256), 8)))
    node = branch("product", {"dtype": "F16", "rank": 2}, left=coded, right=raw(packed("F16", flat(right))))
    yield Valid("product-of-coded-parts", one("BF16", [4, 3], packed("BF16", product(left, right)), node))

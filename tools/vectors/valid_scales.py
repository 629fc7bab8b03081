"""Valid vectors: numbers with scales (spec/encodings/affine.md and cast.md)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from typing import Any

from . import floats
from .assemble import Entry, branch, leaf, manifest, tensor
from .cases import STEEP, Valid
from .scales import affine, cast
from .streams import bitpack, frame, huffman, noise, rans, raw_block, skewed, zstd

__all__ = ["affine_page", "cast_page"]

_MAX_CODE = 1 << 24


def affine_page() -> Iterator[Valid]:
    """encodings/affine.md."""

    def of(name: str, dtype: str, shape: list[int], *args: Any, **options: Any) -> Entry:
        data, node = affine(dtype, shape, *args, **options)
        return tensor(name, dtype, shape, data, node)

    codes = [code - 128 for code in range(256)]
    # The last three take the codes to the ends of all types, to overflow and to underflow.
    scales = [0.0625, 0.1, 3e-4, 3.5, 1000.0, 3e36, 1e-39, -7e-9, 0.0, -0.0]
    for dtype in floats.LAYOUTS:
        entries = [
            of(str(at), dtype, [256], codes, struct.pack("<f", scale), offset=-128)
            for at, scale in enumerate(scales)
        ]
        yield Valid(f"affine-{dtype}", manifest(entries))
    yield Valid("affine-rounding", manifest(list(_ties(of))))
    four = struct.pack("<4f", 0.5, 0.1, -3.0, 1e-3)
    signed = [code - 128 for code in noise(48)]
    entries = [
        of("0", "BF16", [4, 12], signed, four, axis=0, offset=-128),
        of("1", "F16", [3, 4, 4], signed, four, axis=1, offset=-128),
        of("2", "F32", [12, 4], signed, four, axis=1, offset=-128),
        of("one dimension", "F64", [4], signed[:4], four, axis=0, offset=-128),
        of("one row", "F8_E5M2", [4, 1], signed[:4], four, axis=0, offset=-128),
        of("asymmetric", "BF16", [4, 12], list(noise(48)), four, [128, 0, 255, -70000], axis=0),
    ]
    yield Valid("affine-axis", manifest(entries))
    twelve = struct.pack("<12f", *(0.01 * at for at in range(12)))
    entries = [
        of("even", "BF16", [4, 12], signed, twelve, group_size=4, offset=-128),
        of("last short", "F32", [3, 4, 4], signed[:48], twelve * 2, group_size=3, offset=-128),
        of("of one", "F16", [2, 6], signed[:12], twelve, group_size=1, offset=-128),
        of("larger than a line", "F16", [12, 4], signed, twelve, group_size=1 << 48, offset=-128),
        of("asymmetric", "BF16", [2, 12], list(noise(24)), twelve[:16], [8, 7, 0, -1], group_size=6),
    ]
    yield Valid("affine-groups", manifest(entries))
    half = struct.pack("<6e", 0.1, 1.0, 6e-8, 65504.0, -2.5, 0.0)
    brain = struct.pack("<6H", 0x3DCD, 0x3F80, 0x0001, 0x7F7F, 0xC020, 0x8000)
    powers = bytes([120, 127, 0, 254, 1, 100])
    entries = [
        of(scale_dtype, "F32", [6, 7], signed[:42], scale, axis=0, offset=-128, scale_dtype=scale_dtype)
        for scale_dtype, scale in (("F16", half), ("BF16", brain), ("F8_E8M0", powers))
    ]
    yield Valid("affine-scale-dtypes", manifest(entries))
    wide = [0, 300, -1, 255, 256, _MAX_CODE, -_MAX_CODE, 7]
    unit = struct.pack("<f", 1.0)
    far = [3 * _MAX_CODE, _MAX_CODE, _MAX_CODE + 255, 255 - _MAX_CODE]
    entries = [
        of("both sides", "F32", [2, 4], wide, unit),
        of("all", "BF16", [3], [1000, 2000, 3000], unit, offset=-_MAX_CODE),
        of("highest offset", "F64", [3], [_MAX_CODE - 255, _MAX_CODE, 5], unit, offset=_MAX_CODE - 255),
        of("far zero points", "F32", [2, 2], far, unit * 2, [2 * _MAX_CODE, 255], axis=0, offset=_MAX_CODE),
        of("far codes", "F32", [2], [_MAX_CODE + 9, 9], unit, [9]),
    ]
    yield Valid("affine-exceptions", manifest(entries))
    entries = [
        of("no rows", "F32", [0, 3], [], b"", axis=0),
        of("no columns", "F32", [3, 0], [], four[:12], axis=0),
        of("no groups", "BF16", [3, 0], [], b"", group_size=2),
        of("no dimensions", "F16", [], [7], unit),
        of("nothing", "F64", [0], [], unit),
    ]
    yield Valid("affine-empty", manifest(entries))
    yield Valid("affine-of-coded-parts", manifest(list(_coded(of))))


def cast_page() -> Iterator[Valid]:
    """encodings/cast.md."""

    def of(name: str, dtype: str, shape: list[int], *args: Any, **options: Any) -> Entry:
        data, node = cast(dtype, shape, *args, **options)
        return tensor(name, dtype, shape, data, node)

    every = bytes(range(256))
    scales = [1.0, -0.5, 0.1, 3e36, 3e-39, 1e-5, 0.0, -0.0]
    for dtype in ("F16", "BF16", "F32", "F64"):
        entries = [
            of(f"{narrow} {at}", dtype, [256], narrow, every, struct.pack("<f", scale))
            for narrow in ("F8_E4M3", "F8_E5M2")
            for at, scale in enumerate(scales)
        ]
        yield Valid(f"cast-{dtype}", manifest(entries))
    values = noise(48)
    four = struct.pack("<4e", 0.5, 0.1, -3.0, 1e-3)
    powers = bytes([127, 0, 254, 120, 1, 130, 100, 127])
    data = skewed(900, STEEP)
    coded = leaf("huffman", huffman(data, STEEP, 12))
    entries = [
        of("rows", "BF16", [4, 12], "F8_E4M3", values, four, axis=0, scale_dtype="F16"),
        of("columns", "F32", [12, 4], "F8_E5M2", values, four, axis=1, scale_dtype="F16"),
        of("groups", "BF16", [2, 24], "F8_E4M3", values, powers, group_size=7, scale_dtype="F8_E8M0"),
        of("no rows", "F32", [0, 4], "F8_E4M3", b"", b"", axis=0),
        of("no dimensions", "F16", [], "F8_E5M2", b"\x3c", struct.pack("<f", 2.0)),
        of("coded", "F16", [30, 30], "F8_E4M3", data, struct.pack("<f", 0.3), values=coded),
    ]
    yield Valid("cast-layouts", manifest(entries))
    split = floats.float_split("F8_E4M3", list(values))
    entries = [of("split", "BF16", [4, 12], "F8_E4M3", values, four[:4], values=split, scale_dtype="F32")]
    yield Valid("cast-of-split-values", manifest(entries))


def _ties(of: Callable[..., Entry]) -> Iterator[Entry]:
    """Products half-way between two numbers, of normal and of subnormal ones."""
    smallest = {
        "F8_E4M3": -9,
        "F8_E5M2": -16,
        "F8_E4M3FNUZ": -10,
        "F8_E5M2FNUZ": -17,
        "F16": -24,
        "BF16": -133,
        "F32": -149,
    }
    for dtype, power in smallest.items():
        for place in range(1, min(3, 150 + power)):
            half = struct.pack("<f", math.ldexp(1, power - place))
            yield of(f"{dtype} {place}", dtype, [40], range(-20, 20), half, offset=-20)
    for dtype, code in (("F8_E4M3", 16), ("F8_E5M2", 8), ("F16", 2048), ("BF16", 256)):
        yield of(
            f"{dtype} normal", dtype, [100], range(code, code + 100), struct.pack("<f", 1.0), offset=code
        )
    # Of one and a half units of the last place and the like; a second rounding, to BF16, sees the first.
    for dtype in ("F32", "BF16"):
        next_to_one = struct.pack("<I", 0x3F800001)
        yield of(f"{dtype} product", dtype, [256], range(256), next_to_one)
        halves = [code << 9 | 257 for code in range(100, 200)]
        yield of(f"{dtype} twice", dtype, [100], halves, struct.pack("<I", 0x3F7FFFFF), offset=halves[0])
    largest = [("F8_E4M3", 448, 32), ("F8_E4M3FNUZ", 240, 16), ("F8_E5M2FNUZ", 57344, 8192)]
    largest += [("F8_E5M2", 57344, 8192), ("F16", 65504, 32), ("BF16", 65280, 256)]
    for dtype, most, step in largest:
        tie = 2 * most + step
        codes = [tie - 1, tie, tie + 1, -tie, 1 - tie]
        scale = 0.5 * 2.0 ** (112 if dtype == "BF16" else 0)
        yield of(f"{dtype} largest", dtype, [5], codes, struct.pack("<f", scale), offset=tie - 100)


def _coded(of: Callable[..., Entry]) -> Iterator[Entry]:
    """Codes in streams of every kind that a fused reader meets, and within groups of rows."""
    data = skewed(3000, STEEP)
    codes = [octet - 5 for octet in data]
    thirty = struct.pack("<30e", *(0.001 * (at + 1) for at in range(30)))
    options: dict[str, Any] = {"axis": 0, "offset": -5, "scale_dtype": "F16"}
    streams = {
        "huffman": leaf("huffman", huffman(data, STEEP, 12)),
        "bitpack": leaf("bitpack", bitpack(data, 4)),
        "rans": leaf("rans", rans(data, {symbol: 4096 >> length for symbol, length in STEEP.items()}, 12)),
        "zstd": leaf("zstd", zstd([frame(3000, raw_block(data))])),
    }
    for name, stream in streams.items():
        yield of(name, "BF16", [30, 100], codes, thirty, **options, qdata=stream)
    groups = bytes(i % 3 == 1 for i in range(30))
    rows: dict[int, bytes] = {}
    nodes = {}
    for group in (0, 1):
        members = [row for row in range(30) if groups[row] == group]
        chosen = [code for row in members for code in codes[100 * row : 100 * row + 100]]
        scale = b"".join(thirty[2 * row : 2 * row + 2] for row in members)
        part, nodes[str(group)] = affine("BF16", [len(members), 100], chosen, scale, **options)
        rows |= {row: part[200 * at : 200 * at + 200] for at, row in enumerate(members)}
    node = branch("row_groups", {"rows": [20, 10]}, group=leaf("bitpack", bitpack(groups, 1)), **nodes)
    yield tensor("rows", "BF16", [30, 100], b"".join(rows[row] for row in range(30)), node)

"""The encodings of cmpk against the kit that plugins use."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cmpk import kernels
from cmpk.dtypes import DTYPES
from cmpk.encodings import (
    Affine,
    Bitmask,
    Cast,
    Codebook,
    Encoded,
    FloatSplit,
    GapIndex,
    Narrow,
    Part,
    Product,
    RowGroups,
)
from cmpk.encodings.cast import NARROW
from cmpk.encodings.narrow import NARROWER
from cmpk.encodings.product import FACTOR_DTYPES
from cmpk.encodings.scales import SCALE_DTYPES
from cmpk.kernels.interface import FLOAT_LAYOUTS, PRODUCT_DTYPES
from cmpk.registry import builtin_registry
from cmpk.testing import check_encoding, tensor_parts


def test_every_encoding_of_cmpk_is_checked_here() -> None:
    # An alias has no bytes of its own; its rules are those of the archive.
    checked = {
        "affine",
        "bitmask",
        "cast",
        "codebook",
        "float_split",
        "gap_index",
        "narrow",
        "product",
        "row_groups",
    }
    assert set(builtin_registry().encodings) == {"alias"} | checked


@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
def test_affine_conforms(scale_dtype: str) -> None:
    """Codes of any tensor's bytes: what they decode to is another one, so only ranges are compared."""

    def encode(part: Part) -> Encoded:
        codes, layout = quantized(part, scale_dtype)
        return Affine().encode(codes, part.spec, **layout, scale_dtype=scale_dtype)

    check_encoding(Affine(), encode, parts=tensor_parts(dtypes=FLOAT_LAYOUTS), lossless=False)


@pytest.mark.parametrize("narrow", NARROW)
def test_cast_conforms(narrow: str) -> None:
    """Values of any bits: what they decode to is another tensor, so only ranges are compared."""

    def encode(part: Part) -> Encoded:
        values = part.data[: part.spec.numel].copy()
        layout = quantized(part, "F8_E8M0")[1]
        del layout["zero_point"]
        return Cast().encode(values, narrow, part.spec, **layout, scale_dtype="F8_E8M0")

    check_encoding(Cast(), encode, parts=tensor_parts(dtypes=("F16", "BF16", "F32", "F64")), lossless=False)


def quantized(part: Part, scale_dtype: str) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Codes made of the bytes of a tensor, some of them exceptions, and scales of one layout or another."""
    shape, rng = part.spec.shape, np.random.default_rng(part.spec.nbytes)
    codes = part.data[: part.spec.numel].astype(np.int32)
    codes[rng.random(codes.size) < 0.02] -= 70000
    layouts = [(-1, 0, 1)] + [(axis, 0, size) for axis, size in enumerate(shape)]
    if shape:
        size = int(rng.integers(1, 2 * shape[-1] + 2))
        layouts.append((-1, size, math.prod(shape[:-1]) * -(-shape[-1] // size)))
    axis, group_size, n_scales = layouts[rng.integers(len(layouts))]
    scale = np.ldexp(np.float32(1), rng.integers(-14, 15, n_scales)).astype(np.float32)
    zero = rng.integers(-999, 999, n_scales).astype(np.int32) if rng.random() < 0.5 else None
    return codes, {"scale": scale, "zero_point": zero, "axis": axis, "group_size": group_size}


def test_codebook_conforms() -> None:
    def encode(part: Part) -> Encoded | None:
        return Codebook().encode(part.data, part.spec) if DTYPES[part.spec.dtype].nbytes else None

    check_encoding(Codebook(), encode)


@pytest.mark.parametrize("vector", [0, 1, 2, 8])
def test_codebook_of_vectors_conforms(vector: int) -> None:
    """Codes of any tensor's bytes, which decode to another one."""

    def encode(part: Part) -> Encoded | None:
        shape, nbytes = part.spec.shape, DTYPES[part.spec.dtype].nbytes
        if not nbytes or not shape or (vector and shape[-1] % vector):
            return None
        group_rows = part.spec.numel % 4 if vector else 0
        n_books = -(-shape[0] // group_rows) if group_rows else 1
        size = 1 + part.spec.numel % (250 if vector == 1 else 400)
        n_codes = part.spec.numel // vector if vector else shape[0]
        codes = (
            np.resize(part.data.astype(np.int64), n_codes) % size
            if part.data.size
            else np.zeros(n_codes, int)
        )
        centroids = np.random.default_rng(size).bytes(
            n_books * size * nbytes * (vector or math.prod(shape[1:]))
        )
        return Codebook().encode_codes(
            codes, np.frombuffer(centroids, np.uint8), part.spec, size, vector=vector, group_rows=group_rows
        )

    check_encoding(Codebook(), encode, lossless=False)


@pytest.mark.parametrize(("mantissa_bits", "base"), [(0, 0), (3, 900), (10, 60000)])
def test_float_split_conforms(mantissa_bits: int, base: int) -> None:
    def encode(part: Part) -> Encoded:
        exponent_nbits, mantissa_nbits = FLOAT_LAYOUTS[part.spec.dtype]
        bits = min(mantissa_bits, mantissa_nbits, 16 - exponent_nbits)
        highest = max(0, (1 << (exponent_nbits + bits)) - 256)
        return FloatSplit().encode(part.data, part.spec, bits, min(base, highest))

    check_encoding(FloatSplit(), encode, parts=tensor_parts(dtypes=FLOAT_LAYOUTS))


def test_narrow_conforms() -> None:
    def encode(part: Part) -> Encoded | None:
        spec, data = part.spec, part.data
        for narrower in NARROWER[spec.dtype]:
            rows = max(1, spec.numel)
            if kernels.active().narrows_to(data, spec.dtype, narrower, rows).all():
                return Narrow().encode(data, spec, narrower)
        return None

    check_encoding(Narrow(), encode, parts=tensor_parts(dtypes=NARROWER))


def test_row_groups_conforms() -> None:
    def encode(part: Part) -> Encoded | None:
        spec, data = part.spec, part.data
        n_rows = spec.shape[0] if spec.shape else 0
        if not n_rows or spec.numel // n_rows * DTYPES[spec.dtype].nbits % 8:
            return None
        drawn = np.random.default_rng(n_rows).integers(0, 4, n_rows)
        return RowGroups().encode(data, spec, np.unique(drawn, return_inverse=True)[1].astype(np.uint8))

    check_encoding(RowGroups(), encode)


@pytest.mark.parametrize("stride", [1, 5, 64])
def test_bitmask_conforms(stride: int) -> None:
    def encode(part: Part) -> Encoded | None:
        if not DTYPES[part.spec.dtype].nbytes:
            return None
        return Bitmask().encode(part.data, part.spec, part.spec.numel % 3, stride)

    check_encoding(Bitmask(), encode)


@pytest.mark.parametrize("max_gap", [1, 15, 255])
def test_gap_index_conforms(max_gap: int) -> None:
    def encode(part: Part) -> Encoded | None:
        if not DTYPES[part.spec.dtype].nbytes:
            return None
        return GapIndex().encode(part.data, part.spec, part.spec.numel % 3, max_gap)

    check_encoding(GapIndex(), encode)


@pytest.mark.parametrize("dtype", FACTOR_DTYPES)
def test_product_conforms(dtype: str) -> None:
    """Matrices of any bits, whatever the tensor."""

    def encode(part: Part) -> Encoded | None:
        spec = part.spec
        if len(spec.shape) < 2:
            return None
        rank = 1 + spec.numel % 5
        rng = np.random.default_rng(spec.nbytes)
        left, right = (
            rng.integers(0, 256, n * rank * DTYPES[dtype].nbytes, np.uint8)
            for n in (spec.shape[0], math.prod(spec.shape[1:]))
        )
        return Product().encode(left, right, spec, rank, dtype)

    check_encoding(Product(), encode, parts=tensor_parts(dtypes=PRODUCT_DTYPES), lossless=False)

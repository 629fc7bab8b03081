"""affine: every element is the product of its code and scale, to the last bit; other tensors are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cmpk.archive import Archive
from cmpk.codecs import Bitpack, Codec, Huffman, Rans, Zstd
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Affine, Encoded, RowGroups
from cmpk.encodings.affine import MAX_CODE
from cmpk.encodings.scales import SCALE_DTYPES
from cmpk.errors import CorruptStreamError, FormatError, PassError
from cmpk.kernels.interface import FLOAT_LAYOUTS
from tests.builders import Node, archive, branch, branch_of, leaf, tensor

CODECS: list[Codec | None] = [None, Huffman(), Rans(), Bitpack(), Zstd()]


def opened(dtype: str, shape: tuple[int, ...], node: Node) -> Archive:
    return Archive(archive([tensor("a", dtype, list(shape), node)]))


def decoded(dtype: str, shape: tuple[int, ...], encoded: Encoded, codec: Codec | None = None) -> bytes:
    return opened(dtype, shape, branch_of("affine", encoded, codec)).read("a").tobytes()


def products(codes: NDArray[Any], scale: NDArray[np.float32], dtype: str) -> bytes:
    """What NumPy makes of codes and a scale for each, in a type that it has."""
    with np.errstate(over="ignore", under="ignore"):
        product = codes.astype(np.float32) * scale
        if dtype == "BF16":
            bits = product.view(np.uint32).astype(np.uint64)
            return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype("<u2").tobytes()
        return product.astype(DTYPES[dtype].numpy_name).tobytes()


def exact_scales(n: int, scale_dtype: str, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    if scale_dtype == "F8_E8M0":
        return np.ldexp(np.float32(1), rng.integers(-127, 128, n)).astype(np.float32)
    scale = (rng.normal(0, 0.01, n)).astype(np.float32)
    if scale_dtype == "F16":
        return scale.astype(np.float16).astype(np.float32)
    if scale_dtype == "BF16":
        return (scale.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return scale


def every_scale(shape: tuple[int, ...], axis: int, group_size: int, scale: NDArray[Any]) -> NDArray[Any]:
    """The scale of each element, by broadcasting."""
    if group_size:
        groups = np.repeat(scale.reshape(*shape[:-1], -1), group_size, axis=-1)
        return groups[..., : shape[-1]]
    if axis >= 0:
        return np.broadcast_to(scale.reshape(-1, *[1] * (len(shape) - axis - 1)), shape)
    return np.broadcast_to(scale, shape)


LAYOUTS = [
    ((3, 40), -1, 0, 1),
    ((3, 40), 0, 0, 3),
    ((3, 40), 1, 0, 40),
    ((4, 5, 6), 1, 0, 5),
    ((3, 40), -1, 16, 9),
    ((2, 3, 7), -1, 7, 6),
    ((6, 5), -1, 1, 30),
    ((6, 5), -1, 99, 6),
]


@pytest.mark.parametrize(("shape", "axis", "group_size", "n_scales"), LAYOUTS)
@pytest.mark.parametrize("dtype", ["F32", "F64", "F16", "BF16"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id if codec else "raw")
def test_each_slice_and_group_has_a_scale_of_its_own(
    shape: tuple[int, ...], axis: int, group_size: int, n_scales: int, dtype: str, codec: Codec | None
) -> None:
    codes = np.random.default_rng(1).integers(-8, 8, shape)
    scale = exact_scales(n_scales, "F32")
    spec = TensorSpec(dtype, shape)
    encoded = Affine().encode(codes, spec, scale, axis=axis, group_size=group_size)
    expected = products(codes, every_scale(shape, axis, group_size, scale), dtype)
    assert decoded(dtype, shape, encoded, codec) == expected


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize(("shape", "axis", "group_size", "n_scales"), LAYOUTS)
def test_zero_points_are_taken_off_the_codes(
    shape: tuple[int, ...], axis: int, group_size: int, n_scales: int, dtype: str
) -> None:
    rng = np.random.default_rng(2)
    codes, scale = rng.integers(0, 256, shape), exact_scales(n_scales, "F32")
    zero = rng.integers(-300, 300, n_scales).astype(np.int32)
    encoded = Affine().encode(codes, TensorSpec(dtype, shape), scale, zero, axis=axis, group_size=group_size)
    distance = codes - every_scale(shape, axis, group_size, zero)
    expected = products(distance, every_scale(shape, axis, group_size, scale), dtype)
    assert decoded(dtype, shape, encoded) == expected


@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
def test_scales_of_every_type_are_exact(scale_dtype: str) -> None:
    scale = exact_scales(500, scale_dtype)
    codes = np.random.default_rng(3).integers(-128, 128, (500, 3))
    encoded = Affine().encode(codes, TensorSpec("F32", (500, 3)), scale, axis=0, scale_dtype=scale_dtype)
    assert encoded.parts["scale"].spec == TensorSpec(scale_dtype, (500,))
    assert decoded("F32", (500, 3), encoded) == products(codes, scale[:, None], "F32")


@given(st.data())
def test_any_range_is_that_slice(data: st.DataObject) -> None:
    shape, axis, group_size, n_scales = data.draw(st.sampled_from(LAYOUTS))
    dtype = data.draw(st.sampled_from(sorted(FLOAT_LAYOUTS)))
    seed = data.draw(st.integers(0, 1000))
    codes = np.random.default_rng(seed).integers(-200, 200, shape)
    encoded = Affine().encode(
        codes, TensorSpec(dtype, shape), exact_scales(n_scales, "F32", seed), axis=axis, group_size=group_size
    )
    found = opened(dtype, shape, branch_of("affine", encoded, data.draw(st.sampled_from(CODECS))))
    whole = found.read("a").tobytes()
    start = data.draw(st.integers(0, math.prod(shape)))
    stop = data.draw(st.integers(start, math.prod(shape)))
    nbytes = DTYPES[dtype].nbytes
    assert found.read_range("a", start, stop).tobytes() == whole[start * nbytes : stop * nbytes]


@given(
    codes=st.lists(st.integers(-MAX_CODE, MAX_CODE) | st.integers(-300, 300), max_size=50),
    scale=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_codes_of_any_size_stay_exact(codes: list[int], scale: float) -> None:
    numbers, one = np.array(codes, np.int64), np.array([scale], np.float32)
    encoded = Affine().encode(numbers, TensorSpec("F32", (len(codes),)), one)
    assert decoded("F32", (len(codes),), encoded) == products(numbers, one, "F32")
    span = max(codes) - min(codes) if codes else 0
    assert bool(encoded.params["exceptions"]) == (span > 255)


def test_the_bytes_hold_the_codes_that_are_most_frequent() -> None:
    codes = np.concatenate([np.arange(-128, 128).repeat(9), [9000, -9000, 400]])
    encoded = Affine().encode(codes, TensorSpec("BF16", codes.shape), np.ones(1, np.float32))
    assert encoded.params["exceptions"] == 3
    assert encoded.params["offset"] == -128


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_codes_may_be_of_any_integer_type(dtype: str) -> None:
    codes = np.array([0, 1, 127, 3], dtype)
    encoded = Affine().encode(codes, TensorSpec("F32", (4,)), np.array([0.5], np.float32))
    assert decoded("F32", (4,), encoded) == np.array([0, 0.5, 63.5, 1.5], np.float32).tobytes()


@pytest.mark.parametrize("dtype", sorted(FLOAT_LAYOUTS))
def test_every_product_is_rounded_as_torch_rounds_it(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    codes = np.tile(np.arange(-128, 128), (400, 1))
    scale = np.ldexp(np.random.default_rng(4).uniform(1, 2, 400), np.arange(-150, 250) // 2).astype(
        np.float32
    )
    encoded = Affine().encode(codes, TensorSpec(dtype, (400, 256)), scale, axis=0)
    product = torch.from_numpy(codes.astype(np.float32)) * torch.from_numpy(scale)[:, None]
    # torch makes NaNs of what is too large in one of its versions, and the largest number in another.
    largest = {"F8_E4M3": 448.0, "F8_E4M3FNUZ": 240.0, "F8_E5M2FNUZ": 57344.0}.get(dtype, math.inf)
    expected = product.clamp(-largest, largest).to(getattr(torch, DTYPES[dtype].torch_name))
    assert decoded(dtype, (400, 256), encoded) == expected.view(torch.uint8).numpy().tobytes()


def test_rows_of_groups_find_their_places_and_scales() -> None:
    rng = np.random.default_rng(5)
    codes, group = rng.integers(-20, 20, (40, 33)), rng.integers(0, 3, 40).astype(np.uint8)
    scale = exact_scales(40, "F16")
    whole = np.frombuffer(products(codes, scale[:, None], "BF16"), np.uint8)
    groups = RowGroups().encode(whole, TensorSpec("BF16", (40, 33)), group)
    node = branch_of("row_groups", groups)
    for index in range(3):
        member = group == index
        part = Affine().encode(
            codes[member], groups.parts[str(index)].spec, scale[member], axis=0, scale_dtype="F16"
        )
        node["parts"][str(index)] = branch_of("affine", part, CODECS[1 + index])
    found = opened("BF16", (40, 33), node)
    assert found.read("a").tobytes() == whole.tobytes()
    assert (
        found.read_range("a", 7 * 33, 29 * 33 + 5).tobytes()
        == whole[2 * 7 * 33 : 2 * (29 * 33 + 5)].tobytes()
    )


@pytest.mark.parametrize(("shape", "axis", "group_size"), [((0, 3), 0, 0), ((3, 0), 0, 0), ((3, 0), -1, 4)])
def test_a_tensor_without_elements_comes_back(shape: tuple[int, ...], axis: int, group_size: int) -> None:
    n_scales = 0 if group_size else shape[axis]
    encoded = Affine().encode(
        np.empty(shape, np.int32),
        TensorSpec("F32", shape),
        np.ones(n_scales, np.float32),
        axis=axis,
        group_size=group_size,
    )
    assert decoded("F32", shape, encoded) == b""


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"codes": np.zeros(5, np.int8)}, "5 codes for 6 elements"),
        ({"spec": TensorSpec("I8", (2, 3))}, "have no scales"),
        ({"scale": np.ones(2, np.float32)}, "'scale' takes"),
        ({"axis": 2}, "'axis'"),
        ({"axis": 1, "group_size": 2}, "groups go with axis -1"),
        ({"scale_dtype": "F64"}, "'scale_dtype'"),
        ({"scale": np.array([np.inf], np.float32)}, "not finite"),
        ({"scale": np.array([np.nan], np.float32), "scale_dtype": "BF16"}, "not finite"),
        ({"scale": np.array([0.1], np.float32), "scale_dtype": "F16"}, "not exactly a F16"),
        ({"scale": np.array([0.1], np.float32), "scale_dtype": "F8_E8M0"}, "not a power of two"),
        ({"scale": np.array([-1], np.float32), "scale_dtype": "F8_E8M0"}, "not a power of two"),
        ({"zero_point": np.zeros(2, np.int32)}, "'zero_point' takes"),
        ({"codes": np.full(6, MAX_CODE + 1)}, "'offset'|too far"),
        ({"codes": np.array([0, 0, 0, 0, 0, -MAX_CODE - 1])}, "too far from a zero point"),
        ({"zero_point": np.array([MAX_CODE + 1], np.int32)}, "too far from a zero point"),
    ],
)
def test_what_can_not_be_stored_exactly_is_not_encoded(arguments: dict[str, Any], problem: str) -> None:
    given = {"codes": np.zeros(6, np.int8), "spec": TensorSpec("F32", (2, 3)), "scale": ONE} | arguments
    with pytest.raises(PassError, match=problem):
        Affine().encode(given.pop("codes"), given.pop("spec"), given.pop("scale"), **given)


def test_a_rule_that_is_broken_outside_the_range_is_noticed_all_the_same() -> None:
    params = Affine().encode(np.arange(6), TensorSpec("F32", (6,)), ONE).params | {"axis": 0}
    scales = np.array([1, 1, 1, 1, 1, np.inf], np.float32).tobytes()
    node = branch("affine", params, qdata=leaf(bytes(6)), scale=leaf(scales))
    with pytest.raises(CorruptStreamError, match="not finite"):
        opened("F32", (6,), node).read_range("a", 0, 2)


def test_only_floats_of_known_bits_have_scales() -> None:
    params = Affine().encode(np.zeros(8, np.int8), TensorSpec("F32", (8,)), ONE).params
    for dtype in set(DTYPES) - set(FLOAT_LAYOUTS):
        with pytest.raises(FormatError, match="have no scales"):
            opened(dtype, (8,), branch("affine", params, qdata=leaf(bytes(8)), scale=leaf(bytes(4))))


def test_codes_within_a_narrow_tensor_are_widened_afterwards() -> None:
    codes = np.arange(-30, 30)
    encoded = Affine().encode(codes, TensorSpec("BF16", (60,)), np.array([0.25], np.float32))
    node = branch("narrow", {"dtype": "BF16"}, values=branch_of("affine", encoded, Huffman()))
    found = opened("F32", (60,), node)
    assert found.read("a").tobytes() == (codes * 0.25).astype(np.float32).tobytes()
    assert found.read_range("a", 7, 20).tobytes() == (codes[7:20] * 0.25).astype(np.float32).tobytes()

"""cast: narrow floats times scales, to the last bit; what has no number is one NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmpk.archive import Archive
from cmpk.codecs import Bitpack, Codec, Huffman, Rans
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Cast, FloatSplit, RowGroups
from cmpk.encodings.cast import NARROW
from cmpk.errors import CorruptStreamError, FormatError, PassError
from tests.builders import Node, archive, branch, branch_of, leaf, tensor

EVERY = np.arange(256, dtype=np.uint8)
WIDE = ["F16", "BF16", "F32", "F64"]


def opened(dtype: str, shape: list[int], node: Node) -> Archive:
    return Archive(archive([tensor("a", dtype, shape, node)]))


def torch_products(values: np.ndarray[Any, Any], narrow: str, scale: np.ndarray[Any, Any], dtype: str) -> Any:
    torch = pytest.importorskip("torch")
    narrow_type, wide_type = (getattr(torch, DTYPES[name].torch_name) for name in (narrow, dtype))
    numbers = torch.from_numpy(values).view(narrow_type).to(torch.float32)
    return (numbers * torch.from_numpy(scale)).to(wide_type)


@pytest.mark.parametrize("narrow", NARROW)
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("codec", [None, Huffman(), Rans()], ids=lambda codec: codec.id if codec else "raw")
def test_every_value_with_scales_of_all_sizes_is_what_torch_makes_of_it(
    narrow: str, dtype: str, codec: Codec | None
) -> None:
    torch = pytest.importorskip("torch")
    scale = np.concatenate([np.ldexp(np.float32(1.37), np.arange(-150, 128, 3)), [0, -0.0, -2.5]]).astype(
        "f4"
    )
    values = np.tile(EVERY, (len(scale), 1))
    encoded = Cast().encode(values, narrow, TensorSpec(dtype, values.shape), scale, axis=0)
    found = opened(dtype, list(values.shape), branch_of("cast", encoded, codec)).read("a")
    expected = torch_products(values, narrow, scale[:, None], dtype)
    is_nan = expected.isnan().view(-1).numpy()
    words = found.view(f"<u{DTYPES[dtype].nbytes}")
    torch_words = expected.view(-1).view(torch.uint8).numpy().view(words.dtype)
    assert np.array_equal(words[~is_nan], torch_words[~is_nan])
    quiet = {"F16": 0x7E00, "BF16": 0x7FC0, "F32": 0x7FC00000, "F64": 0x7FF8 << 48}[dtype]
    assert set(words[is_nan].tolist()) == {quiet}


@pytest.mark.parametrize(
    ("axis", "group_size", "n_scales"), [(-1, 0, 1), (1, 0, 24), (-1, 32, 12 * 1), (-1, 5, 60)]
)
def test_slices_and_groups_have_scales_and_any_range_is_that_slice(
    axis: int, group_size: int, n_scales: int
) -> None:
    values = np.random.default_rng(0).integers(0, 120, (12, 24), np.uint8)
    scale = np.ldexp(np.float32(1), np.random.default_rng(1).integers(-9, 9, n_scales)).astype(np.float32)
    encoded = Cast().encode(
        values, "F8_E5M2", TensorSpec("BF16", values.shape), scale, axis=axis, group_size=group_size,
        scale_dtype="F8_E8M0",
    )  # fmt: skip
    each = np.broadcast_to(scale, values.shape) if not group_size else scale
    if group_size:
        each = np.repeat(scale.reshape(12, -1), group_size, axis=1)[:, :24]
    expected = torch_products(values, "F8_E5M2", np.ascontiguousarray(each), "BF16").view(-1)
    whole = expected.view(pytest.importorskip("torch").uint8).numpy().tobytes()
    found = opened("BF16", [12, 24], branch_of("cast", encoded, Bitpack()))
    assert found.read("a").tobytes() == whole
    assert found.read_range("a", 7, 100).tobytes() == whole[14:200]


def test_values_may_be_split_and_rows_may_be_grouped() -> None:
    values = np.random.default_rng(2).integers(0, 256, (20, 70), np.uint8)
    group = (np.arange(20) % 3 == 1).astype(np.uint8)
    scale = np.linspace(0.1, 2, 20, dtype=np.float32)
    whole = Cast().encode(values, "F8_E4M3", TensorSpec("F32", (20, 70)), scale, axis=0)
    plain = opened("F32", [20, 70], branch_of("cast", whole)).read("a")
    split = branch_of("cast", whole)
    encoded = FloatSplit().encode(values.reshape(-1), TensorSpec("F8_E4M3", (20, 70)), 0, 0)
    split["parts"]["values"] = branch_of("float_split", encoded, Huffman())
    assert opened("F32", [20, 70], split).read("a").tobytes() == plain.tobytes()
    groups = RowGroups().encode(plain, TensorSpec("F32", (20, 70)), group)
    node = branch_of("row_groups", groups)
    for index in range(2):
        member = group == index
        part = Cast().encode(values[member], "F8_E4M3", groups.parts[str(index)].spec, scale[member], axis=0)
        node["parts"][str(index)] = branch_of("cast", part, Huffman())
    assert opened("F32", [20, 70], node).read("a").tobytes() == plain.tobytes()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"values": np.zeros(5, np.uint8)}, "'values' takes"),
        ({"dtype": "F16"}, "can't be cast"),
        ({"spec": TensorSpec("F8_E5M2", (2, 3))}, "can't be cast"),
        ({"scale": np.ones(2, np.float32)}, "'scale' takes"),
        ({"scale": np.array([np.nan], np.float32)}, "not finite"),
        ({"axis": 2}, "'axis'"),
        ({"scale_dtype": "F64"}, "'scale_dtype'"),
    ],
)
def test_what_can_not_be_stored_exactly_is_not_encoded(arguments: dict[str, Any], problem: str) -> None:
    given: dict[str, Any] = {
        "values": np.zeros(6, np.uint8),
        "dtype": "F8_E4M3",
        "spec": TensorSpec("F32", (2, 3)),
        "scale": np.ones(1, np.float32),
    }
    with pytest.raises(PassError, match=problem):
        Cast().encode(**(given | arguments))


def test_scales_that_are_not_finite_and_types_that_do_not_go_together_are_refused() -> None:
    params = {"axis": -1, "dtype": "F8_E4M3", "group_size": 0, "scale_dtype": "F32"}
    infinite = leaf(np.array([np.inf], np.float32).tobytes())
    with pytest.raises(CorruptStreamError, match="not finite"):
        opened("F32", [3], branch("cast", params, values=leaf(bytes(3)), scale=infinite)).read("a")
    for wide in set(DTYPES) - set(WIDE):
        with pytest.raises(FormatError, match="can't be cast"):
            opened(wide, [8], branch("cast", params, values=leaf(bytes(8)), scale=leaf(bytes(4))))

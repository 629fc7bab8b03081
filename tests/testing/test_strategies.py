"""What the strategies draw: all that a format must be ready for, and nothing that a file can't hold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import Part
from cmpk.testing import byte_arrays, damaged, tensor_parts, tensor_specs


@given(spec=tensor_specs())
def test_a_spec_takes_whole_bytes(spec: TensorSpec) -> None:
    assert spec.numel * DTYPES[spec.dtype].nbits % 8 == 0


@given(part=tensor_parts())
def test_a_part_has_the_bytes_of_its_spec(part: Part) -> None:
    assert (part.data.dtype, part.data.shape) == (np.uint8, (part.spec.nbytes,))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_drawn(dtype: str) -> None:
    assert found(tensor_parts(), lambda part: part.spec.dtype == dtype and len(part.data) > 0)


def f32(part: Part) -> np.ndarray:
    return part.data.view(np.uint32)


@pytest.mark.parametrize(
    ("what", "holds"),
    [
        ("no elements", lambda part: part.spec.numel == 0),
        ("no dimensions", lambda part: part.spec.shape == ()),
        ("four dimensions", lambda part: len(part.spec.shape) == 4 and part.spec.numel > 1),
        ("a negative zero", lambda part: bool((f32(part) == 1 << 31).any())),
        ("an infinity", lambda part: bool((f32(part) == 0x7F800000).any())),
        ("a signalling NaN", lambda part: bool((f32(part) == 0x7F800001).any())),
        ("a NaN with a payload", lambda part: bool((f32(part) == 0xFFC00001).any())),
        ("a subnormal number", lambda part: bool((f32(part) == 1).any())),
        (
            "weights",
            lambda part: part.spec.numel > 99 and len(np.unique(f32(part) >> 23 & 255)) in range(5, 15),
        ),
        ("bf16 throughout", lambda part: part.spec.numel > 99 and not (f32(part) & 0xFFFF).any()),
        ("few values", lambda part: part.spec.numel > 99 and len(np.unique(f32(part))) < 9),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_floats_of_every_sort_are_drawn(what: str, holds: Callable[[Part], bool]) -> None:
    assert found(tensor_parts(dtypes=["F32"]), holds), what


@pytest.mark.parametrize("n", [0, 1, 4095, 4096, 4097, 8191, 8193])
def test_lengths_around_a_boundary_are_drawn(n: int) -> None:
    assert found(byte_arrays(max_nbytes=16, boundaries=[4096]), lambda data: len(data) == n)


def test_damage_cuts_adds_changes_and_spares() -> None:
    data = bytes(range(40))
    for holds in (
        lambda broken: broken == data,
        lambda broken: broken != data and len(broken) == len(data),
        lambda broken: broken == data[: len(broken)] and 0 < len(broken) < len(data),
        lambda broken: len(broken) > len(data),
    ):
        assert found(damaged(data), holds)


@given(drawn=st.data(), data=st.binary(min_size=1, max_size=40))
def test_damage_that_keeps_the_length_keeps_it(drawn: st.DataObject, data: bytes) -> None:
    assert len(drawn.draw(damaged(data, keep_length=True))) == len(data)


def found(strategy: st.SearchStrategy, holds: Callable[..., bool]) -> bool:  # type: ignore[type-arg]
    """Whether something like this is drawn."""
    drawing = settings(max_examples=5000, derandomize=True, database=None, phases=[Phase.generate])
    find(strategy, holds, settings=drawing)
    return True


def test_only_the_kit_imports_hypothesis() -> None:
    code = "import sys, cmpk.packing, cmpk.registry as r; r.registry().problems; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert {"cmpk.passes", "cmpk.importers"} <= set(done.stdout.split())
    assert "hypothesis" not in done.stdout.split()

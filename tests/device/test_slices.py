"""Parts of tensors on a device: what they hold, and how little is decoded for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cmpk
from cmpk import load
from cmpk.archive import Archive
from cmpk.errors import CorruptStreamError
from tests.builders import archive, leaf, tensor
from tests.device.test_loading import same

VECTORS = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "valid"


@pytest.fixture(autouse=True)
def place(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device, whose kernels are used even where it is the CPU under the interpreter."""
    from cmpk.device import loader

    monkeypatch.setattr(load, "kernels_of", lambda _: "triton")
    monkeypatch.setattr(loader, "SMALL_NBYTES", 0)
    return device


@pytest.fixture
def ranges(place: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges of elements that kernels were asked for."""
    from cmpk.device import ring

    asked: list[tuple[int, int]] = []
    fill = ring.fill

    def filled(ranges: Any, *rest: Any) -> Any:
        asked.extend((start, stop) for _, start, stop in ranges)
        return fill(ranges, *rest)

    monkeypatch.setattr(ring, "fill", filled)
    return asked


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Tensors of several encodings, of 30 rows of 100 or so."""
    torch.manual_seed(0)
    tensors = {
        "bf16": (torch.randn(30, 101) * 0.02).bfloat16(),
        "f32": torch.randn(30, 90, 1) * 0.02,
        "ids": torch.arange(3000).reshape(30, 100) % 77,
        "empty": torch.empty(0, 7),
        "line": torch.randn(2100).half(),
    }
    # An interpreter is slow to decode long runs of Huffman codes; another test has some.
    recipe = tmp_path_factory.mktemp("slices") / "recipe.toml"
    recipe.write_text('codecs = ["raw", "bitpack"]\n[passes.split_floats]\n')
    return cmpk.torch.save(tensors, recipe=recipe)


@pytest.mark.parametrize("name", ["bf16", "f32", "ids"])
@pytest.mark.parametrize("index", [(7,), (slice(11, 13),), (slice(29, 30), slice(3, 9)), (slice(4, 4),)])
def test_rows_are_those_of_the_whole_tensor(
    place: torch.device, model: bytes, name: str, index: tuple[Any, ...]
) -> None:
    whole = cmpk.torch.load(model)[name]
    with Archive(model) as found:
        part = load.load_tensor(found, name, index, place, 1)
    assert part.device.type == place.type
    assert same(part, whole[index])
    assert part.untyped_storage().nbytes() == part.nbytes


@pytest.mark.parametrize(
    "vector",
    ["affine-groups", "codebook-groups", "codebook-pairs", "row_groups", "nested-rows", "rans-chunks"],
)
def test_later_rows_of_vectors_are_those_of_the_cpu(place: torch.device, vector: str) -> None:
    from cmpk.device.loader import decode_rows

    paths = sorted(VECTORS.glob(f"{vector}*.cmpk"))
    assert paths
    for path in paths:
        with Archive(path.read_bytes()) as found:
            for name in found:
                spec = found.spec(name)
                if not spec.numel or not spec.shape or spec.nbytes % spec.shape[0]:
                    continue
                start = spec.shape[0] * 3 // 4 * (spec.numel // spec.shape[0])
                part = decode_rows(found, {name: (start, spec.numel)}, place, 1)[name]
                assert part.cpu().numpy().tobytes() == found.read_range(name, start, spec.numel).tobytes()


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("bf16", (25, 27), (2048, 2727)),
        ("ids", (14, 15), (8192, 12000)),
        ("line", (2050, 2051), (4096, 4102)),
    ],
)
def test_kernels_start_with_the_block_of_the_first_element(
    place: torch.device,
    model: bytes,
    ranges: list[tuple[int, int]],
    name: str,
    rows: tuple[int, int],
    expected: tuple[int, int],
) -> None:
    """What is stored without an encoding is made byte by byte."""
    with Archive(model) as found:
        load.load_tensor(found, name, (slice(*rows),), place, 1)
    assert ranges == [expected]


def test_only_the_intervals_of_the_rows_are_decoded(
    place: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmpk.device import loader, ring

    batches = []
    launch = ring.launch
    monkeypatch.setattr(ring, "launch", lambda batch, shape: (batches.append(batch), launch(batch, shape)))
    one_lane = ring.INTERPRETER._replace(lanes=1)
    with Archive((VECTORS / "huffman-chunks.cmpk").read_bytes()) as found:
        (name,) = found
        small = ring.Ring(place, 1 << 18, 1 << 18, one_lane)
        part = loader.decode_rows(found, {name: (8300, 8330)}, place, 1, small)[name]
        assert part.cpu().numpy().tobytes() == found.read_range(name, 8300, 8330).tobytes()
    assert [batch.huffman.n_programs for batch in batches] == [1]


def test_damage_in_a_slice_names_the_tensor(place: torch.device, model: bytes) -> None:
    data = bytearray(model)
    with Archive(model) as found:
        stored = found.streams("line")
    data[max(stored) + len(stored[max(stored)]) - 1] ^= 0x40
    with Archive(bytes(data)) as found, pytest.raises(CorruptStreamError, match="tensor 'line'"):
        load.load_tensor(found, "line", (slice(2090, 2100),), place, 1)


@pytest.mark.parametrize("rows", [(0, 1), (6, 7), (13, 29), (29, 30)])
def test_rows_that_come_along_with_a_block_go_nowhere(place: torch.device, rows: tuple[int, int]) -> None:
    """Every other row is of a group; the last of them stand in its second block."""
    data = np.random.default_rng(0).integers(0, 256, (30, 200), np.uint8)
    parts: dict[str, Any] = {"group": leaf(bytes([0, 1] * 15))}
    parts |= {str(index): leaf(data[index::2].tobytes()) for index in range(2)}
    node = {"encoding": "row_groups", "params": {"rows": [15, 15]}, "parts": parts}
    with Archive(archive([tensor("x", "U8", [30, 200], node)])) as found:
        part = load.load_tensor(found, "x", (slice(*rows),), place, 1)
    assert part.cpu().numpy().tobytes() == data[slice(*rows)].tobytes()

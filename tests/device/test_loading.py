"""Loading whole archives through the ring and the kernels of a device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import cmpk
from cmpk import load
from cmpk.archive import Archive
from cmpk.errors import CorruptStreamError, DeviceError, FormatError, UnknownIdError
from tests.builders import archive, leaf, tensor

VECTORS = Path(__file__).resolve().parents[2] / "spec" / "vectors"
VALID = sorted(path.stem for path in (VECTORS / "valid").glob("*.cmpk"))
INVALID: dict[str, dict[str, str]] = json.loads((VECTORS / "invalid" / "expected.json").read_text())
FOUND_BY_LOADING = [
    name for name, vector in INVALID.items() if vector["found_by"] == "load" and not name.startswith("file-")
]


@pytest.fixture(autouse=True)
def place(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device, whose kernels are used even where it is the CPU under the interpreter."""
    from cmpk.device import loader

    monkeypatch.setattr(load, "kernels_of", lambda _: "triton")
    monkeypatch.setattr(loader, "SMALL_NBYTES", 0)
    return device


def loaded(data: bytes, device: torch.device) -> dict[str, torch.Tensor]:
    with Archive(data) as found:
        return load.load_tensors(found, found.keys(), device, 1)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bits, not values."""
    a, b = a.cpu(), b.cpu()
    is_alike = (a.dtype, a.shape) == (b.dtype, b.shape)
    return is_alike and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("name", VALID)
def test_valid_vectors_are_read_as_on_the_cpu(place: torch.device, name: str) -> None:
    from cmpk.device.loader import decode_onto

    with Archive((VECTORS / "valid" / f"{name}.cmpk").read_bytes()) as found:
        outs = {name: torch.zeros(found.spec(name).nbytes, dtype=torch.uint8, device=place) for name in found}
        decode_onto(found, outs, 1)
        for name, out in outs.items():
            assert out.cpu().numpy().tobytes() == found.read(name).tobytes(), name


@pytest.mark.parametrize("name", FOUND_BY_LOADING)
def test_vectors_that_loading_must_refuse_are_refused(place: torch.device, name: str) -> None:
    error = UnknownIdError if INVALID[name]["error"] == "unknown_id" else FormatError
    with pytest.raises(error):
        loaded((VECTORS / "invalid" / f"{name}.cmpk").read_bytes(), place)


def test_a_model_comes_back_with_its_ties_and_copies(place: torch.device) -> None:
    torch.manual_seed(0)
    weight = (torch.randn(20, 10) * 0.02).bfloat16()
    given: dict[str, torch.Tensor] = {
        "half": torch.randn(130).half(),
        "single": torch.randn(90) * 0.02,
        "once half": torch.randn(100).half().float(),
        "empty": torch.empty(0, 3),
        "ids": torch.arange(300).reshape(3, 10, 10),
        "few": torch.tensor([0.5, 1.5] * 60),
        "tied 1": weight,
        "tied 2": weight,
        "copy": weight.clone(),
    }
    found = loaded(cmpk.torch.save(given), place)
    assert list(found) == list(given)
    assert all(same(found[name], value) for name, value in given.items())
    assert found["tied 1"] is found["tied 2"]
    assert found["copy"].data_ptr() != found["tied 1"].data_ptr()
    assert {value.device.type for value in found.values()} == {place.type}


def test_small_tensors_are_decoded_on_the_cpu_and_loaded_in_one_launch(
    place: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmpk.device import loader, ring

    batches = []
    launch = ring.launch
    monkeypatch.setattr(ring, "launch", lambda batch, shape: (batches.append(batch), launch(batch, shape)))
    monkeypatch.setattr(loader, "SMALL_NBYTES", 1 << 16)
    torch.manual_seed(0)
    given = {f"{number}": (torch.randn(90, 80) * 0.02).bfloat16() for number in range(9)}
    found = loaded(cmpk.torch.save(given), place)
    assert all(same(found[name], value) for name, value in given.items())
    assert [(batch.huffman.n_sources, len(batch.steps)) for batch in batches] == [(0, 1)]


def test_damage_names_the_tensor(place: torch.device, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = bytearray(cmpk.torch.save({"a": torch.ones(3), "b": (torch.randn(500) * 0.02).bfloat16()}))
    with Archive(bytes(data)) as found:
        data[found._reader.offsets[-1] + 5] ^= 1
    with pytest.raises(CorruptStreamError, match="tensor 'b'"):
        loaded(bytes(data), place)


def test_damage_that_only_kernels_see_names_the_tensor(place: torch.device) -> None:
    parts: dict[str, Any] = {"high": leaf(b"\x03\x21"), "rest0": leaf(b"\x00\x00")}
    node = {"encoding": "float_split", "params": {"base": 0, "exceptions": 0, "mantissa_bits": 0}}
    data = archive([tensor("x", "F8_E5M2", [2], {**node, "parts": parts})])
    with pytest.raises(CorruptStreamError, match=r"tensor 'x': .*upper bits"):
        loaded(data, place)


def test_what_fails_on_the_way_is_a_device_error_with_a_way_out(
    place: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmpk.device import ring

    def fail(*_: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(ring, "launch", fail)
    with pytest.raises(DeviceError, match=r"illegal memory access.*load onto 'cpu'"):
        loaded(cmpk.torch.save({"a": torch.ones(3)}), place)

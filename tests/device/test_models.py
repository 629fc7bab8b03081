"""Models whose weights stay compressed on a device give the bits of dense ones."""

from __future__ import annotations

import copy
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cmpk
import cmpk.device
import cmpk.nn
from cmpk.archive import Archive
from cmpk.errors import CmpkError, CorruptStreamError, DeviceError
from cmpk.nn import CompressedLayer, loading
from cmpk.recipe import LOSSLESS, PassUse, Recipe, Rule
from cmpk.torch import load_model
from tests.builders import archive, leaf, tensor
from tests.device.test_loading import FOUND_BY_LOADING, VECTORS, same

INT8 = PassUse("round_int", {"bits": 8})
SHARED = PassUse("share", {"bits": 4})
SPARSE = PassUse("prune", {"ratio": 0.9})

# Huffman codes of few symbols: an interpreter takes a second for a few hundred in a row.
RECIPES = {
    "lossless": Recipe("", "", ("raw", "bitpack"), 0.01, (Rule((LOSSLESS,)),)),
    "rans": Recipe("", "", ("raw", "rans"), 0.01, (Rule((INT8,), names=("embed.*",)), Rule((LOSSLESS,)))),
    "int8": Recipe("", "", ("raw", "huffman", "rans"), 0.01, (Rule((INT8,), min_rank=2),)),
    "mixed": Recipe(
        "",
        "",
        ("raw", "bitpack", "huffman", "zstd:3"),
        0.01,
        (
            Rule((INT8,), names=("embed.*",)),
            Rule((SHARED,), names=("first.*",)),
            Rule((SPARSE,), names=("second.*",)),
            Rule((LOSSLESS,)),
        ),
    ),
}

OF_KERNELS = ["affine-exceptions", "cast-F32", "codebook-largest", "float_split-F16", "row_groups-two"]
OF_THE_CPU = ["bitmask-sizes", "gap_index-fills", "nested-eight-deep", "product-dtypes", "zstd-chunks"]


class Tiny(nn.Module):
    """One layer of each kind that stays compressed, and a table that is tied."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.first = nn.Linear(16, 24)
        self.second = nn.Linear(24, 16, bias=False)
        self.line = nn.Conv1d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 40, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        x = x + self.second(self.first(x).relu())
        return self.head(x + self.line(x.mT).mT)


IDS = torch.arange(12).reshape(2, 6) * 3


@pytest.fixture(autouse=True)
def place(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The device, whose kernels are used even where it is the CPU under the interpreter."""
    monkeypatch.setattr(loading, "kernels_of", lambda _: "triton")
    monkeypatch.setattr(loading, "_MIN_NBYTES", 1)
    return device


@pytest.fixture
def text(tmp_path: Path, place: torch.device) -> nn.Module:
    """A model whose weights are bytes, which even an interpreter handles quickly."""
    return load_model(Tiny, saved(tmp_path, "int8"), device=place, resident="packed").eval()


def saved(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    path = folder / f"{name}.cmpk"
    cmpk.torch.save_model(Tiny().bfloat16(), path, recipe=RECIPES[name])
    return path


def layers(model: nn.Module) -> dict[str, str]:
    """Which weights decode each layer."""
    return {
        name: type(module._compressed_weights).__name__
        for name, module in model.named_modules()
        if isinstance(module, CompressedLayer)
    }


@pytest.mark.parametrize("name", RECIPES)
def test_outputs_are_those_of_the_dense_model_to_the_bit(
    tmp_path: Path, place: torch.device, name: str
) -> None:
    path = saved(tmp_path, name)
    dense = load_model(Tiny, path).eval().to(place)
    model = load_model(Tiny, path, device=place, resident="packed").eval()
    with torch.inference_mode():
        for ids in (IDS, IDS[:, 1:]):
            assert same(model(ids.to(place)), dense(ids.to(place)))
    expected = dict.fromkeys(["embed", "first", "second", "line", "head"], "DeviceWeights")
    # No device has a kernel for zstd.
    assert layers(model) == {**expected, **({"second": "Weights"} if name == "mixed" else {})}


def test_a_file_made_for_a_size_runs_as_the_dense_model_does(tmp_path: Path, place: torch.device) -> None:
    torch.manual_seed(0)
    path = tmp_path / "target.cmpk"
    cmpk.pack(Tiny().state_dict(), path, target_bpw=20)
    dense = load_model(Tiny, path).eval().to(place)
    model = load_model(Tiny, path, device=place, resident="packed").eval()
    with torch.inference_mode():
        for _ in range(2):
            assert same(model(IDS.to(place)), dense(IDS.to(place)))
    assert "DeviceWeights" in layers(model).values()


def test_codes_that_torch_does_not_dequantize_stay_on_the_device_too(
    tmp_path: Path, place: torch.device
) -> None:
    path = saved(tmp_path, "mixed")
    dense = load_model(Tiny, path).eval().to(place)
    model = load_model(Tiny, path, device=place, resident="quantized").eval()
    with torch.inference_mode():
        assert same(model(IDS.to(place)), dense(IDS.to(place)))
    assert layers(model) == {"first": "DeviceWeights"}  # the other codes are no smaller than half


def test_the_configuration_says_where_models_stay_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmpk.device, "_reason", lambda: "")
    assert re.match(
        r"decoded on the device by Triton .*stay packed; on the CPU first: zstd", cmpk.device.about()
    )


class TestWeights:
    def test_it_is_told_where_they_are(self, text: nn.Module, place: torch.device) -> None:
        assert f"bytes on {place.type}" in repr(text.first)

    def test_one_that_is_kept_stays_what_it_is(self, text: nn.Module, place: torch.device) -> None:
        with torch.inference_mode():
            kept = text.first.weight
            before = kept.cpu().clone()
            others = [text.first._compressed_weights.copy("first.weight") for _ in range(2)]
            text(IDS.to(place))
        assert len({value.data_ptr() for value in (kept, *others)}) == 3
        assert all(same(value, before) for value in (kept, *others))
        assert not kept.is_inference()

    def test_the_next_one_is_decoded_ahead(self, text: nn.Module, place: torch.device) -> None:
        weights = text.first._compressed_weights
        text(IDS.to(place))
        order = ("embed", "first", "second", "line", "embed")
        for name, following in itertools.pairwise(order):
            weights.get(f"{name}.weight")
            assert set(weights._ready) == {f"{name}.weight", f"{following}.weight"}

    def test_a_large_one_is_decoded_in_several_batches(
        self, tmp_path: Path, place: torch.device, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from cmpk.device import resident

        monkeypatch.setattr(resident, "SLOT_NBYTES", 1 << 13)
        table = nn.Embedding(300, 64)
        path = tmp_path / "table.cmpk"
        cmpk.torch.save_model(table, path, recipe=RECIPES["int8"])
        model = load_model(lambda: nn.Embedding(300, 64), path, device=place, resident="packed")
        kept = model._compressed_weights.stored("weight").resident
        assert len(kept._batches) >= 3
        expected = load_model(lambda: nn.Embedding(300, 64), path).weight
        for _ in range(2):
            assert same(model.weight, expected)
        index = torch.tensor([[299, 0], [5, 5]], device=place)
        assert same(model(index), expected[index.cpu()])

    def test_what_models_can_do_they_still_can(self, text: nn.Module, place: torch.device) -> None:
        found = text.state_dict()
        assert {value.device.type for value in found.values()} == {place.type}
        copied = copy.deepcopy(text)
        assert same(copied(IDS.to(place)), text(IDS.to(place)))
        cmpk.nn.close(text)
        assert found["first.weight"].shape == (24, 16)
        with pytest.raises(CmpkError, match=r"'first\.weight': the model has been closed"):
            text.first(torch.zeros(1, 16, device=place))

    def test_what_fails_is_a_device_error(self, text: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        from cmpk.device import resident

        def fail(*_: object) -> None:
            raise RuntimeError("an illegal memory access was encountered")

        monkeypatch.setattr(resident, "launch", fail)
        with pytest.raises(DeviceError, match="illegal memory access"):
            text.first.weight  # noqa: B018


def decoded(data: bytes, device: torch.device) -> dict[str, bytes]:
    """The tensors of an archive that kernels decode from its streams as they are, decoded twice."""
    from cmpk.device.resident import jobs_as_stored, residents

    with Archive(data) as found:
        jobs = {name: jobs_as_stored(found.stored(name), found.streams(name), 1) for name in found}
        outs = {name: torch.zeros(found.spec(name).nbytes, dtype=torch.uint8, device=device) for name in jobs}
    kept = residents({name: of_tensor for name, of_tensor in jobs.items() if of_tensor}, device, 1)
    for name, resident in kept.items():
        resident.decode_into(torch.empty_like(outs[name]))
        resident.decode_into(outs[name])
        resident.check(name)
    return {name: outs[name].cpu().numpy().tobytes() for name in kept}


class TestStreams:
    @pytest.mark.parametrize("name", OF_KERNELS)
    def test_valid_vectors_are_decoded_as_on_the_cpu(self, place: torch.device, name: str) -> None:
        data = (VECTORS / "valid" / f"{name}.cmpk").read_bytes()
        found = decoded(data, place)
        assert found
        with Archive(data) as expected:
            assert found == {name: expected.read(name).tobytes() for name in found}

    @pytest.mark.parametrize("name", OF_THE_CPU)
    def test_what_no_kernel_decodes_is_left_to_the_cpu(self, place: torch.device, name: str) -> None:
        assert decoded((VECTORS / "valid" / f"{name}.cmpk").read_bytes(), place) == {}

    @pytest.mark.parametrize("name", [name for name in FOUND_BY_LOADING if not name.startswith("rans")])
    def test_invalid_vectors_are_refused_or_left_to_the_cpu(self, place: torch.device, name: str) -> None:
        try:
            found = decoded((VECTORS / "invalid" / f"{name}.cmpk").read_bytes(), place)
        except CmpkError:
            return
        assert not found, name

    def test_they_take_little_more_there_than_in_the_file(self, place: torch.device) -> None:
        from cmpk.device.resident import jobs_as_stored, residents

        data = cmpk.torch.save({"a": (torch.randn(900, 500) * 0.02).bfloat16()})
        with Archive(data) as found:
            root, streams = found.stored("a"), found.streams("a")
        jobs = jobs_as_stored(root, streams, 1)
        assert jobs is not None
        stored = sum(map(len, streams.values()))
        assert stored <= residents({"a": jobs}, place, 1)["a"].nbytes <= 1.01 * stored + 1024

    def test_damage_that_only_kernels_see_is_found_when_loading(
        self, tmp_path: Path, place: torch.device
    ) -> None:
        parts: dict[str, Any] = {"high": leaf(b"\x03\x21"), "rest0": leaf(b"\x00\x00")}
        node = {"encoding": "float_split", "params": {"base": 0, "exceptions": 0, "mantissa_bits": 0}}
        path = tmp_path / "bad.cmpk"
        path.write_bytes(archive([tensor("weight", "F8_E5M2", [1, 2], {**node, "parts": parts})]))
        with pytest.raises(CorruptStreamError, match=r"tensor 'weight': .*upper bits"):
            load_model(lambda: nn.Linear(2, 1, bias=False), path, device=place, resident="packed")
